"""Markdown tables in a model's text.

Invariants: nothing raises on any text; every row of a table has as many cells as the table has columns, and a row
that had to be padded or cut for it is named in the table's notes.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

# The reward and the benchmark know one fence: ```markdown on a line start, up to the next closing fence.
_FENCE = re.compile(r"^[ \t]*```[ \t]*(?:markdown|md)[ \t]*\n(.*?)^[ \t]*```", re.DOTALL | re.MULTILINE | re.IGNORECASE)
_UNESCAPED_PIPE = re.compile(r"(?<!\\)\|")
_RULE = re.compile(r"\s*:?-+:?\s*")
_SPACE = re.compile(r"\s+")


@dataclass(frozen=True)
class Table:
    """A parsed table.

    Attributes:
        columns: the header's cells, as written.
        rows: the body; each row is as long as `columns`.
        fenced: whether it stood in a ```markdown fence.
        notes: what was amended on the way, in words.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    fenced: bool = False
    notes: tuple[str, ...] = ()

    def column(self, name: str) -> int | None:
        """The index of the first column whose normalised name is that of `name`."""
        wanted = normalise_column(name)
        return next((i for i, column in enumerate(self.columns) if normalise_column(column) == wanted), None)

    def to_markdown(self) -> str:
        """The table as Markdown without a fence; `parse_tables` gives it back."""
        lines = [self.columns, ("---",) * len(self.columns), *self.rows]
        return "\n".join("| " + " | ".join(_escape(cell) for cell in line) + " |" for line in lines)


def normalise_column(name: str) -> str:
    """A column name as names compare: lower-case without white space."""
    return _SPACE.sub("", name.lower())


def parse_tables(text: str) -> list[Table]:
    """All fenced tables in order; when the text has none, all runs of lines that begin with a pipe."""
    text = text.replace("\r\n", "\n")
    fenced = [_table([line for line in body.split("\n") if "|" in line], fenced=True) for body in _FENCE.findall(text)]
    found = [table for table in fenced if table is not None]
    return found or [table for run in _runs(text) if (table := _table(run, fenced=False)) is not None]


def _runs(text: str) -> Iterator[list[str]]:
    for is_table, lines in groupby(text.split("\n"), key=lambda line: line.lstrip().startswith("|")):
        if is_table:
            yield list(lines)


def _table(lines: Sequence[str], *, fenced: bool) -> Table | None:
    cells = [_cells(line) for line in lines]
    if not cells or not any(cells[0]):
        return None
    columns, body, notes = cells[0], cells[1:], []
    if body and all(_RULE.fullmatch(cell) for cell in body[0]):
        body = body[1:]
    else:
        notes.append("no line of dashes below the header")
    rows = []
    for number, row in enumerate(body, start=1):
        if len(row) != len(columns):
            notes.append(f"row {number}: {len(row)} cells, the header has {len(columns)}")
        rows.append((*row, *[""] * (len(columns) - len(row)))[: len(columns)])
    return Table(columns, tuple(rows), fenced, tuple(notes))


def _cells(line: str) -> tuple[str, ...]:
    parts = _UNESCAPED_PIPE.split(line.strip())
    if parts and not parts[0].strip():
        parts = parts[1:]
    if len(parts) > 1 and not parts[-1].strip():
        parts = parts[:-1]
    return tuple(part.strip().replace("\\|", "|") for part in parts)


def _escape(cell: str) -> str:
    return _SPACE.sub(" ", cell).replace("|", "\\|")


def drop_duplicates(rows: Iterable[Sequence[str]], keys: Sequence[int]) -> dict[tuple[str, ...], Sequence[str]]:
    """Rows by their normalised key cells; of rows with the same key the first stays."""
    kept: dict[tuple[str, ...], Sequence[str]] = {}
    for row in rows:
        kept.setdefault(tuple(normalise_cell(row[i]) for i in keys), row)
    return kept


def normalise_cell(cell: str) -> str:
    """A cell as the training reward compares it: without surrounding white space, lower-case."""
    return cell.strip().lower()
