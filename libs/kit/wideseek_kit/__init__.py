"""What every service shares: serving and drain, errors, settings, telemetry, channels, the bus. No domain words."""
