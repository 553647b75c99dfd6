"""Settings: one frozen class a service, read once from the environment.

Invariant: a wrong setting ends the process before anything is opened, with the variable's name and the value.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Annotated, TypeVar

from pydantic import Field, ValidationError
from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings, SettingsConfigDict

S = TypeVar("S", bound="ServiceSettings")
Seconds = Annotated[float, Field(ge=0)]


class ServiceSettings(BaseSettings):
    """What every service can be told. A service derives from it and sets its own `env_prefix`."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore")

    listen: str = Field("127.0.0.1:0", description="address to serve on; port 0 takes a free one; unix:PATH works too")
    port_file: str = Field("", description="file to write the bound port to once serving; empty: none")
    drain_notice: Seconds = Field(0.0, description="seconds between NOT_SERVING and refusing new calls")
    drain_grace: Seconds = Field(20.0, description="seconds that calls in flight get to end")
    log_level: str = Field("INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="least level that is logged")
    log_json: bool = Field(True, description="logs as JSON lines; false: as text")
    otlp_endpoint: str = Field("", description="OTLP/gRPC endpoint, e.g. http://127.0.0.1:4317; empty: no telemetry")


def read_settings(kind: type[S], program: str, arguments: Sequence[str] | None = None) -> S:
    """Answer `--help`, or read the settings from the environment.

    Exits with status 2 and one line a fault when a variable cannot be used.
    """
    parser = argparse.ArgumentParser(
        prog=program, epilog=describe(kind), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args(arguments)
    try:
        return kind()
    except ValidationError as error:
        prefix = kind.model_config.get("env_prefix", "")
        for fault in error.errors():
            name = prefix + "_".join(str(part) for part in fault["loc"]).upper()
            sys.stderr.write(f"{program}: {name}={fault['input']!r}: {fault['msg']}\n")
        sys.exit(2)


def describe(kind: type[ServiceSettings]) -> str:
    """A table of the environment variables: name, default, meaning."""
    prefix = kind.model_config.get("env_prefix", "")
    lines = ["environment variables:"]
    for name, field in kind.model_fields.items():
        default = "required" if field.default is PydanticUndefined else f"default {field.default!r}"
        lines.append(f"  {prefix}{name.upper()}  ({default})\n      {field.description}")
    return "\n".join(lines)
