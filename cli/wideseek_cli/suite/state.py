"""What is known of a local suite, in `<home>/suite.json`.

Invariants: only the supervisor writes it, always as a whole; a process is told apart from a later one with the same id
by its start time, so a file from before a reboot is seen to be stale.
"""

import json
import os
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import psutil
from wideseek_client import Endpoints

SCHEMA = 1


class Phase(StrEnum):
    """Where a suite is in its life."""

    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"
    FAILED = "failed"


class PartPhase(StrEnum):
    """Where a part is in its life."""

    WAITING = "waiting"
    STARTING = "starting"
    READY = "ready"
    RESTARTING = "restarting"
    DEAD = "dead"
    STOPPED = "stopped"


@dataclass(frozen=True)
class Process:
    """A process of this machine; `started` is its start time in seconds of the epoch."""

    pid: int
    started: float

    @classmethod
    def of(cls, pid: int) -> "Process":
        """The process that has `pid` now; one that has ended already gets the start time 0."""
        try:
            return cls(pid, psutil.Process(pid).create_time())
        except psutil.NoSuchProcess:
            return cls(pid, 0.0)

    def alive(self) -> bool:
        """Whether it still runs; a zombie does not."""
        try:
            found = psutil.Process(self.pid)
            return abs(found.create_time() - self.started) < 1 and found.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False


@dataclass
class PartState:
    """One part: `port` is where it listens, `fault` why it is not ready or died."""

    name: str
    port: int
    log: str
    phase: PartPhase = PartPhase.WAITING
    process: Process | None = None
    restarts: int = 0
    fault: str = ""


@dataclass
class SuiteState:
    """The whole suite. `fault` says why it failed, with the end of the log of the part that did."""

    supervisor: Process
    model: str
    endpoints: Endpoints
    nats_url: str
    parts: list[PartState]
    phase: Phase = Phase.STARTING
    fault: str = ""
    schema: int = field(default=SCHEMA)

    def part(self, name: str) -> PartState:
        """The part called `name`."""
        return next(part for part in self.parts if part.name == name)

    def running(self) -> bool:
        """Whether its supervisor still runs."""
        return self.supervisor.alive()

    def leftovers(self) -> list[Process]:
        """Parts that still run; with a supervisor that does not, they are orphans."""
        return [part.process for part in self.parts if part.process is not None and part.process.alive()]

    def write(self, path: Path) -> None:
        """Replace the file."""
        scratch = path.with_suffix(f".{os.getpid()}.tmp")
        scratch.write_text(json.dumps(asdict(self), indent=1))
        scratch.replace(path)


def read_state(path: Path) -> SuiteState | None:
    """Read the file; None when there is none, or when it is of another version of this program."""
    try:
        data: Any = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except json.JSONDecodeError:
        return None  # written by something else: the same as no suite
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        return None
    parts = [
        PartState(**{**part, "phase": PartPhase(part["phase"]), "process": _process(part["process"])})
        for part in data.pop("parts")
    ]
    supervisor = Process(**data.pop("supervisor"))
    endpoints = Endpoints(**data.pop("endpoints"))
    phase = Phase(data.pop("phase"))
    return SuiteState(supervisor=supervisor, endpoints=endpoints, phase=phase, parts=parts, **data)


def _process(data: dict[str, Any] | None) -> Process | None:
    return Process(**data) if data else None
