"""`python -m wideseek_lead`: the service, set up from the environment."""

from wideseek_kit.entry import main

from wideseek_lead.settings import LeadSettings

if __name__ == "__main__":
    main("lead", LeadSettings, "wideseek_lead.wiring:run")
