"""The entry of every service: settings, logs, telemetry, then its own main coroutine.

Invariant: `--help` and a wrong setting are answered before anything heavy is imported; an error at start is one line.
"""

import asyncio
import importlib
import sys
from typing import TypeVar

from wideseek_kit.settings import ServiceSettings, read_settings

S = TypeVar("S", bound=ServiceSettings)


class StartError(Exception):
    """The service cannot start; the message names the setting or file at fault."""


def main(service: str, kind: type[S], wiring: str) -> None:
    """Run `wiring` ("module:coroutine function of the settings") as the service named `service`."""
    settings = read_settings(kind, f"python -m wideseek_{service}")
    from wideseek_kit import telemetry  # after --help has been answered: OpenTelemetry takes a while to import

    telemetry.set_up_logging(service, settings.log_level, as_json=settings.log_json)
    module, _, function = wiring.partition(":")
    run = getattr(importlib.import_module(module), function)
    with telemetry.tracing(service, settings.otlp_endpoint):
        try:
            asyncio.run(run(settings))
        except (StartError, OSError) as error:
            sys.exit(f"{service}: {error}")
