"""The lead's hands: episode logs and buckets on NATS, subagents and models over gRPC."""
