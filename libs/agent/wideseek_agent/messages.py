"""Messages and tool calls as the agents see them, free of any transport.

Invariant: a message is immutable; a conversation only ever grows.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Role(StrEnum):
    """Who speaks in a message."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


class AgentRole(StrEnum):
    """What an agent does in an episode."""

    LEAD = "lead"
    SUBAGENT = "subagent"
    SINGLE = "single"


class AnswerFormat(StrEnum):
    """Where an answer stands in the last reply: a fenced Markdown table, or a LaTeX box."""

    TABLE = "table"
    BOXED = "boxed"


@dataclass(frozen=True)
class ToolCall:
    """One tool call of an assistant message.

    Attributes:
        name: the tool's name; empty when the call could not be parsed.
        arguments: the decoded JSON object; empty when `error` is set.
        raw: the text between the tool-call tags, as generated.
        error: why the call is malformed; empty when it is well formed.
    """

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    raw: str = ""
    error: str = ""


@dataclass(frozen=True)
class Message:
    """One message of a conversation.

    Attributes:
        role: the speaker.
        content: the text without reasoning and tool calls.
        reasoning: the text of the think block, if any (assistant only).
        tool_calls: in the order generated (assistant only).
    """

    role: Role
    content: str
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()


@dataclass(frozen=True)
class ToolSpec:
    """A tool offered to the model: `parameters` is a JSON schema object."""

    name: str
    description: str
    parameters: dict[str, Any]
