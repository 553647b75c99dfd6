"""What stands between the turn loop and the tools: the Toolset protocol, evidence, and the calls that cannot be run.

Invariant: a call that cannot be carried out is told to the model with its reason; it never ends the agent.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from wideseek_agent.messages import Message, ToolCall, ToolSpec

MALFORMED_CALL = "MALFORMED_CALL"
UNKNOWN_TOOL = "UNKNOWN_TOOL"
SEVERAL_CALLS = "SEVERAL_CALLS"
BAD_ARGUMENTS = "BAD_ARGUMENTS"
TOOL_CALL_LIMIT = "TOOL_CALL_LIMIT"
OUT_OF_TIME = "OUT_OF_TIME"

_UNCOUNTED = frozenset({MALFORMED_CALL, UNKNOWN_TOOL, SEVERAL_CALLS, BAD_ARGUMENTS, TOOL_CALL_LIMIT})


@dataclass(frozen=True)
class Evidence:
    """One item of a tool call and what came of it; the twin of events.v1 ToolEvidence.

    Attributes:
        tool: "search", "access" or "create_sub_agents"; for a call that could not be run, what the model wrote.
        input: the query, address or subtask prompt.
        error: empty on success, else the reason in UPPER_SNAKE.
        bytes: bytes of text that came back.
        latency_seconds: how long it took.
        cache_hit: whether a cache answered.
        found: addresses of the hits, for a search; the page's title, for an access.
        excerpt: the start of the page's text as the agent read it, for an access.
    """

    tool: str
    input: str
    error: str = ""
    bytes: int = 0
    latency_seconds: float = 0.0
    cache_hit: bool = False
    found: tuple[str, ...] = ()
    excerpt: str = ""


@dataclass(frozen=True)
class ToolOutcome:
    """What a tool call gave: the message for the model, and the evidence, an entry an item."""

    message: Message
    evidence: tuple[Evidence, ...] = ()


class BadCallError(ValueError):
    """A tool call cannot be carried out. The message says why, to the model; `reason` is in UPPER_SNAKE."""

    def __init__(self, message: str, *, reason: str = BAD_ARGUMENTS) -> None:
        """Make an error about one call."""
        super().__init__(message)
        self.reason = reason


class Toolset(Protocol):
    """The tools of one agent."""

    @property
    def specs(self) -> Sequence[ToolSpec]:
        """The tools, as the model is told of them."""

    async def run(self, call: ToolCall, *, turn: int, limit: int) -> ToolOutcome:
        """Carry out one well-formed call of one of `specs`; `turn` and `limit` are for the message's hint.

        Raises:
            BadCallError: the arguments cannot be used. Nothing was done.
        """


def only_call(calls: Sequence[ToolCall], specs: Sequence[ToolSpec]) -> ToolCall:
    """The one call of a reply.

    Raises:
        BadCallError: there are several, or it is malformed, or names a tool that is not in `specs`.
    """
    if len(calls) > 1:
        raise BadCallError(f"{len(calls)} tool calls in one reply, at most 1", reason=SEVERAL_CALLS)
    call = calls[0]
    if call.error:
        raise BadCallError(f"malformed tool call: {call.error}", reason=MALFORMED_CALL)
    names = [spec.name for spec in specs]
    if call.name not in names:
        raise BadCallError(f"no tool {call.name!r}, only {', '.join(names)}", reason=UNKNOWN_TOOL)
    return call


def counted(evidence: Iterable[Evidence]) -> int:
    """The tool calls that an agent spent according to its evidence; subagents are not tool calls."""
    return sum(item.tool != "create_sub_agents" and item.error not in _UNCOUNTED for item in evidence)
