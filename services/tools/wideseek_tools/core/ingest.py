"""Taking in a stream of pages.

Invariants: a page that cannot be stored is counted under its reason and stops nothing; pages are stored in chunks,
each wholly or not at all; when `ingest` returns, every page that was not refused is stored and found.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from wideseek_tools.core.model import Page
from wideseek_tools.core.ports import CorpusStore

MAX_URL_CHARS = 2_048
MAX_CORPUS_CHARS = 128
MAX_TITLE_CHARS = 4_096
MAX_SNIPPET_CHARS = 8_192
_CHUNK_PAGES = 10_000
_CHUNK_CHARS = 32_000_000


@dataclass(slots=True)
class Refused:
    """Pages refused for one reason, with the first one's address."""

    example_url: str
    count: int = 0


@dataclass(slots=True)
class Report:
    """What became of a stream of pages."""

    stored: int = 0
    refused: dict[str, Refused] = field(default_factory=dict)


async def ingest(batches: AsyncIterator[Sequence[Page]], store: CorpusStore, max_page_chars: int) -> Report:
    """Store the pages of `batches`; texts may have up to `max_page_chars` characters."""
    report = Report()
    chunk: list[Page] = []
    chars = 0
    async for batch in batches:
        for page in batch:
            reason = fault_of(page, max_page_chars)
            if reason:
                report.refused.setdefault(reason, Refused(page.url[:MAX_URL_CHARS])).count += 1
                continue
            chunk.append(page)
            chars += len(page.text)
        if len(chunk) >= _CHUNK_PAGES or chars >= _CHUNK_CHARS:
            await _put(chunk, store, report)
            chunk, chars = [], 0
    if chunk:
        await _put(chunk, store, report)
    return report


async def _put(chunk: Sequence[Page], store: CorpusStore, report: Report) -> None:
    await store.put(chunk)
    report.stored += len(chunk)


def fault_of(page: Page, max_page_chars: int) -> str:
    """Why the page cannot be stored; empty when it can."""
    if not page.url.strip():
        return "empty url"
    if not page.text.strip():
        return "empty text"
    for name, text, limit in (
        ("url", page.url, MAX_URL_CHARS),
        ("corpus", page.corpus, MAX_CORPUS_CHARS),
        ("title", page.title, MAX_TITLE_CHARS),
        ("snippet", page.snippet, MAX_SNIPPET_CHARS),
        ("text", page.text, max_page_chars),
    ):
        if len(text) > limit:
            return f"{name} longer than {limit} characters"
    if not (page.url.isprintable() and page.corpus.isprintable()):
        return "unprintable character in url or corpus"
    return ""
