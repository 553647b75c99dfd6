"""A demonstrated conversation of one agent, in the protocol's own messages."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from wideseek_agent.messages import AgentRole, Message, Role, ToolCall


@dataclass
class Transcript:
    """What one agent was told and said, in order. Every assistant message is a demonstration."""

    role: AgentRole
    messages: list[Message] = field(default_factory=list)

    @property
    def turn(self) -> int:
        """The assistant turns so far."""
        return sum(message.role is Role.ASSISTANT for message in self.messages)

    def see(self, messages: Iterable[Message]) -> None:
        """Append what the agent is told."""
        self.messages.extend(messages)

    def say(self, text: str) -> None:
        """Append a reply without tool calls: it ends the agent."""
        self.messages.append(Message(Role.ASSISTANT, text))

    def call(self, tool: str, arguments: dict[str, Any], text: str = "") -> None:
        """Append a turn that calls one tool, after `text` if there is any."""
        self.messages.append(Message(Role.ASSISTANT, text, tool_calls=(ToolCall(tool, arguments),)))
