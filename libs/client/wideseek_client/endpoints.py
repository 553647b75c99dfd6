"""Where the services are."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields


class MissingEndpointError(ValueError):
    """A call needs a service whose address was not given; `service` names it."""

    def __init__(self, service: str) -> None:
        """Name the service and the two ways to give its address."""
        super().__init__(f"no address of {service} was given: set {_variable(service)} or Endpoints({service}=...)")
        self.service = service


@dataclass(frozen=True)
class Endpoints:
    """The address of each service (host:port, dns:///name:port or unix:PATH); empty when it is not needed.

    `weights` is the control port of inference, which has an address of its own; `subagent` is asked for health only.
    """

    lead: str = ""
    trainer: str = ""
    tools: str = ""
    inference: str = ""
    weights: str = ""
    subagent: str = ""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> "Endpoints":
        """Read WIDESEEK_LEAD_TARGET, WIDESEEK_TRAINER_TARGET and so on."""
        source = os.environ if environment is None else environment
        return cls(**{field.name: source.get(_variable(field.name), "") for field in fields(cls)})

    def of(self, service: str) -> str:
        """The address of `service`.

        Raises:
            MissingEndpointError: it was not given.
        """
        address: str = getattr(self, service)
        if not address:
            raise MissingEndpointError(service)
        return address


def _variable(service: str) -> str:
    return f"WIDESEEK_{service.upper()}_TARGET"
