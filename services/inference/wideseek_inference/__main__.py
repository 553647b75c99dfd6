"""`python -m wideseek_inference`."""

from wideseek_kit.entry import main

from wideseek_inference.settings import Settings

if __name__ == "__main__":  # the engine's processes import this module again
    main("inference", Settings, "wideseek_inference.wiring:run")
