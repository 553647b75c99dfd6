"""The world behind the core's ports: the inference and the tools service."""
