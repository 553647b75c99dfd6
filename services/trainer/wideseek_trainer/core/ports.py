"""What the driver needs of the world, as Protocols. Every call may be repeated after a crash, to the same effect."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from wideseek_trainer.core.checkpoint import Progress
from wideseek_trainer.core.sequences import TrainSequence
from wideseek_trainer.core.tasks import Task
from wideseek_trainer.core.trajectory import Event, Place


@dataclass(frozen=True)
class EpisodeRequest:
    """Asks for one episode; the same `request_id` always means the same episode."""

    request_id: str
    task: Task
    place: Place


@dataclass(frozen=True)
class Delivery:
    """A message of the stream.

    Attributes:
        sequence: its place in the stream.
        episode: the episode it belongs to.
        place: where that episode belongs in this run; None when it is of another or of none.
        event: what it says; None when it is not of this run or cannot be read.
        newer: whether it has a schema newer than this reader.
    """

    sequence: int
    episode: str
    place: Place | None = None
    event: Event | None = None
    newer: bool = False


class Busy(Exception):  # noqa: N818 -- a state of the far side, not an error of ours
    """The far side cannot answer now; asking again later may help."""


class Episodes(Protocol):
    """The lead."""

    async def create(self, request: EpisodeRequest) -> str:
        """Start an episode; returns its id. Raises Busy, or EpisodeRefusedError when asking again would not help."""

    async def cancel(self, episode: str) -> None:
        """Stop an episode; of no effect on an ended one."""


class EventLog(Protocol):
    """The stream of episode logs, read in order."""

    async def last_sequence(self) -> int:
        """The stream's newest sequence."""

    async def open(self, after: int) -> None:
        """Read from the first message after the sequence `after`, also when an earlier reader was further."""

    async def fetch(self) -> Sequence[Delivery]:
        """The next messages, in order; empty when none came within a second or so."""

    async def acknowledge(self, sequences: Sequence[int]) -> None:
        """Say that these messages are done with."""

    async def close(self) -> None:
        """Drop the reader's state on the server: the run has ended."""


class Policies(Protocol):
    """The policy store and its registry."""

    async def reserve(self, run_id: str, step: int) -> int:
        """The version of a step's policy: a new one, or the one reserved for it before."""

    async def publish(self, run_id: str, progress: Progress, base: Path, weights: Path) -> None:
        """Write the policy directory (files of `base`, the file `weights`), manifest last, and its record."""

    async def announce(self, version: int) -> None:
        """Tell every inference replica to serve the version."""


class Learners(Protocol):
    """All learners as one."""

    async def start(self, base: Path, resume: Path | None) -> None:
        """Load the run's first policy, then go on from the checkpoint directory `resume` if there is one."""

    async def update(self, sequences: Sequence[TrainSequence]) -> dict[str, float]:
        """Make one update; returns figures. Raises UpdateFailedError."""

    async def save(self, directory: Path) -> None:
        """Write weights and state into `directory`."""


class Serving(Protocol):
    """What inference serves now."""

    async def version(self) -> int:
        """The policy version. Raises Busy."""


class Journal(Protocol):
    """The run's record, for those who watch it."""

    async def step_done(self, progress: Progress) -> None:
        """Record an update that was published."""


class Tracer(Protocol):
    """Spans of updates."""

    def update(self, step: int, traceparents: Sequence[str]) -> AbstractContextManager[None]:
        """A span over an update, linked to the episodes that it trains on."""


@dataclass(frozen=True)
class Ports:
    """All of them. Without `serving`, a published version counts as served."""

    episodes: Episodes
    events: EventLog
    policies: Policies
    learners: Learners
    journal: Journal
    tracer: Tracer
    serving: Serving | None = None
