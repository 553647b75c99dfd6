"""What touches the world: tokenizers, vLLM, OpenAI-compatible servers, weight files, NATS."""
