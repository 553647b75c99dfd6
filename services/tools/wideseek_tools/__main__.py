"""`python -m wideseek_tools`: serve search, page fetch and ingest."""

from wideseek_kit.entry import main

from wideseek_tools.settings import Settings

if __name__ == "__main__":
    main("tools", Settings, "wideseek_tools.wiring:run")
