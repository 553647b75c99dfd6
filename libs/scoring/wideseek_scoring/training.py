"""The part of the training reward that looks at the answer: item-F1 as WideSeek-R1 trains on it (arXiv 2602.04634).

Invariants: never raises; a score of 0 says why. It is laxer than the benchmark: the *last* fenced table counts, the
required columns need only be a *subset* of the answer's, and cells compare as text.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from wideseek_scoring.tables import Table, drop_duplicates, normalise_cell, parse_tables


@dataclass(frozen=True)
class TrainingScore:
    """The score of one answer.

    Attributes:
        item_f1: harmonic mean of precision and recall over cells, in [0, 1].
        precision: matching cells / required cells of the answer's rows.
        recall: matching cells / cells of the gold rows.
        parsed: whether the answer holds a fenced table with all required columns.
        why: what was wrong with the form; empty when nothing was.
    """

    item_f1: float
    precision: float
    recall: float
    parsed: bool
    why: str = ""


def training_item_f1(
    answer: str, gold_markdown: str, key_columns: Sequence[str], required_columns: Sequence[str] | None = None
) -> TrainingScore:
    """Compare the answer's last fenced table with the gold table.

    Rows are joined on the key cells, after rows with a repeated key were dropped on both sides; in a joined row each
    required cell counts 1 when it equals the gold's, the key cells included.

    Args:
        answer: the whole text of the main agent's last reply.
        gold_markdown: the gold table, fenced or not.
        key_columns: what makes a row unique; empty means the first required column.
        required_columns: what counts; None or empty means all columns of the gold table.
    """
    golds = parse_tables(gold_markdown)
    if not golds:
        return _none("the gold answer holds no table")
    gold = golds[-1]
    required = list(required_columns or gold.columns)
    keys = list(key_columns or required[:1])
    gold_columns, missing = _locate(gold, [*keys, *required])
    if missing:
        return _none(f"the gold table has no column {missing[0]!r}")
    tables = [table for table in parse_tables(answer) if table.fenced]
    if not tables:
        return _none("no table in a ```markdown fence")
    answer_columns, missing = _locate(tables[-1], [*keys, *required])
    if missing:
        return _none(f"the table has no column {missing[0]!r}")
    return _score(gold, gold_columns, tables[-1], answer_columns, len(keys))


def _none(why: str) -> TrainingScore:
    return TrainingScore(0.0, 0.0, 0.0, parsed=False, why=why)


def _locate(table: Table, names: Sequence[str]) -> tuple[list[int], list[str]]:
    found = [(name, table.column(name)) for name in names]
    return [index for _, index in found if index is not None], [name for name, index in found if index is None]


def _score(gold: Table, gold_at: Sequence[int], answer: Table, answer_at: Sequence[int], keys: int) -> TrainingScore:
    expected = drop_duplicates(gold.rows, gold_at[:keys])
    given = drop_duplicates(answer.rows, answer_at[:keys])
    cells = list(zip(gold_at[keys:], answer_at[keys:], strict=True))
    matches = sum(
        normalise_cell(expected[key][g]) == normalise_cell(given[key][a])
        for key in expected.keys() & given.keys()
        for g, a in cells
    )
    precision = matches / (len(given) * len(cells)) if given else 0.0
    recall = matches / (len(expected) * len(cells)) if expected else 0.0
    f1 = 2 * precision * recall / (precision + recall) if matches else 0.0
    return TrainingScore(f1, precision, recall, parsed=True)
