"""An episode as training sees it: who said which tokens, under which policy version.

Invariants: texts of tools and turns are not kept, only tokens and what a reward needs; arrays are read only by habit,
nothing in here changes after it was made.
"""

from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Tokens: TypeAlias = NDArray[np.int32]
Floats: TypeAlias = NDArray[np.float32]


class Stop(Enum):
    """How an episode ended."""

    ANSWERED = "answered"
    BUDGET = "budget"
    DEADLINE = "deadline"
    CANCELLED = "cancelled"
    FAILED = "failed"
    LEAD_LOST = "lead_lost"

    @property
    def failure(self) -> bool:
        """Whether it counts as reward 0, whatever the answer."""
        return self in (Stop.CANCELLED, Stop.FAILED, Stop.LEAD_LOST)

    @property
    def blameless(self) -> bool:
        """Whether the policy's tokens had no part in it, so that they are not trained on."""
        return self in (Stop.CANCELLED, Stop.LEAD_LOST)


@dataclass(frozen=True, slots=True)
class Span:
    """Output tokens [start, end) were made by `version`."""

    version: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Turn:
    """One assistant turn. `logprobs` has one natural logarithm for each output token."""

    agent: str
    number: int
    prompt: Tokens
    output: Tokens
    logprobs: Floats
    spans: tuple[Span, ...]
    trainable: bool
    cut_short: bool
    pages_read: int


@dataclass(frozen=True, slots=True)
class AgentEnd:
    """An agent ended; `error` is empty unless it failed."""

    agent: str
    error: str


@dataclass(frozen=True, slots=True)
class EpisodeEnd:
    """The closing event: `expected` says how many turns of each agent a whole log holds."""

    stop: Stop
    answer: str
    expected: dict[str, int]


@dataclass(frozen=True, slots=True)
class Place:
    """Where an episode belongs: its place `index` in a group of `size`."""

    group: str
    index: int
    size: int


@dataclass(frozen=True, slots=True)
class Event:
    """One entry of an episode's log, `sequence` from 1 without gaps. `body` is None where training does not need it."""

    event_id: str
    episode: str
    sequence: int
    place: Place
    body: Turn | AgentEnd | EpisodeEnd | None
    traceparent: str = ""


@dataclass(frozen=True, slots=True)
class Episode:
    """A whole episode. `turns` holds each agent's turns in order; the first agent to finish a turn comes first."""

    episode: str
    place: Place
    stop: Stop
    answer: str
    turns: dict[str, tuple[Turn, ...]]
    main_failed: bool = False
    traceparent: str = ""

    @property
    def failed(self) -> bool:
        """Whether the reward is 0 without a look at the answer."""
        return self.stop.failure or self.main_failed

    @property
    def versions(self) -> frozenset[int]:
        """The policy versions that made trainable tokens."""
        every = (turn for turns in self.turns.values() for turn in turns if turn.trainable)
        return frozenset(span.version for turn in every for span in turn.spans if span.end > span.start)
