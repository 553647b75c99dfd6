"""The tools service: what the agents search and read."""
