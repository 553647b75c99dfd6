"""What the core needs of the world, and the subtask as it knows it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from wideseek_agent.budget import Limits
from wideseek_agent.loop import Model
from wideseek_agent.messages import AgentRole, AnswerFormat, Message
from wideseek_agent.pack import Hit
from wideseek_agent.tools import PageAsk, Query


@dataclass(frozen=True)
class Subtask:
    """One agent's task; `sampling` is opaque here, the model's adapter reads it."""

    episode_id: str
    agent_id: str
    role: AgentRole
    prompt: str
    limits: Limits
    pack: str
    language: str = "en"
    model: str = ""
    corpus: str = ""
    sampling: Any = None
    answer_format: AnswerFormat = AnswerFormat.TABLE
    columns: tuple[str, ...] = ()
    key_columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class Origin:
    """How an item's answer came about; `error` (for the model) and `reason` (UPPER_SNAKE) are empty on success."""

    error: str = ""
    reason: str = ""
    bytes: int = 0
    latency_seconds: float = 0.0
    cache_hit: bool = False


@dataclass(frozen=True)
class Hits:
    """What one query gave."""

    origin: Origin
    hits: tuple[Hit, ...] = ()


@dataclass(frozen=True)
class PageText:
    """What one address gave; `total_chars` counts the whole text, `text` may be its start."""

    origin: Origin
    title: str = ""
    text: str = ""
    total_chars: int = 0


class Research(Protocol):
    """Search and page fetch. A failure of the whole is told as the failure of each item; nothing is raised."""

    async def search(self, queries: Sequence[Query]) -> Sequence[Hits]:
        """Answer each query, in order."""

    async def fetch(self, pages: Sequence[PageAsk], *, max_chars: int) -> Sequence[PageText]:
        """Read the start of each page, in order."""


@dataclass(frozen=True)
class Summary:
    """A page's summary and the tokens that it took."""

    text: str
    tokens: int


class Summariser(Protocol):
    """The model that summarises pages."""

    async def summarise(self, messages: Sequence[Message], *, max_output_tokens: int) -> Summary | None:
        """Answer the messages; None when it could not (the adapter has logged why)."""


class Policy(Model, Protocol):
    """The model that the agent is."""

    async def context_limit(self) -> int:
        """Most tokens of a conversation; 0 when unknown."""


class Backends(Protocol):
    """Where the parts of an agent come from."""

    def policy(self, subtask: Subtask) -> Policy:
        """The model of the subtask's agent."""

    def research(self, subtask: Subtask) -> Research:
        """The tools of the subtask's agent."""

    def summariser(self, subtask: Subtask) -> Summariser:
        """The summariser for the subtask's agent."""
