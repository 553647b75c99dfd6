"""Prompt packs: every word the agents are told, as templates a deployment can replace.

Invariant: what the models read is made here and nowhere else, so training data made with a pack has the
very text that the services will send.
"""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined, Template

from wideseek_agent.messages import AgentRole, AnswerFormat, Message, Role

BUILT_IN = Path(__file__).parent / "packs"
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_CUT = "\n[{{ shown }} of {{ total }} characters shown]"


class PackError(ValueError):
    """A prompt pack is missing, or lacks a template. The message names the file and the template."""


@dataclass(frozen=True)
class Report:
    """What one subagent gave back: its text, or the error that ended it."""

    text: str = ""
    error: str = ""


@dataclass(frozen=True)
class Hit:
    """One search result."""

    title: str
    url: str
    snippet: str


@dataclass(frozen=True)
class SearchResult:
    """The hits of one query, or the error that it met."""

    query: str
    hits: tuple[Hit, ...] = ()
    error: str = ""


@dataclass(frozen=True)
class PageResult:
    """The text of one page as the agent gets to see it, or the error that it met."""

    url: str
    text: str = ""
    error: str = ""


class Shelf:
    """The prompt packs below one folder, each read once."""

    def __init__(self, root: Path | None = None) -> None:
        """Read from `root`; unset: the built-in packs."""
        self._root = root
        self._packs: dict[tuple[str, str], Pack] = {}

    def pack(self, name: str, language: str) -> "Pack":
        """The pack, as `Pack.load` reads it."""
        key = (name, language)
        if key not in self._packs:
            self._packs[key] = Pack.load(name, language, self._root)
        return self._packs[key]


class Pack:
    """One language of one prompt pack."""

    def __init__(self, source: Path, tables: Mapping[str, Any]) -> None:
        """Compile the templates of `tables`; `source` is named in errors."""
        self._source = source
        self._environment = Environment(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True)
        self._templates: dict[str, Template] = {}
        self._compile("", tables)
        self.send_tool_specs = bool(tables.get("send_tool_specs", True))

    @classmethod
    def load(cls, name: str, language: str, root: Path | None = None) -> "Pack":
        """Read `<root>/<name>/<language>.toml`; without `root`, one of the built-in packs.

        Raises:
            PackError: there is no such file, or it is not TOML.
        """
        for what, given in (("name", name), ("language", language)):
            if not _PLAIN_NAME.fullmatch(given):  # it becomes a part of a path
                raise PackError(f"prompt pack {what} {given!r}: letters, digits, '-' and '_' only")
        path = (root or BUILT_IN) / name / f"{language}.toml"
        try:
            return cls(path, tomllib.loads(path.read_text("utf-8")))
        except FileNotFoundError as error:
            have = ", ".join(sorted(str(p.relative_to(path.parents[1])) for p in path.parents[1].glob("*/*.toml")))
            raise PackError(
                f"prompt pack {name!r} has no language {language!r}: no {path} (there are: {have})"
            ) from error
        except tomllib.TOMLDecodeError as error:
            raise PackError(f"prompt pack {path}: {error}") from error

    def opening(
        self,
        role: AgentRole,
        question: str,
        *,
        answer_format: AnswerFormat = AnswerFormat.TABLE,
        columns: Sequence[str] = (),
        key_columns: Sequence[str] = (),
        max_subagents: int = 0,
        max_turns: int = 0,
    ) -> list[Message]:
        """The system and the user message that open an agent's conversation."""
        facts: dict[str, Any] = {"max_subagents": max_subagents, "max_turns": max_turns}
        if role is AgentRole.SUBAGENT:
            prefix = "subagent"
            facts["prompt"] = question
        else:
            prefix = f"{role}.{answer_format}"
            facts |= {"question": question, "columns": list(columns), "key_columns": list(key_columns)}
        return [
            Message(Role.SYSTEM, self._render(f"{prefix}.system", **facts)),
            Message(Role.USER, self._render(f"{prefix}.user", **facts)),
        ]

    def reports(self, reports: Sequence[Report], *, turn: int, limit: int) -> Message:
        """The tool message that brings the subagents' reports to the lead."""
        return self._observation("reports", turn, limit, reports=reports)

    def search(self, results: Sequence[SearchResult], *, turn: int, limit: int) -> Message:
        """The tool message that answers a `search` call."""
        return self._observation("search", turn, limit, results=results)

    def pages(self, pages: Sequence[PageResult], *, turn: int, limit: int) -> Message:
        """The tool message that answers an `access` call."""
        return self._observation("pages", turn, limit, pages=pages)

    def bad_call(self, error: str, *, turn: int, limit: int) -> Message:
        """The tool message that answers a call that cannot be carried out."""
        return self._observation("bad_call", turn, limit, error=error)

    def final_notice(self) -> Message:
        """The user message that asks for the answer with what there is."""
        return Message(Role.USER, self._render("observation.final_notice"))

    def tool_text(self, name: str) -> str:
        """What the model is told of a tool or a parameter; empty when the pack sends no tool specs."""
        return self._render(f"tools.{name}") if self.send_tool_specs else ""

    def cut(self, text: str, *, total: int) -> str:
        """The start of a page of `total` characters, with a note that it is only the start."""
        template = self._templates.get("observation.cut") or self._environment.from_string(_CUT)
        return text + template.render(shown=len(text), total=total)

    @property
    def summarises(self) -> bool:
        """Whether the pack can ask a model to summarise a page."""
        return "summary" in self._templates

    def summary(self, text: str, info_to_extract: str) -> list[Message]:
        """The messages that ask the summariser for what a page says of `info_to_extract`."""
        return [Message(Role.USER, self._render("summary", text=text, info_to_extract=info_to_extract))]

    def _observation(self, name: str, turn: int, limit: int, **facts: Any) -> Message:
        body = self._render(f"observation.{name}", **facts)
        return Message(Role.TOOL, body + self._render("observation.hint", turn=turn, limit=limit))

    def _compile(self, prefix: str, tables: Mapping[str, Any]) -> None:
        for key, value in tables.items():
            if isinstance(value, Mapping):
                self._compile(f"{prefix}{key}.", value)
            elif isinstance(value, str):
                self._templates[prefix + key] = self._environment.from_string(value)

    def _render(self, name: str, **facts: Any) -> str:
        template = self._templates.get(name)
        if template is None:
            raise PackError(f"prompt pack {self._source} has no template {name!r}")
        return template.render(**facts)
