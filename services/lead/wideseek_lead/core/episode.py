"""The episode as a resource: what was asked, how far it is, what came of it.

Invariants: everything here is immutable; an episode that has ended has a stop reason and an end time, and one that
failed has a failure.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from wideseek_agent.messages import AnswerFormat


class Mode(StrEnum):
    """One agent or many."""

    MULTI = "multi"
    SINGLE = "single"


class State(StrEnum):
    """Where an episode is in its life."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class StopReason(StrEnum):
    """How an episode ended."""

    ANSWERED = "answered"
    BUDGET = "budget"
    DEADLINE = "deadline"
    CANCELLED = "cancelled"
    FAILED = "failed"
    LEAD_LOST = "lead_lost"


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn; None means the model service's default."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    max_output_tokens: int | None = None
    seed: int | None = None


@dataclass(frozen=True)
class EpisodeLimits:
    """What an episode may spend, all agents together.

    Attributes:
        max_subagents: subagents over the whole episode.
        max_turns: turns of the main agent.
        max_subagent_turns: turns of each subagent.
        max_tool_calls: queries and pages.
        max_output_tokens: tokens generated.
        deadline: seconds of wall-clock time.
    """

    max_subagents: int
    max_turns: int
    max_subagent_turns: int
    max_tool_calls: int
    max_output_tokens: int
    deadline: float


@dataclass(frozen=True)
class TrainingTag:
    """Where an episode belongs in training."""

    run_id: str = ""
    group_id: str = ""
    task_id: str = ""
    group_size: int = 0
    index: int = 0


@dataclass(frozen=True)
class EpisodeSpec:
    """What was asked, every default filled in."""

    question: str
    mode: Mode
    answer_format: AnswerFormat
    required_columns: tuple[str, ...]
    key_columns: tuple[str, ...]
    language: str
    limits: EpisodeLimits
    sampling: Sampling
    corpus: str
    model: str
    prompt_pack: str
    training: TrainingTag | None = None


@dataclass(frozen=True)
class AnswerRow:
    """A row of a table, with the addresses of the pages it came from."""

    cells: tuple[str, ...]
    sources: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answer:
    """The last reply and what was read in it; `problems` says what is wrong with its form."""

    text: str
    columns: tuple[str, ...] = ()
    rows: tuple[AnswerRow, ...] = ()
    boxed: str = ""
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Failure:
    """Why an episode failed: a reason in UPPER_SNAKE, words, and the variables of the words."""

    reason: str
    message: str
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Usage:
    """What was spent, all agents together."""

    agents: int = 0
    turns: int = 0
    tool_calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0


@dataclass(frozen=True)
class Episode:
    """One question on its way to an answer. `last_sequence` counts the events of its log."""

    episode_id: str
    spec: EpisodeSpec
    create_time: datetime
    state: State = State.RUNNING
    stop: StopReason | None = None
    failure: Failure | None = None
    answer: Answer | None = None
    usage: Usage = Usage()
    end_time: datetime | None = None
    last_sequence: int = 0

    @property
    def ended(self) -> bool:
        """Whether nothing will change any more."""
        return self.state is not State.RUNNING
