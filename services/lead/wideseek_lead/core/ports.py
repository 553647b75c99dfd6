"""What an episode needs of the world: a journal for its events and a runner for its subtasks.

Invariants: `record`-like methods of a journal never wait and keep their order, `room` waits; a runner's stream ends
with exactly one report, or raises `SubtaskFailedError`; leaving the stream stops the agent behind it.
"""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any, Protocol

from wideseek_agent.loop import TurnRecord
from wideseek_agent.messages import AgentRole
from wideseek_agent.toolset import Evidence

from wideseek_lead.core.episode import EpisodeSpec

LEAD = "lead"
SINGLE = "single"


class SubtaskFailedError(Exception):
    """A subtask ended without a report. `reason` is in UPPER_SNAKE."""

    def __init__(self, reason: str, message: str) -> None:
        """Make an error with its reason and words."""
        super().__init__(message)
        self.reason = reason
        self.message = message


@dataclass(frozen=True)
class SubtaskLimits:
    """What one subtask may spend; each at least 1. `seconds` is wall-clock time."""

    turns: int
    tool_calls: int
    output_tokens: int
    context_tokens: int
    seconds: float


@dataclass(frozen=True)
class Subtask:
    """One agent's work. `spec` is the episode's: model, sampling, corpus, language, and a single agent's answer."""

    episode_id: str
    agent_id: str
    role: AgentRole
    prompt: str
    limits: SubtaskLimits
    spec: EpisodeSpec


@dataclass(frozen=True)
class SubtaskTurn:
    """A finished turn of a subtask. `payload` is what the log stores, opaque here."""

    agent_id: str
    turn: int
    input_tokens: int
    output_tokens: int
    evidence: tuple[Evidence, ...]
    payload: Any


@dataclass(frozen=True)
class SubtaskReport:
    """What a subtask brought back. `error` is in UPPER_SNAKE and empty on success."""

    text: str
    turns: int
    error: str = ""
    error_message: str = ""
    budget_exhausted: bool = False


class SubtaskRunner(Protocol):
    """Runs subtasks somewhere."""

    def run(self, task: Subtask) -> AsyncGenerator[SubtaskTurn | SubtaskReport, None]:
        """Run one subtask: its turns in order, then its report.

        Raises:
            SubtaskFailedError: there will be no report.
        """


@dataclass(frozen=True)
class AgentStarted:
    """An agent began. `parent_turn` is the turn of the parent that created it, 0 for the main agent."""

    agent_id: str
    role: AgentRole
    prompt: str
    parent_agent_id: str = ""
    parent_turn: int = 0


@dataclass(frozen=True)
class AgentFinished:
    """An agent ended. `error` is in UPPER_SNAKE and empty on success."""

    agent_id: str
    turns: int
    text: str = ""
    error: str = ""
    error_message: str = ""


class Journal(Protocol):
    """The log of one episode; it has one writer."""

    def agent_started(self, event: AgentStarted) -> None:
        """Record that an agent began."""

    def own_turn(self, agent_id: str, record: TurnRecord) -> None:
        """Record a turn that the episode generated itself."""

    def subtask_turn(self, turn: SubtaskTurn) -> None:
        """Record a turn that a runner streamed."""

    def agent_finished(self, event: AgentFinished) -> None:
        """Record that an agent ended."""

    async def room(self) -> None:
        """Wait while too much is recorded but not stored."""
