"""The local backend: one tantivy index on disk that searches, gives pages and takes them in.

Invariants: readers see whole commits only, and one snapshot of index and census a call; there is one writer thread, so
chunks are stored one after the other; a chunk is committed atomically, so a kill leaves the commit before it; the
event loop never runs tantivy.
"""

import asyncio
import contextlib
from bisect import bisect_right
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tantivy import Document, Index, IndexWriter, Query, Searcher
from wideseek_kit.errors import FailedPrecondition

from wideseek_tools.adapters.schema import (
    ANALYZER,
    build_analyzer,
    build_schema,
    document_of,
    key_of,
    query_of,
    words_of,
)
from wideseek_tools.core.faults import corpus_not_found, page_not_found
from wideseek_tools.core.model import Corpus, Found, Hit, Page, Read
from wideseek_tools.core.snippets import window

_WRITER_HEAP = 64 << 20


class UnusableIndexError(Exception):
    """The directory holds no index that this version can open."""


@dataclass(frozen=True, slots=True)
class _Snapshot:
    searcher: Searcher
    census: dict[str, int]


class LocalIndex:
    """`SearchBackend`, `PageStore` and `CorpusStore` in one. Made by `open_index`."""

    name = "local"

    def __init__(self, directory: Path, readers: ThreadPoolExecutor, writer: ThreadPoolExecutor) -> None:
        """Open or create the index below `directory`; runs tantivy, so not for the event loop."""
        self._directory = directory
        self._schema = build_schema()
        self._analyzer = build_analyzer()
        self._readers = readers
        self._writer_thread = writer
        self._writer: IndexWriter | None = None
        try:
            self._index = Index(self._schema, path=str(directory))
        except (ValueError, OSError) as error:
            raise UnusableIndexError(f"{directory} holds no index that can be opened: {error}") from error
        self._index.register_tokenizer(ANALYZER, self._analyzer)
        self._index.config_reader("manual")
        self._snapshot = self._look()

    async def search(self, corpus: str, query: str, count: int) -> Found:
        """See `SearchBackend`."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._search, corpus, query, count)

    async def read(self, corpus: str, url: str) -> Read:
        """See `PageStore`."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._read, corpus, url)

    async def put(self, pages: Sequence[Page]) -> None:
        """See `CorpusStore`.

        Raises:
            FailedPrecondition: another process writes to the same directory (reason INDEX_LOCKED).
        """
        await asyncio.get_running_loop().run_in_executor(self._writer_thread, self._put, pages)

    async def corpora(self, after: str, limit: int) -> Sequence[Corpus]:
        """See `CorpusStore`."""
        census = self._snapshot.census
        names = list(census)
        start = bisect_right(names, after) if after else 0
        return [Corpus(name, census[name]) for name in names[start : start + limit]]

    def close(self) -> None:
        """Let merges end and give the directory free; runs tantivy, so not for the event loop."""
        if self._writer is not None:
            self._writer.wait_merging_threads()
            self._writer = None

    def _search(self, corpus: str, query: str, count: int) -> Found:
        snapshot = self._snapshot
        if corpus not in snapshot.census:
            raise corpus_not_found(corpus)
        words = words_of(self._analyzer, query)
        if not words:
            return Found(())
        # The only corpus needs no filter, and without one tantivy can skip what cannot reach the top.
        wanted = query_of(self._schema, words, corpus if len(snapshot.census) > 1 else None)
        best = snapshot.searcher.search(wanted, count, count=False).hits
        return Found([_hit(snapshot.searcher.doc(address), float(score), words) for score, address in best])

    def _read(self, corpus: str, url: str) -> Read:
        searcher = self._snapshot.searcher
        wanted = Query.term_query(self._schema, "key", key_of(corpus, url), "basic")
        hits = searcher.search(wanted, 1, count=False).hits
        if not hits:
            raise page_not_found(url, corpus)
        document = searcher.doc(hits[0][1])
        return Read(_shown(document, "title"), _shown(document, "text"))

    def _put(self, pages: Sequence[Page]) -> None:
        writer = self._open_writer()
        try:
            for page in pages:
                writer.delete_documents_by_term("key", key_of(page.corpus, page.url))
                writer.add_document(document_of(page))
            writer.commit()
        except BaseException:
            writer.rollback()
            raise
        self._snapshot = self._look()

    def _open_writer(self) -> IndexWriter:
        if self._writer is None:
            try:
                self._writer = self._index.writer(_WRITER_HEAP, num_threads=1)
            except ValueError as error:
                if "LockBusy" not in str(error):
                    raise
                raise FailedPrecondition(
                    f"{self._directory}: another process writes to this index",
                    reason="INDEX_LOCKED",
                    data_dir=self._directory,
                ) from error
        return self._writer

    def _look(self) -> _Snapshot:
        self._index.reload()
        searcher = self._index.searcher()
        census: dict[str, int] = {}
        for name, _ in sorted(searcher.terms_with_prefix("corpus", "")):
            # A term outlives its last page until the next merge, so the pages are counted.
            pages = searcher.search(Query.term_query(self._schema, "corpus", name, "basic"), 1, count=True).count  # type: ignore[attr-defined]  # the stub lacks it
            if pages:
                census[name] = pages
        return _Snapshot(searcher, census)


def _shown(document: Document, name: str) -> str:
    value = document.get_first(name)
    return bytes(value).decode() if value else ""


def _hit(document: Document, score: float, words: Sequence[str]) -> Hit:
    snippet = _shown(document, "snippet") or window(_shown(document, "text"), words)
    return Hit(_shown(document, "title"), _shown(document, "url"), snippet, score)


@contextlib.asynccontextmanager
async def open_index(directory: Path, threads: int) -> AsyncIterator[LocalIndex]:
    """The index below `directory`, read by `threads` threads and written by one.

    Raises:
        UnusableIndexError: it cannot be opened.
    """
    loop = asyncio.get_running_loop()
    with (
        ThreadPoolExecutor(threads, "search") as readers,
        ThreadPoolExecutor(1, "ingest") as writer,
    ):
        index = await loop.run_in_executor(writer, LocalIndex, directory, readers, writer)
        try:
            yield index
        finally:
            await loop.run_in_executor(writer, index.close)
