"""The lead: runs episodes of many agents, keeps their logs, and shows them from any replica."""
