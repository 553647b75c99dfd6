"""Conversations as token ids, by the chat template's own rendering.

Invariant: appending is all there is. The ids of a conversation are the ids of its parts, in order: what the agent is
told is rendered with the generation prompt behind it, what it says is its text and the end of the turn.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from transformers import PreTrainedTokenizerFast
from wideseek_agent.messages import Message, Role

_GENERATION_PROMPT = "<|im_start|>assistant\n"


@dataclass(frozen=True)
class Tokens:
    """Token ids, and for each whether the model is to produce it."""

    ids: tuple[int, ...]
    trained: tuple[bool, ...]


class Renderer:
    """Renders with one tokenizer's template."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        """Keep the tokenizer, which carries the template."""
        self._tokenizer = tokenizer

    def encode(self, text: str) -> list[int]:
        """The ids of a text, nothing added."""
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    def text(self, messages: Sequence[Message], *, prompt: bool) -> str:
        """The template's text of `messages`, with the generation prompt behind it if `prompt`."""
        plain = [_plain(message) for message in messages]
        return str(self._tokenizer.apply_chat_template(plain, tokenize=False, add_generation_prompt=prompt))

    def told(self, messages: Sequence[Message], *, first: bool) -> list[int]:
        """The ids of what an agent is told before its next turn; behind a turn they begin by closing its line."""
        return self.encode(("" if first else "\n") + self.text(messages, prompt=True))

    def said(self, message: Message) -> list[int]:
        """The ids of an assistant's turn, with the end of the turn."""
        whole = self.text([message], prompt=False)
        return self.encode(whole.removeprefix(_GENERATION_PROMPT).removesuffix("\n"))

    def conversation(self, messages: Iterable[Message]) -> Tokens:
        """A whole conversation; it ends with an assistant's turn."""
        ids: list[int] = []
        trained: list[bool] = []
        for speaks, group in groupby(messages, key=lambda message: message.role is Role.ASSISTANT):
            run = list(group)
            part = [i for m in run for i in self.said(m)] if speaks else self.told(run, first=not ids)
            ids += part
            trained += [speaks] * len(part)
        return Tokens(tuple(ids), tuple(trained))


def _plain(message: Message) -> dict[str, Any]:
    plain: dict[str, Any] = {"role": str(message.role), "content": message.content}
    if message.tool_calls:
        called = [{"name": call.name, "arguments": call.arguments} for call in message.tool_calls]
        plain["tool_calls"] = [{"type": "function", "function": function} for function in called]
    return plain
