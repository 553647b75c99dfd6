import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from wideseek_tools.core.snippets import window
from wideseek_tools.core.urls import canonical
from wideseek_tools.core.words import for_index, for_query


@pytest.mark.parametrize(
    ("asked", "stored"),
    [
        ("https://a.test/x/", "https://a.test/x"),
        ("https://a.test/x#part", "https://a.test/x"),
        ("HTTPS://A.Test/x", "https://a.test/x"),
        (" https://a.test ", "https://a.test/"),
        ("https://a.test/X", "https://a.test/X"),
        ("https://a.test/?q=b/", "https://a.test/?q=b/"),
        ("no url at all", "no url at all"),
        ("http://[::1", "http://[::1"),
    ],
)
def test_addresses_that_mean_the_same_page(asked: str, stored: str) -> None:
    assert canonical(asked) == canonical(stored)


@pytest.mark.parametrize("other", ["https://a.test/y", "https://a.test/x?y", "http://a.test/x", "https://a.test/X"])
def test_addresses_that_mean_another_page(other: str) -> None:
    assert canonical(other) != canonical("https://a.test/x")


@given(st.text())
@example("0\r#")
def test_canonical_is_idempotent_up_to_slashes(url: str) -> None:
    once = canonical(url)
    assert "#" not in once
    assert canonical(once + "#x") == canonical(once)


def test_plain_text_is_left_alone() -> None:
    assert for_index("Café 12") == "Café 12"
    assert for_query("plain") == "plain"


@given(st.text(alphabet="北京大学京都abc ", max_size=30), st.data())
def test_a_run_of_the_text_is_found(text: str, data: st.DataObject) -> None:
    han = [i for i, c in enumerate(text) if c > "\u3000"]
    if not han:
        return
    start = data.draw(st.sampled_from(han))
    end = start + 1
    while end < len(text) and text[end] > "\u3000" and data.draw(st.booleans()):
        end += 1
    assert set(for_query(text[start:end]).split()) <= set(for_index(text).split())


@given(st.text(), st.lists(st.text(max_size=8), max_size=4), st.integers(8, 60))
def test_a_window_is_a_bounded_part_of_the_text(text: str, words: list[str], width: int) -> None:
    shown = window(text, words, width)
    assert len(shown) <= width + 2
    assert shown.removeprefix("…").removesuffix("…") in text or shown in text


def test_the_window_shows_where_most_words_meet() -> None:
    text = (
        "river " + "filler words go on " * 40 + "the river Oder has a length of 854 km " + "and more follows here " * 40
    )
    shown = window(text, ["river", "length", "oder"], 120)
    assert "river Oder has a length of 854 km" in shown
    assert shown.startswith("…")
    assert shown.endswith("…")


def test_without_a_match_the_beginning_is_shown() -> None:
    assert window("alpha beta " * 50, ["gamma"], 40).startswith("alpha beta")
