"""The trainer service: turns finished episodes into policy versions."""
