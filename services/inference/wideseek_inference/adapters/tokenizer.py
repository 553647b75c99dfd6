"""A model directory's tokenizer and chat template, as transformers reads them.

Invariant: the hash covers all that decides which ids a conversation gets: tokenizer.json, template, template variables.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from tokenizers.decoders import DecodeStream
from transformers import AutoTokenizer
from wideseek_kit.entry import StartError

from wideseek_inference.core.turns import Message, RequestError, ToolSpec


class HubTokenizer:
    """Implements `core.template.ChatTokenizer`."""

    def __init__(self, directory: Path, template_args: dict[str, Any]) -> None:
        """Load from `directory`.

        Raises:
            StartError: it holds no tokenizer.json or no chat template.
        """
        file = directory / "tokenizer.json"
        if not file.exists():
            raise StartError(f"{file} is missing: the model needs a fast tokenizer")
        self._tokenizer: Any = AutoTokenizer.from_pretrained(str(directory))
        template = self._tokenizer.chat_template
        if isinstance(template, dict):
            template = template.get("default")
        if not template:
            raise StartError(f"{directory} has no chat template")
        self._template = str(template)
        self._arguments = template_args
        self.template_hash = self._hash(file.read_bytes())
        self.vocabulary_size = len(self._tokenizer)
        self.eos_token_id = int(self._tokenizer.eos_token_id)

    def _hash(self, tokenizer: bytes) -> str:
        arguments = json.dumps(self._arguments, sort_keys=True) if self._arguments else ""
        parts = (tokenizer, self._template.encode(), arguments.encode())
        return hashlib.sha256(b"\0".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()

    def encode(self, text: str) -> list[int]:
        """The ids of a text, nothing added."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, without special tokens."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))

    def stream(self) -> "TextStream":
        """A decoder for one turn."""
        return TextStream(self._tokenizer.backend_tokenizer)

    def render(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> str:
        """The template's text with the generation prompt."""
        try:
            text = self._tokenizer.apply_chat_template(
                [{"role": str(m.role), "content": m.content} for m in messages],
                tools=[_function(tool) for tool in tools] or None,
                chat_template=self._template,
                tokenize=False,
                add_generation_prompt=True,
                **self._arguments,
            )
        except jinja2.TemplateError as error:
            raise RequestError("messages", f"the chat template refuses them: {error}", "TEMPLATE_REFUSED") from error
        return str(text)


class TextStream:
    """Text of a growing turn; what is half a character waits for its other half."""

    def __init__(self, backend: Any) -> None:
        """Start a turn."""
        self._backend = backend
        self._stream = DecodeStream(skip_special_tokens=True)

    def step(self, ids: Sequence[int]) -> str:
        """The text that these ids add."""
        return "".join(self._stream.step(self._backend, token) or "" for token in ids)


def _function(tool: ToolSpec) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", "function": function}
