"""`python -m wideseek_subagent`: run subtasks for leads."""

from wideseek_kit.entry import main

from wideseek_subagent.settings import Settings

if __name__ == "__main__":
    main("subagent", Settings, "wideseek_subagent.wiring:run")
