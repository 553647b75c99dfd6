"""What the service decides, free of gRPC, vLLM and NATS."""
