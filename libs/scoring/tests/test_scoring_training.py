"""Item-F1 of the training reward, against cases worked out by hand and properties that must hold for any table."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wideseek_scoring.tables import Table
from wideseek_scoring.training import training_item_f1

GOLD = "| name | year | mass |\n|---|---|---|\n| Ada | 1990 | 5 |\n| Bo | 1991 | 6 |"
WORD = st.text("abcdefgh", min_size=1, max_size=4)


def fenced(table: str) -> str:
    return f"Here it is.\n```markdown\n{table}\n```\n"


def test_the_gold_table_scores_one() -> None:
    score = training_item_f1(fenced(GOLD), GOLD, ["name"])
    assert (score.item_f1, score.precision, score.recall, score.parsed, score.why) == (1.0, 1.0, 1.0, True, "")


def test_cells_are_counted_by_hand() -> None:
    # Ada: name and year match, mass does not; Cy joins nothing. 2 of 6 given, 2 of 6 expected.
    answer = fenced("| name | year | mass |\n|---|---|---|\n| ADA | 1990 | 7 |\n| Cy | 1991 | 6 |")
    score = training_item_f1(answer, GOLD, ["name"])
    assert (score.precision, score.recall, score.item_f1) == pytest.approx((1 / 3, 1 / 3, 1 / 3))


def test_a_missing_row_costs_recall_only() -> None:
    score = training_item_f1(fenced("| name | year | mass |\n|---|---|---|\n| Ada | 1990 | 5 |"), GOLD, ["name"])
    assert (score.precision, score.recall, score.item_f1) == pytest.approx((1.0, 0.5, 2 / 3))


def test_repeated_keys_count_once() -> None:
    answer = fenced("| name | year | mass |\n|---|---|---|\n| Ada | 1990 | 5 |\n| ada | 1 | 2 |\n| Bo | 1991 | 6 |")
    assert training_item_f1(answer, GOLD, ["name"]).item_f1 == 1.0


def test_further_columns_and_their_order_do_not_matter() -> None:
    answer = fenced("| Mass | extra | Year | Name |\n|---|---|---|---|\n| 5 | x | 1990 | ada |\n| 6 | y | 1991 | bo |")
    assert training_item_f1(answer, GOLD, ["name"]).item_f1 == 1.0


def test_only_required_columns_count() -> None:
    answer = fenced("| name | year |\n|---|---|\n| Ada | 1990 |\n| Bo | 1991 |")
    assert training_item_f1(answer, GOLD, ["name"], ["name", "year"]).item_f1 == 1.0


def test_the_last_fenced_table_counts() -> None:
    wrong = "| name | year | mass |\n|---|---|---|\n| Zed | 1 | 1 |"
    assert training_item_f1(fenced(wrong) + fenced(GOLD), GOLD, ["name"]).item_f1 == 1.0
    assert training_item_f1(fenced(GOLD) + fenced(wrong), GOLD, ["name"]).item_f1 == 0.0


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("", "no table in a ```markdown fence"),
        (GOLD, "no table in a ```markdown fence"),
        (fenced("| name | year |\n|---|---|\n| Ada | 1990 |"), "the table has no column 'mass'"),
    ],
)
def test_a_malformed_answer_scores_zero_and_says_why(answer: str, why: str) -> None:
    score = training_item_f1(answer, GOLD, ["name"])
    assert (score.item_f1, score.parsed, score.why) == (0.0, False, why)


def test_faults_of_the_task_are_named() -> None:
    assert training_item_f1(fenced(GOLD), "no table", ["name"]).why == "the gold answer holds no table"
    assert training_item_f1(fenced(GOLD), GOLD, ["colour"]).why == "the gold table has no column 'colour'"


def test_an_empty_table_is_parsed_and_scores_zero() -> None:
    score = training_item_f1(fenced("| name | year | mass |\n|---|---|---|"), GOLD, ["name"])
    assert (score.item_f1, score.parsed) == (0.0, True)


@given(st.text(), st.text(), st.lists(st.text(max_size=5), max_size=3))
def test_it_never_raises_and_stays_between_zero_and_one(answer: str, gold: str, keys: list[str]) -> None:
    for text in (answer, fenced(answer)):
        assert 0.0 <= training_item_f1(text, gold, keys).item_f1 <= 1.0
        assert 0.0 <= training_item_f1(text, GOLD, ["name"]).item_f1 <= 1.0


@given(st.dictionaries(WORD, st.tuples(WORD, WORD), min_size=1, max_size=8))
def test_row_order_case_and_padding_do_not_matter(facts: dict[str, tuple[str, str]]) -> None:
    rows = [(key, *cells) for key, cells in facts.items()]
    gold = Table(("k", "a", "b"), tuple(rows)).to_markdown()
    shuffled = tuple((f" {k.upper()} ", a, b.title()) for k, a, b in reversed(rows))
    answer = fenced(Table(("K", " A", "b "), shuffled).to_markdown())
    assert training_item_f1(answer, gold, ["k"]).item_f1 == 1.0


@given(
    st.dictionaries(WORD, st.tuples(WORD, WORD), min_size=1, max_size=6),
    st.dictionaries(WORD, st.tuples(WORD, WORD), min_size=1, max_size=6),
)
def test_it_equals_the_f1_over_sets_of_cells(
    gold: dict[str, tuple[str, str]], given_: dict[str, tuple[str, str]]
) -> None:
    def cells(facts: dict[str, tuple[str, str]]) -> set[tuple[str, str, str]]:
        return {(k, c, v) for k, (a, b) in facts.items() for c, v in (("k", k), ("a", a), ("b", b))}

    def markdown(facts: dict[str, tuple[str, str]]) -> str:
        return Table(("k", "a", "b"), tuple((k, *cells) for k, cells in facts.items())).to_markdown()

    one, other = cells(gold), cells(given_)
    expected = 2 * len(one & other) / (len(one) + len(other))
    assert training_item_f1(fenced(markdown(given_)), markdown(gold), ["k"]).item_f1 == pytest.approx(expected)
