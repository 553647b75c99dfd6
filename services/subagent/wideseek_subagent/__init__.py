"""The subagent service: one agent, one subtask, one context."""
