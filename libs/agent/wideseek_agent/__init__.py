"""The agent protocol: messages, prompt packs, tool calls, budgets and the turn loop, shared by lead and subagent."""
