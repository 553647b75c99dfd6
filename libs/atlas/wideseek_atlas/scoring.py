"""Item-F1 of an answer in its plainest form: exact cells, keyed by the row's `name`."""

import re
from collections.abc import Sequence

from wideseek_atlas.tasks import KEY_COLUMN, Task

_FENCE = re.compile(r"```markdown\n(.*?)```", re.DOTALL)

Items = frozenset[tuple[str, str, str]]


def table_items(text: str) -> Items:
    """The (key, column, cell) triples of the last fenced table; empty when there is none with a key column."""
    fences = _FENCE.findall(text)
    lines = [line.strip() for line in fences[-1].strip().split("\n")] if fences else []
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    if len(rows) < 2 or KEY_COLUMN not in rows[0]:
        return frozenset()
    return _items(rows[0], rows[2:])


def gold_items(task: Task) -> Items:
    """The triples of the task's gold table."""
    return _items(task.columns, task.rows)


def item_f1(text: str, task: Task) -> float:
    """The F1 of the answer's triples against the gold's."""
    got, gold = table_items(text), gold_items(task)
    return 2 * len(got & gold) / (len(got) + len(gold))


def _items(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Items:
    key = list(columns).index(KEY_COLUMN)
    full = [row for row in rows if len(row) > key]
    return frozenset((row[key], column, cell) for row in full for column, cell in zip(columns, row, strict=False))
