"""Reads the answer out of the last reply and finds the pages behind each row.

Invariants: nothing raises on any text; what is read as the answer is what training scores (the last table, the last
box); a source is a page that an agent of the episode read and in which the row's key stands.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from wideseek_agent.messages import AnswerFormat
from wideseek_scoring.answers import extract_boxed
from wideseek_scoring.tables import Table, parse_tables

from wideseek_lead.core.episode import Answer, AnswerRow, EpisodeSpec

MAX_SOURCES = 5
_FIRST_UNSPACED = 0x3000  # from here on, scripts are written without spaces between words


@dataclass(frozen=True)
class PageRead:
    """A page as an agent read it: its address and what it saw of it."""

    url: str
    text: str


def read_answer(text: str, spec: EpisodeSpec, pages: Iterable[PageRead]) -> Answer:
    """The answer in `text`, of the form that `spec` asks for."""
    if spec.answer_format is AnswerFormat.BOXED:
        boxed = extract_boxed(text)
        return Answer(text, boxed=boxed or "", problems=() if boxed else ("no \\boxed{} answer found",))
    tables = parse_tables(text)
    if not tables:
        return Answer(text, problems=("no table found",))
    table = tables[-1]
    missing = [name for name in spec.required_columns if table.column(name) is None]
    problems = [f"required column {name!r} is missing" for name in missing]
    problems += [] if table.fenced else ["the table does not stand in a ```markdown fence"]
    problems += table.notes
    problems += [] if table.rows else ["the table has no rows"]
    sources = _Sources(pages)
    keys = _key_places(table, spec.key_columns)
    rows = tuple(AnswerRow(row, sources.of(row, keys)) for row in table.rows)
    return Answer(text, table.columns, rows, problems=tuple(problems))


def _key_places(table: Table, names: Sequence[str]) -> list[int]:
    places = [place for name in names if (place := table.column(name)) is not None]
    return places or [0]


class _Sources:
    def __init__(self, pages: Iterable[PageRead]) -> None:
        texts: dict[str, list[str]] = {}
        for page in pages:
            texts.setdefault(page.url, []).append(page.text)
        self._pages = {url: _plain("\n".join(parts)) for url, parts in texts.items()}

    def of(self, row: Sequence[str], keys: Sequence[int]) -> tuple[str, ...]:
        """Pages with the row's key; those that also hold another of its cells go before and shut out the others."""
        wanted = [_plain(row[place]) for place in keys]
        if not all(wanted):
            return ()
        others = {_plain(cell) for place, cell in enumerate(row) if place not in keys} - {""}
        scores = {
            url: sum(_stands_in(cell, text) for cell in others)
            for url, text in self._pages.items()
            if all(_stands_in(key, text) for key in wanted)
        }
        best = max(scores.values(), default=0)
        ranked = sorted((url for url in scores if scores[url] or not best), key=lambda url: -scores[url])
        return tuple(ranked[:MAX_SOURCES])


def _plain(text: str) -> str:
    return " ".join(text.replace("*", " ").split()).casefold()


def _stands_in(needle: str, text: str) -> bool:
    """Whether `needle` stands in `text` as words of its own."""
    start = text.find(needle)
    while start >= 0:
        end = start + len(needle)
        if not (_joined(text[start - 1 : start], needle[0]) or _joined(needle[-1], text[end : end + 1])):
            return True
        start = text.find(needle, start + 1)
    return False


def _joined(left: str, right: str) -> bool:
    return all(c.isalnum() and ord(c) < _FIRST_UNSPACED for c in (left, right) if c) and bool(left and right)
