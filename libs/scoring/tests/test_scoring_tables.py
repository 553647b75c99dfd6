"""Tables in free text: fences, escapes, ragged rows."""

from hypothesis import given
from hypothesis import strategies as st
from wideseek_scoring.tables import Table, drop_duplicates, normalise_column, parse_tables

CELL = st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters="\\-:`"), min_size=1, max_size=8)


@st.composite
def tables(draw: st.DrawFn) -> Table:
    width = draw(st.integers(1, 5))
    row = st.tuples(*[CELL] * width)
    return Table(draw(row), tuple(draw(st.lists(row, max_size=6))))


@given(st.lists(tables(), min_size=1, max_size=3))
def test_fenced_tables_come_back_in_order(expected: list[Table]) -> None:
    text = "\n".join(f"some prose\n```markdown\n{table.to_markdown()}\n```" for table in expected)
    found = parse_tables(text)
    assert [(t.columns, t.rows) for t in found] == [(t.columns, t.rows) for t in expected]
    assert all(t.fenced and not t.notes for t in found)


@given(st.text())
def test_no_text_raises_and_every_row_fits_the_header(text: str) -> None:
    for table in parse_tables(text) + parse_tables(f"```markdown\n{text}\n```"):
        assert all(len(row) == len(table.columns) for row in table.rows)


def test_a_fence_hides_the_tables_outside_of_it() -> None:
    text = "| a |\n|---|\n| 1 |\n\n```markdown\n| b |\n|---|\n| 2 |\n```"
    assert [table.columns for table in parse_tables(text)] == [("b",)]


def test_without_a_fence_each_run_of_pipe_lines_is_a_table() -> None:
    found = parse_tables("| a |\n|---|\n| 1 |\nprose\n| b |\n|---|\n| 2 |")
    assert [(table.columns, table.rows, table.fenced) for table in found] == [
        (("a",), (("1",),), False),
        (("b",), (("2",),), False),
    ]


def test_escaped_pipes_belong_to_the_cell() -> None:
    (table,) = parse_tables("| a | b |\n|:--|--:|\n| x \\| y | z |")
    assert table.rows == (("x | y", "z"),)


def test_ragged_rows_are_mended_and_named() -> None:
    (table,) = parse_tables("| a | b |\n|---|---|\n| 1 |\n| 1 | 2 | 3 |")
    assert table.rows == (("1", ""), ("1", "2"))
    assert table.notes == ("row 1: 1 cells, the header has 2", "row 2: 3 cells, the header has 2")


def test_empty_cells_stay_in_their_columns() -> None:
    (table,) = parse_tables("| a | b | c |\n|---|---|---|\n| 1 |  | 3 |\n|  | 2 |  |")
    assert table.rows == (("1", "", "3"), ("", "2", ""))


def test_fences_without_outer_pipes_and_without_a_rule_are_read() -> None:
    (table,) = parse_tables("```markdown\na | b\n1 | 2\n```")
    assert (table.columns, table.rows) == (("a", "b"), (("1", "2"),))
    assert table.notes == ("no line of dashes below the header",)


def test_an_unclosed_fence_is_no_fence() -> None:
    (table,) = parse_tables("```markdown\n| a |\n|---|\n| 1 |")
    assert table.rows == (("1",),)
    assert not table.fenced


def test_columns_compare_lower_case_without_spaces() -> None:
    assert normalise_column(" First  Name\t") == "firstname"
    assert Table(("Year", "First Name"), ()).column("firstname") == 1
    assert Table(("Year",), ()).column("name") is None


def test_of_rows_with_one_key_the_first_stays() -> None:
    assert list(drop_duplicates([("A", "1"), (" a ", "2"), ("b", "3")], [0]).values()) == [("A", "1"), ("b", "3")]
