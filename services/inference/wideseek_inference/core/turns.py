"""What goes into a turn and what comes out of it.

Invariants: values are immutable; a `Turn`'s context is the request's context with the prompt and the output behind it.
"""

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol


class RequestError(Exception):
    """A field of the request cannot be used.

    Attributes:
        field: its path in the request.
        reason: UPPER_SNAKE, for machines.
        facts: the figures of the message.
    """

    def __init__(self, field: str, message: str, reason: str = "INVALID_ARGUMENT", **facts: object) -> None:
        """Make an error about `field`."""
        super().__init__(message)
        self.field = field
        self.reason = reason
        self.facts = facts


class Role(StrEnum):
    """Who speaks in a message."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


@dataclass(frozen=True)
class ToolCall:
    """One tool call as the model wrote it; `error` says why it is malformed, and then only `raw` is set besides."""

    name: str
    arguments_json: str
    raw: str
    error: str = ""


@dataclass(frozen=True)
class Message:
    """One message; `content` is without reasoning and tool calls."""

    role: Role
    content: str
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()


@dataclass(frozen=True)
class ToolSpec:
    """A tool that the model may call; `parameters` is a JSON schema."""

    name: str
    description: str
    parameters: dict[str, Any]


@dataclass(frozen=True)
class Context:
    """A conversation so far: token ids on engine routes, messages on the others."""

    token_ids: list[int] = field(default_factory=list)
    messages: tuple[Message, ...] = ()
    template_hash: str = ""


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn; `max_output_tokens` None means all there is room for, `seed` None a random one."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    max_output_tokens: int | None = None
    seed: int | None = None

    def check(self) -> None:
        """Refuse what no backend can do.

        Raises:
            RequestError: names the field and its figure.
        """
        # Below 0.01 the engine would draw at 0.01 and the logprobs would be at another temperature than asked for.
        if not (self.temperature == 0 or 0.01 <= self.temperature <= 2):
            raise RequestError("sampling.temperature", f"{self.temperature} is neither 0 nor within [0.01, 2]")
        if not 0 < self.top_p <= 1:
            raise RequestError("sampling.top_p", f"{self.top_p} is not within (0, 1]")
        if self.max_output_tokens == 0:
            raise RequestError(
                "sampling.max_output_tokens", "0 tokens cannot be generated; leave it unset for no limit"
            )

    @property
    def trainable(self) -> bool:
        """Whether logprobs are those of the whole distribution, at a temperature that has them."""
        return self.temperature > 0 and self.top_p == 1 and self.top_k == 0


@dataclass(frozen=True)
class TurnRequest:
    """One assistant turn to make."""

    context: Context
    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...] = ()
    sampling: Sampling = Sampling()

    def check(self) -> None:
        """Refuse what cannot be appended.

        Raises:
            RequestError: names the field.
        """
        if not self.messages:
            raise RequestError("messages", "is empty; a turn needs at least one new message")
        for index, message in enumerate(self.messages):
            if message.role is Role.ASSISTANT:
                raise RequestError(f"messages[{index}].role", "is assistant; the model's own turns are in the context")
        for index, tool in enumerate(self.tools):
            if not tool.name:
                raise RequestError(f"tools[{index}].name", "is empty")
        self.sampling.check()


@dataclass(frozen=True)
class Delta:
    """A piece of the turn, for showing it live."""

    text: str
    tokens: int


class FinishReason(StrEnum):
    """Why a turn ended."""

    STOP = "stop"
    LENGTH = "length"


@dataclass(frozen=True)
class Span:
    """The output tokens [start, end) that one policy version made."""

    version: int
    start: int
    end: int


@dataclass(frozen=True)
class Usage:
    """Token counts of a turn."""

    input_tokens: int
    cached_tokens: int
    output_tokens: int


@dataclass(frozen=True)
class Turn:
    """A finished turn. Token fields are empty on routes without token ids."""

    context: Context
    message: Message
    finish_reason: FinishReason
    usage: Usage
    prompt_token_ids: list[int] = field(default_factory=list)
    output_token_ids: list[int] = field(default_factory=list)
    output_logprobs: list[float] = field(default_factory=list)
    spans: tuple[Span, ...] = ()
    trainable: bool = False


@dataclass(frozen=True)
class RouteInfo:
    """What a route is."""

    name: str
    backend: str
    max_context_tokens: int = 0
    version: int = 0
    template_hash: str = ""
    trainable: bool = False


class Route(Protocol):
    """A model that makes turns."""

    def generate(self, request: TurnRequest) -> AsyncGenerator[Delta | Turn, None]:
        """Deltas, then exactly one turn. Closing the iterator ends the work for it."""
        ...

    def info(self, name: str) -> RouteInfo:
        """What the route is, under the name that it is asked for by."""
        ...
