"""Append-only rendering by a model's own chat template.

Invariant: what a conversation's tokens are is never asked again. A continuation renders and tokenises only what is new:
a stand-in exchange is put before the new messages, and what the template writes behind the stand-in's answer is the
text to append. Where the template renders old turns as it first did, the result is the full render, token for token.
"""

from collections.abc import Sequence
from typing import Protocol

from wideseek_inference.core.turns import Context, Message, RequestError, Role, ToolSpec

_SENTINEL = "wideseek-sentinel-7d1c"
_STAND_IN = (Message(Role.USER, "."), Message(Role.ASSISTANT, _SENTINEL))


class TemplateError(Exception):
    """A chat template cannot be used for append-only conversations; the message says why."""


class ChatTokenizer(Protocol):
    """A tokenizer with its chat template."""

    @property
    def template_hash(self) -> str:
        """SHA-256 (hex) over tokenizer and template."""
        ...

    @property
    def vocabulary_size(self) -> int:
        """One more than the largest token id."""
        ...

    def encode(self, text: str) -> list[int]:
        """The ids of a text, nothing added."""
        ...

    def render(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> str:
        """The template's text with the generation prompt. Raises RequestError when the template refuses."""
        ...


class Renderer:
    """Makes the token ids to append for new messages."""

    def __init__(self, tokenizer: ChatTokenizer) -> None:
        """Find out how the template ends a turn.

        Raises:
            TemplateError: it does not write an assistant's text as it is, or ends a turn with nothing.
        """
        self._tokenizer = tokenizer
        text = self._behind_stand_in([Message(Role.USER, ".")])
        ids = tokenizer.encode(text)
        if not ids:
            raise TemplateError("the chat template writes nothing behind an assistant's turn")
        self._turn_end = ids[0]

    @property
    def template_hash(self) -> str:
        """SHA-256 (hex) over tokenizer and template."""
        return self._tokenizer.template_hash

    def appended(self, context: Context, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> list[int]:
        """The token ids to append to `context` for `messages`, generation prompt included.

        Raises:
            RequestError: the context is not of this tokenizer and template, or the template refuses the messages.
        """
        if not context.token_ids:
            if context.messages:
                raise RequestError(
                    "context.messages", "this route continues token ids, the context holds messages", "CONTEXT_FOREIGN"
                )
            return self._tokenizer.encode(self._tokenizer.render(messages, tools))
        self._check(context)
        ids = self._tokenizer.encode(self._behind_stand_in(messages))
        # The template ends the stand-in's turn; the model has ended its own, unless its length was cut.
        return ids[1:] if context.token_ids[-1] == self._turn_end == ids[0] else ids

    def _check(self, context: Context) -> None:
        if context.template_hash != self.template_hash:
            raise RequestError(
                "context.template_hash",
                f"{context.template_hash or 'none'} made these tokens, this route's tokenizer and chat template "
                f"are {self.template_hash}",
                "CONTEXT_FOREIGN",
                expected=self.template_hash,
                found=context.template_hash,
            )
        largest, size = max(context.token_ids), self._tokenizer.vocabulary_size
        if largest >= size:
            raise RequestError(
                "context.token_ids", f"token {largest} is not in the vocabulary of {size}", token=largest, size=size
            )

    def _behind_stand_in(self, messages: Sequence[Message]) -> str:
        text = self._tokenizer.render([*_STAND_IN, *messages], ())
        _, found, rest = text.partition(_SENTINEL)
        if not found or _SENTINEL in rest:
            raise TemplateError("the chat template does not write an assistant's text once and as it is")
        return rest
