"""Where the service touches the world: the embedded index."""
