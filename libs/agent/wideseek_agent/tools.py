"""The tools that the agents may call: their specs, and their arguments checked and typed.

Invariant: an argument that cannot be used is refused with the path of the field and the figure, nothing is guessed.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from wideseek_agent.messages import Message, ToolSpec
from wideseek_agent.pack import Pack
from wideseek_agent.toolset import BadCallError

CREATE_SUB_AGENTS = "create_sub_agents"
SEARCH = "search"
ACCESS = "access"
MAX_SUB_AGENTS = 10
MAX_ITEMS = 5
"""Queries a `search` and pages an `access` may ask for."""
MAX_HITS = 50
MAX_TEXT = 32_768
"""Characters of a prompt, query or address."""

_ACTIVITY_CHARS = 120
T = TypeVar("T")


@dataclass(frozen=True)
class Query:
    """One query; `count` hits wanted, 0 for the service's default."""

    query: str
    count: int = 0


@dataclass(frozen=True)
class PageAsk:
    """One page and what the agent wants to know from it; empty when it did not say."""

    url: str
    info_to_extract: str = ""


def create_sub_agents_spec(pack: Pack, most: int = MAX_SUB_AGENTS) -> ToolSpec:
    """`create_sub_agents({sub_agents: [{prompt}]})`, the lead's tool."""
    item = _object({"prompt": _text(pack, "prompt")}, "prompt")
    return ToolSpec(CREATE_SUB_AGENTS, pack.tool_text(CREATE_SUB_AGENTS), _list_of("sub_agents", item, most))


def search_spec(pack: Pack, *, batch: bool) -> ToolSpec:
    """`search({queries: [{query, count}]})`, or for a single agent `search({query, count})`."""
    count = {"type": "integer", "description": pack.tool_text("count"), "minimum": 1, "maximum": MAX_HITS}
    item = _object({"query": _text(pack, "query"), "count": count}, "query")
    return ToolSpec(SEARCH, pack.tool_text(SEARCH), _list_of("queries", item, MAX_ITEMS) if batch else item)


def access_spec(pack: Pack, *, batch: bool) -> ToolSpec:
    """`access({urls: [{url, info_to_extract}]})`, or for a single agent `access({url, info_to_extract})`."""
    fields = {"url": _text(pack, "url"), "info_to_extract": _text(pack, "info_to_extract")}
    item = _object(fields, "url", "info_to_extract")
    return ToolSpec(ACCESS, pack.tool_text(ACCESS), _list_of("urls", item, MAX_ITEMS) if batch else item)


def parse_sub_agents(arguments: Mapping[str, Any], most: int = MAX_SUB_AGENTS) -> tuple[str, ...]:
    """The prompts of a `create_sub_agents` call.

    Raises:
        BadCallError: the arguments cannot be used.
    """
    return _items(arguments, "sub_agents", most, lambda item, path: _string(item, path, "prompt"))


def parse_search(arguments: Mapping[str, Any], *, batch: bool) -> tuple[Query, ...]:
    """The queries of a `search` call.

    Raises:
        BadCallError: the arguments cannot be used.
    """
    return _items(arguments, "queries", MAX_ITEMS, _query) if batch else (_query(arguments, ""),)


def parse_access(arguments: Mapping[str, Any], *, batch: bool) -> tuple[PageAsk, ...]:
    """The pages of an `access` call.

    Raises:
        BadCallError: the arguments cannot be used.
    """
    return _items(arguments, "urls", MAX_ITEMS, _page) if batch else (_page(arguments, ""),)


def activity(message: Message) -> str:
    """What a reply is about to do, in a line for a person, e.g. "search: moons of Zark"."""
    if not message.tool_calls:
        return "answer"
    call = message.tool_calls[0]
    if call.error:
        return "malformed call"
    key = {CREATE_SUB_AGENTS: "sub_agents", SEARCH: "queries", ACCESS: "urls"}.get(call.name, "")
    asked = call.arguments.get(key)
    items = asked if isinstance(asked, list) else [call.arguments]
    firsts = [str(next(iter(item.values()), "")) for item in items if isinstance(item, dict)]
    line = f"{call.name}: {'; '.join(firsts)}"
    return line if len(line) <= _ACTIVITY_CHARS else line[: _ACTIVITY_CHARS - 1] + "…"


def _text(pack: Pack, name: str) -> dict[str, Any]:
    return {"type": "string", "description": pack.tool_text(name)}


def _object(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required)}


def _list_of(name: str, item: dict[str, Any], most: int) -> dict[str, Any]:
    return _object({name: {"type": "array", "items": item, "minItems": 1, "maxItems": most}}, name)


def _items(
    arguments: Mapping[str, Any], name: str, most: int, read: Callable[[Mapping[str, Any], str], T]
) -> tuple[T, ...]:
    items = arguments.get(name)
    if not isinstance(items, list):
        raise BadCallError(f"{name}: {_kind(items)} given, a list of objects is needed")
    if not 1 <= len(items) <= most:
        raise BadCallError(f"{name}: {len(items)} given, {'at least 1' if not items else f'at most {most}'}")
    for number, item in enumerate(items):
        if not isinstance(item, dict):
            raise BadCallError(f"{name}[{number}]: {_kind(item)} given, an object is needed")
    return tuple(read(item, f"{name}[{number}].") for number, item in enumerate(items))


def _query(item: Mapping[str, Any], path: str) -> Query:
    count = item.get("count")
    if count is None:
        return Query(_string(item, path, "query"))
    if isinstance(count, bool) or not isinstance(count, int):
        raise BadCallError(f"{path}count: {_kind(count)} given, a whole number is needed")
    if not 1 <= count <= MAX_HITS:
        raise BadCallError(f"{path}count: {count} given, {'at least 1' if count < 1 else f'at most {MAX_HITS}'}")
    return Query(_string(item, path, "query"), count)


def _page(item: Mapping[str, Any], path: str) -> PageAsk:
    info = _string(item, path, "info_to_extract") if item.get("info_to_extract") else ""
    return PageAsk(_string(item, path, "url"), info)


def _string(item: Mapping[str, Any], path: str, name: str) -> str:
    value = item.get(name)
    if not isinstance(value, str):
        raise BadCallError(f"{path}{name}: {_kind(value)} given, a text is needed")
    if not value.strip():
        raise BadCallError(f"{path}{name}: empty")
    if len(value) > MAX_TEXT:
        raise BadCallError(f"{path}{name}: {len(value)} characters given, at most {MAX_TEXT}")
    return value


def _kind(value: object) -> str:
    if value is None:
        return "nothing"
    return {dict: "an object", list: "a list", str: "a text", bool: "a truth value"}.get(type(value), "a number")
