from typing import Any

import pytest
from wideseek_agent.messages import Message, Role, ToolCall
from wideseek_agent.pack import Pack
from wideseek_agent.tools import (
    PageAsk,
    Query,
    access_spec,
    activity,
    create_sub_agents_spec,
    parse_access,
    parse_search,
    parse_sub_agents,
    search_spec,
)
from wideseek_agent.toolset import BadCallError, Evidence, counted


def test_sub_agents() -> None:
    arguments = {"sub_agents": [{"prompt": "moons of Zark"}, {"prompt": "rings of Zark"}]}
    assert parse_sub_agents(arguments) == ("moons of Zark", "rings of Zark")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "sub_agents: nothing given, a list of objects is needed"),
        ({"sub_agents": "Zark"}, "sub_agents: a text given, a list of objects is needed"),
        ({"sub_agents": []}, "sub_agents: 0 given, at least 1"),
        ({"sub_agents": [{"prompt": "x"}] * 12}, "sub_agents: 12 given, at most 10"),
        ({"sub_agents": ["x"]}, r"sub_agents\[0\]: a text given, an object is needed"),
        ({"sub_agents": [{"prompt": "x"}, {"prompt": 3}]}, r"sub_agents\[1\].prompt: a number given, a text is needed"),
        ({"sub_agents": [{"prompt": " "}]}, r"sub_agents\[0\].prompt: empty"),
        ({"sub_agents": [{"prompt": "x" * 32769}]}, r"prompt: 32769 characters given, at most 32768"),
    ],
)
def test_bad_sub_agents_are_refused_with_field_and_figure(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(BadCallError, match=words):
        parse_sub_agents(arguments)


def test_search_in_both_forms() -> None:
    batch = {"queries": [{"query": "a"}, {"query": "b", "count": 4}]}
    assert parse_search(batch, batch=True) == (Query("a"), Query("b", 4))
    assert parse_search({"query": "a", "count": 2}, batch=False) == (Query("a", 2),)


@pytest.mark.parametrize(
    ("arguments", "batch", "words"),
    [
        ({"queries": [{"query": "x"}] * 6}, True, "queries: 6 given, at most 5"),
        ({"queries": [{"query": "x", "count": 51}]}, True, r"queries\[0\].count: 51 given, at most 50"),
        ({"query": "x", "count": 0}, False, "^count: 0 given, at least 1"),
        ({"query": "x", "count": True}, False, "^count: a truth value given, a whole number is needed"),
        ({"query": "x", "count": "3"}, False, "^count: a text given, a whole number is needed"),
        ({"queries": [{"query": "x"}]}, False, "^query: nothing given, a text is needed"),
    ],
)
def test_bad_searches_are_refused_with_field_and_figure(arguments: dict[str, Any], batch: bool, words: str) -> None:
    with pytest.raises(BadCallError, match=words):
        parse_search(arguments, batch=batch)


def test_access_in_both_forms() -> None:
    batch = {"urls": [{"url": "u", "info_to_extract": "size"}, {"url": "v"}]}
    assert parse_access(batch, batch=True) == (PageAsk("u", "size"), PageAsk("v"))
    assert parse_access({"url": "u", "info_to_extract": ""}, batch=False) == (PageAsk("u"),)
    with pytest.raises(BadCallError, match="urls: 6 given, at most 5"):
        parse_access({"urls": [{"url": "u"}] * 6}, batch=True)
    with pytest.raises(BadCallError, match=r"urls\[0\].info_to_extract: a number given"):
        parse_access({"urls": [{"url": "u", "info_to_extract": 7}]}, batch=True)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_specs_describe_every_parameter(language: str) -> None:
    pack = Pack.load("full", language)
    lead = create_sub_agents_spec(pack, most=4)
    assert lead.description
    assert lead.parameters["properties"]["sub_agents"]["maxItems"] == 4
    for make, key in ((search_spec, "queries"), (access_spec, "urls")):
        one, many = make(pack, batch=False), make(pack, batch=True)
        assert many.parameters["properties"][key]["items"] == one.parameters
        assert many.parameters["properties"][key]["maxItems"] == 5
        assert all(field["description"] for field in one.parameters["properties"].values())


def test_the_seed_pack_has_specs_without_words() -> None:
    spec = search_spec(Pack.load("seed", "en"), batch=True)
    assert (spec.name, spec.description) == ("search", "")


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (ToolCall("search", {"queries": [{"query": "a"}, {"query": "b"}]}), "search: a; b"),
        (ToolCall("access", {"url": "u", "info_to_extract": "x"}), "access: u"),
        (ToolCall("create_sub_agents", {"sub_agents": [{"prompt": "p"}]}), "create_sub_agents: p"),
        (ToolCall("", error="bad"), "malformed call"),
        (ToolCall("search", {"queries": [{}]}), "search: "),
    ],
)
def test_activity_is_a_line_for_a_person(call: ToolCall, line: str) -> None:
    assert activity(Message(Role.ASSISTANT, "", tool_calls=(call,))) == line


def test_activity_is_short() -> None:
    long = ToolCall("search", {"query": "x" * 500})
    assert len(activity(Message(Role.ASSISTANT, "", tool_calls=(long,)))) == 120
    assert activity(Message(Role.ASSISTANT, "done")) == "answer"


def test_only_items_that_were_asked_for_are_counted() -> None:
    items = [
        Evidence("search", "q"),
        Evidence("access", "u", error="PAGE_NOT_FOUND"),
        Evidence("access", "u", error="TOOL_CALL_LIMIT"),
        Evidence("search", "{", error="BAD_ARGUMENTS"),
        Evidence("create_sub_agents", "p"),
    ]
    assert counted(items) == 2
