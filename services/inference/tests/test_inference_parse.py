"""Model text to messages."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wideseek_inference.core.parse import parse, parse_call

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def call(name: str, arguments: object) -> str:
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


def test_reasoning_content_and_calls_are_told_apart() -> None:
    message = parse(f"<think>\nlook it up\n</think>\n\nOne moment.\n{call('search', {'q': 1})}\n{call('access', {})}")
    assert message.reasoning == "look it up"
    assert message.content == "One moment."
    assert [(c.name, c.arguments_json, c.error) for c in message.tool_calls] == [
        ("search", '{"q": 1}', ""),
        ("access", "{}", ""),
    ]


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        ('{"name": "search", "arguments": {"q": 1}', "not JSON: Expecting ',' delimiter at character 40"),
        ("search(q=1)", "not JSON: Expecting value at character 0"),
        ('{"arguments": {}}', "name must be a non-empty string, this is missing"),
        ('{"name": "", "arguments": {}}', "name must be a non-empty string, this is a string"),
        ('{"name": 3, "arguments": {}}', "name must be a non-empty string, this is a number"),
        ('{"name": "search"}', "arguments must be an object, this is missing"),
        ('{"name": "search", "arguments": "{}"}', "arguments must be an object, this is a string"),
        ('{"name": "search", "arguments": [1]}', "arguments must be an object, this is an array"),
        ('[{"name": "search", "arguments": {}}]', "a JSON object is needed, this is an array"),
        ('{"name": "search", "arguments": {"q": NaN}}', "NaN is not JSON"),
        ('{"name": "search", "arguments": {"q": "\\ud800"}}', "not Unicode text: it holds half of a surrogate pair"),
        ("[" * 100_000, "nested too deep"),
    ],
)
def test_a_malformed_call_is_reported_with_its_text(raw: str, error: str) -> None:
    found = parse(f"<tool_call>{raw}</tool_call>").tool_calls
    assert [(c.name, c.arguments_json, c.raw, c.error) for c in found] == [("", "", raw, error)]


def test_a_call_that_never_closes_is_malformed_and_not_content() -> None:
    message = parse('Now <tool_call>\n{"name": "search", "arguments": {}}')
    assert message.content == "Now"
    assert message.tool_calls[0].error == "the text ends before </tool_call>"


def test_a_call_inside_the_reasoning_is_no_call() -> None:
    message = parse(f"<think>perhaps {call('search', {})}</think>No need.")
    assert (message.tool_calls, message.content) == ((), "No need.")


def test_reasoning_that_is_cut_short_is_not_content() -> None:
    assert parse("<think>\nfirst I") == parse("first I", thinking=True)
    assert parse("<think>\nfirst I").content == ""


def test_a_prompt_that_opens_the_think_block() -> None:
    message = parse("first I\n</think>\n\nDone.", thinking=True)
    assert (message.reasoning, message.content) == ("first I", "Done.")


def test_a_closing_tag_alone_stays_in_the_content() -> None:
    assert parse("a </think> b </tool_call> c").content == "a </think> b </tool_call> c"


@given(st.text())
def test_any_text_is_parsed(text: str) -> None:
    assert parse(text).role == "assistant"


@given(st.text(min_size=1), st.dictionaries(st.text(), JSON, max_size=4))
def test_a_written_call_is_read_back(name: str, arguments: dict[str, object]) -> None:
    found = parse_call(json.dumps({"name": name, "arguments": arguments}))
    assert (found.error, found.name, json.loads(found.arguments_json or "null")) == ("", name, arguments)
