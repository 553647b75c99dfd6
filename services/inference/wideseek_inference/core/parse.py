"""From a model's text to reasoning, content and tool calls.

Invariant: nothing is guessed. What stands between tool-call tags is a call only if it is a JSON object with a name and
an arguments object; anything else is handed on with its raw text and what is wrong with it.
"""

import json
from typing import Any, NoReturn

from wideseek_inference.core.turns import Message, Role, ToolCall

_THINK, _END_THINK = "<think>", "</think>"
_CALL, _END_CALL = "<tool_call>", "</tool_call>"


def parse(text: str, *, thinking: bool = False) -> Message:
    """The assistant message that a model's text (without the end of its turn) stands for.

    `thinking` says that the generation prompt has opened the think block already.
    """
    reasoning, rest = _split_reasoning(text, thinking)
    content: list[str] = []
    calls: list[ToolCall] = []
    while True:
        before, tag, rest = rest.partition(_CALL)
        content.append(before)
        if not tag:
            break
        raw, closed, rest = rest.partition(_END_CALL)
        if not closed:
            calls.append(ToolCall("", "", raw, f"the text ends before {_END_CALL}"))
            break
        calls.append(parse_call(raw))
    parts = [part.strip() for part in content]
    return Message(Role.ASSISTANT, "\n".join(filter(None, parts)), reasoning, tuple(calls))


def _split_reasoning(text: str, thinking: bool) -> tuple[str, str]:
    if not thinking:
        before, opened, inside = text.partition(_THINK)
        if not opened or before.strip():
            return "", text  # none, or a mention in the middle of an answer
        text = inside
    reasoning, _, rest = text.partition(_END_THINK)
    return reasoning.strip(), rest


def parse_call(raw: str) -> ToolCall:
    """The call that stands between two tags."""
    try:
        call = json.loads(raw, parse_constant=_refuse_constant)
        name, arguments = _fields(call)
        arguments_json = json.dumps(arguments, ensure_ascii=False)
        f"{name}{arguments_json}".encode()  # a lone surrogate is no text that could be sent on
    except (ValueError, RecursionError) as error:
        return ToolCall("", "", raw, _fault(error))
    return ToolCall(name, arguments_json, raw)


def _fields(call: Any) -> tuple[str, dict[str, Any]]:
    if not isinstance(call, dict):
        raise ValueError(f"a JSON object is needed, this is {_kind(call)}")
    name = call.get("name")
    if not isinstance(name, str) or not name:
        raise ValueError(f"name must be a non-empty string, this is {_kind(name) if 'name' in call else 'missing'}")
    if not isinstance(call.get("arguments"), dict):
        found = _kind(call["arguments"]) if "arguments" in call else "missing"
        raise ValueError(f"arguments must be an object, this is {found}")
    return name, call["arguments"]


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _fault(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON: {error.msg} at character {error.pos}"
    if isinstance(error, UnicodeEncodeError):
        return "not Unicode text: it holds half of a surrogate pair"
    if isinstance(error, RecursionError):
        return "nested too deep"
    return str(error)
