"""`make learn`: does the policy learn, and does it use its subagents? Figures, curves and a page about them."""
