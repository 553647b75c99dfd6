"""Tables and boxes read out of replies, and the pages behind each row."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wideseek_agent.messages import AnswerFormat
from wideseek_agent.toolset import Evidence
from wideseek_lead.core.answer import MAX_SOURCES, PageRead, read_answer
from wideseek_lead.core.episode import EpisodeLimits, EpisodeSpec, Mode, Sampling
from wideseek_lead.core.tally import Tally

SPEC = EpisodeSpec(
    question="q",
    mode=Mode.MULTI,
    answer_format=AnswerFormat.TABLE,
    required_columns=("Moon", "Mass"),
    key_columns=("Moon",),
    language="en",
    limits=EpisodeLimits(1, 1, 1, 1, 1, 1.0),
    sampling=Sampling(),
    corpus="default",
    model="policy",
    prompt_pack="seed",
)


def fenced(*rows: str, header: str = "| Moon | Mass |") -> str:
    return "\n".join(["```markdown", header, "|---|---|", *rows, "```"])


def test_the_last_table_counts() -> None:
    text = fenced("| Old | 1 |") + "\nbetter:\n" + fenced("| Zark | 5 |")
    answer = read_answer(text, SPEC, [])
    assert [row.cells for row in answer.rows] == [("Zark", "5")]
    assert answer.problems == ()
    assert answer.text == text


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("no idea", "no table found"),
        (fenced("| Zark | 5 |", header="| Moon | Weight |"), "required column 'Mass' is missing"),
        ("| Moon | Mass |\n|---|---|\n| Zark | 5 |", "does not stand in a ```markdown fence"),
        (fenced("| Zark |"), "row 1: 1 cells, the header has 2"),
        (fenced(), "the table has no rows"),
    ],
)
def test_what_is_wrong_with_the_form_is_told(text: str, problem: str) -> None:
    assert any(problem in told for told in read_answer(text, SPEC, []).problems)


def test_boxes_may_nest_braces_and_the_last_counts() -> None:
    spec = replace(SPEC, answer_format=AnswerFormat.BOXED, required_columns=(), key_columns=())
    assert read_answer(r"\boxed{1} then \boxed{\frac{1}{2}}", spec, []).boxed == r"\frac{1}{2}"
    assert read_answer("42", spec, []).problems == ("no \\boxed{} answer found",)


def test_sources_hold_the_key_and_those_with_another_cell_shut_out_the_rest() -> None:
    pages = [
        PageRead("list", "Moons: Zark, Quill, Zarkon"),
        PageRead("zark", "**Zark** is a moon of mass 5."),
        PageRead("zarkon", "Zarkon has mass 5."),
        PageRead("mass", "mass 5"),
    ]
    text = fenced("| zark | 5 |", "| Quill | 7 |", "| Nemo | 5 |", "| | 5 |")
    rows = read_answer(text, SPEC, pages).rows
    assert [row.sources for row in rows] == [("zark",), ("list",), (), ()]


def test_without_key_columns_the_first_column_is_the_key() -> None:
    spec = replace(SPEC, required_columns=(), key_columns=())
    assert read_answer(fenced("| Zark | 5 |"), spec, [PageRead("u", "zark")]).rows[0].sources == ("u",)


def test_scripts_without_spaces_have_no_word_edges() -> None:
    text = fenced("| 月球 | 5 |")
    assert read_answer(text, SPEC, [PageRead("u", "他说月球很小")]).rows[0].sources == ("u",)


def test_sources_are_bounded_best_first() -> None:
    pages = [PageRead(f"p{n}", "Zark 5") for n in range(9)] + [PageRead("best", "Zark 5 grey")]
    spec = replace(SPEC, required_columns=("Moon", "Mass", "Colour"))
    text = "```markdown\n| Moon | Mass | Colour |\n|---|---|---|\n| Zark | 5 | grey |\n```"
    sources = read_answer(text, spec, pages).rows[0].sources
    assert len(sources) == MAX_SOURCES
    assert sources[0] == "best"


@given(st.text(alphabet="|-` \nab\\{}boxedmarkdown", max_size=200), st.text(max_size=40))
def test_no_text_breaks_the_reader(text: str, page: str) -> None:
    for form in AnswerFormat:
        read_answer(text, replace(SPEC, answer_format=form), [PageRead("u", page)])


def test_the_tally_counts_queries_and_pages_but_not_subagents() -> None:
    tally = Tally()
    tally.started("lead")
    tally.started("s1")
    page = Evidence("access", "u", found=("Zark",), excerpt="mass 5")
    tally.turn("s1", input_tokens=5, output_tokens=2, evidence=[Evidence("search", "q"), page, page])
    tally.turn("s1", input_tokens=5, output_tokens=2, evidence=[replace(page, error="PAGE_NOT_FOUND")])
    tally.turn("lead", input_tokens=9, output_tokens=3, evidence=[Evidence("create_sub_agents", "p")])
    usage = tally.usage
    assert (usage.agents, usage.turns, usage.tool_calls) == (2, 3, 4)
    assert (usage.input_tokens, usage.output_tokens) == (19, 7)
    assert tally.pages == (PageRead("u", "Zark\nmass 5"),)
    assert tally.turns == {"lead": 1, "s1": 2}
