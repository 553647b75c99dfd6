import shutil
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from wideseek_agent.messages import AgentRole, AnswerFormat, Message, Role
from wideseek_agent.pack import BUILT_IN, Hit, Pack, PackError, PageResult, Report, SearchResult, Shelf

GOLDEN = Path(__file__).parent / "golden" / "seed_en.txt"
PACKS = [("seed", "en"), ("full", "en"), ("full", "zh")]


def everything(pack: Pack) -> list[Message]:
    """Each kind of message that a pack makes, with all its branches."""
    messages: list[Message] = []
    for role, form in product(AgentRole, AnswerFormat):
        messages += pack.opening(
            role,
            "Which moons has Zark?",
            answer_format=form,
            columns=("moon", "size"),
            key_columns=("moon",),
            max_subagents=4,
            max_turns=9,
        )
    hits = (Hit("Zark", "atlas://zark", "A planet."), Hit("Ono", "atlas://ono", "A moon."))
    results = [SearchResult("moons", hits), SearchResult("rings"), SearchResult("x", error="unavailable")]
    pages = [PageResult("atlas://zark", "Zark has Ono."), PageResult("atlas://no", error="page not found")]
    return [
        *messages,
        pack.reports([Report("Ono, 12 km."), Report(error="no report")], turn=1, limit=9),
        pack.search(results, turn=2, limit=9),
        pack.pages(pages, turn=3, limit=9),
        pack.bad_call("queries: 6 given, at most 5", turn=4, limit=9),
        pack.final_notice(),
        Message(Role.TOOL, pack.cut("Zark has", total=100)),
    ]


def test_the_seed_pack_has_the_very_text_that_the_seed_policy_was_trained_on() -> None:
    text = "".join(f"== {message.role}\n{message.content}\n" for message in everything(Pack.load("seed", "en")))
    assert text == GOLDEN.read_text("utf-8")


@pytest.mark.parametrize(("name", "language"), PACKS)
def test_every_template_renders_to_some_text_without_leftovers(name: str, language: str) -> None:
    for message in everything(Pack.load(name, language)):
        assert message.content.strip()
        assert "{{" not in message.content
        assert "{%" not in message.content


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("role", [AgentRole.LEAD, AgentRole.SINGLE])
def test_the_full_pack_says_how_an_answer_looks_and_what_may_be_spent(language: str, role: AgentRole) -> None:
    pack = Pack.load("full", language)
    facts: dict[str, Any] = {
        "columns": ("moon", "size"),
        "key_columns": ("moon",),
        "max_turns": 37,
        "max_subagents": 13,
    }
    system, user = pack.opening(role, "Which moons?", answer_format=AnswerFormat.TABLE, **facts)
    assert "```markdown\n| " in system.content
    assert "37" in system.content
    assert ("13" in system.content) == (role is AgentRole.LEAD)
    assert user.content.startswith("Which moons?")
    assert user.content.count("moon") == 3
    boxed = pack.opening(role, "Which moons?", answer_format=AnswerFormat.BOXED, **facts)
    assert r"\boxed{}" in boxed[0].content
    assert boxed[1].content == "Which moons?"


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_full_pack_without_columns_and_limits_asks_for_none(language: str) -> None:
    system, user = Pack.load("full", language).opening(AgentRole.LEAD, "Which moons?")
    assert user.content == "Which moons?"
    assert " 0 " not in system.content


@pytest.mark.parametrize(("name", "language"), PACKS)
def test_each_tool_message_ends_with_turn_and_limit(name: str, language: str) -> None:
    pack = Pack.load(name, language)
    for message in everything(pack):
        if message.role is Role.TOOL and "100" not in message.content:
            assert "9" in message.content.splitlines()[-1]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_full_pack_summarises(language: str) -> None:
    pack = Pack.load("full", language)
    assert pack.summarises
    assert pack.send_tool_specs
    (message,) = pack.summary("Zark has Ono.", "moons of Zark")
    assert message.role is Role.USER
    assert "Zark has Ono." in message.content
    assert "moons of Zark" in message.content
    assert not Pack.load("seed", "en").summarises


def test_a_missing_pack_is_named_with_those_there_are() -> None:
    with pytest.raises(PackError, match=r"no language 'fr'.*en\.toml"):
        Pack.load("full", "fr")
    with pytest.raises(PackError, match="'../full'"):
        Pack.load("../full", "en")
    with pytest.raises(PackError, match="'/etc/x'"):
        Pack.load("full", "/etc/x")


def test_a_pack_of_ones_own_is_read_from_its_folder(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    shutil.copy(BUILT_IN / "seed" / "en.toml", tmp_path / "mine" / "en.toml")
    shelf = Shelf(tmp_path)
    assert shelf.pack("mine", "en") is shelf.pack("mine", "en")
    (tmp_path / "mine" / "zh.toml").write_text("[lead\n")
    with pytest.raises(PackError, match=r"zh\.toml"):
        shelf.pack("mine", "zh")


def test_a_missing_template_is_named(tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "en.toml").write_text('[subagent]\nsystem = "s"\n')
    pack = Pack.load("bare", "en", tmp_path)
    with pytest.raises(PackError, match=r"no template 'subagent\.user'"):
        pack.opening(AgentRole.SUBAGENT, "q")
    with pytest.raises(PackError, match=r"no template 'tools\.search'"):
        pack.tool_text("search")
