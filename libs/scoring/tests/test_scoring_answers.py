"""Short answers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wideseek_scoring.answers import exact_match, extract_boxed, normalise_answer, token_f1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("so \\boxed{42}.", "42"),
        ("\\boxed{1} then \\boxed{ 2 }", "2"),
        ("\\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
        ("\\boxed{1} and \\boxed{2", "1"),
        ("\\boxed{}", ""),
        ("nothing", None),
    ],
)
def test_the_last_closed_box_counts(text: str, expected: str | None) -> None:
    assert extract_boxed(text) == expected


@given(st.text(st.characters(exclude_characters="{}\\", exclude_categories=["C", "Z"])), st.text())
def test_what_is_put_in_a_box_comes_out(inside: str, before: str) -> None:
    assert extract_boxed(f"{before}\\boxed{{{inside}}}") == inside


def test_case_articles_and_punctuation_do_not_count() -> None:
    assert normalise_answer("The  Moon, of an Ox!") == "moon of ox"
    assert exact_match("the moon", ["Sun", "Moon."])
    assert not exact_match("moons", ["moon"])


def test_token_f1_takes_the_best_accepted_answer() -> None:
    assert token_f1("red big moon", ["a sun", "big moon"]) == pytest.approx(0.8)
    assert token_f1("东京塔", ["东京"]) == pytest.approx(0.8)
    assert token_f1("x", []) == 0.0


@given(st.text(), st.text())
def test_f1_is_symmetric_and_bounded(one: str, other: str) -> None:
    assert token_f1(one, [other]) == token_f1(other, [one])
    assert 0.0 <= token_f1(one, [other]) <= 1.0
    assert token_f1(one, [one]) == 1.0
