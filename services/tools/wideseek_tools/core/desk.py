"""The desk where a batch of queries or addresses is answered.

Invariants: items run at the same time and each ends as an answer or a fault of its own; nothing that is wrong with
one item, foreseen or not, reaches another; every item has evidence.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from wideseek_tools.core.faults import Fault, Kind, internal, invalid
from wideseek_tools.core.model import Address, Cache, Evidence, Found, Hit, PageItem, Query, Read, SearchItem
from wideseek_tools.core.ports import PageStore, SearchBackend

MAX_COUNT = 50
MAX_QUERY_CHARS = 2_000
MAX_URL_CHARS = 2_048
MAX_CHARS = 200_000
"""Most characters of one page in one answer: 32 pages of that size stay below the message limit of 32 MiB."""

T = TypeVar("T")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Defaults:
    """What applies to an item that does not say."""

    count: int
    max_chars: int


class Desk:
    """Answers batches from one search backend and one page store."""

    def __init__(self, backend: SearchBackend, store: PageStore, defaults: Defaults) -> None:
        """Answer from `backend` and `store`."""
        self._backend = backend
        self._store = store
        self._defaults = defaults

    async def search(self, corpus: str, queries: Sequence[Query]) -> list[SearchItem]:
        """One item for each query, in their order."""
        return list(await asyncio.gather(*(self._search(corpus, i, query) for i, query in enumerate(queries))))

    async def fetch(self, corpus: str, addresses: Sequence[Address]) -> list[PageItem]:
        """One item for each address, in their order."""
        return list(await asyncio.gather(*(self._fetch(corpus, i, address) for i, address in enumerate(addresses))))

    async def _search(self, corpus: str, index: int, query: Query) -> SearchItem:
        async def answer() -> Found:
            _check_query(f"queries[{index}]", query)
            return await self._backend.search(corpus, query.text, query.count or self._defaults.count)

        found, fault, latency = await _timed(answer)
        hits: Sequence[Hit] = found.hits if found else ()
        size = sum(_size(hit.title) + _size(hit.url) + _size(hit.snippet) for hit in hits)
        cache = found.cache if found else Cache.NOT_ASKED
        return SearchItem(query, hits, fault, Evidence(self._backend.name, latency, size, cache))

    async def _fetch(self, corpus: str, index: int, address: Address) -> PageItem:
        async def answer() -> Read:
            _check_address(f"pages[{index}]", address)
            read = await self._store.read(corpus, address.url)
            _check_offset(f"pages[{index}]", address.offset, len(read.text))
            return read

        read, fault, latency = await _timed(answer)
        if read is None:
            return PageItem(address, "", "", 0, fault, Evidence(self._store.name, latency, 0, Cache.NOT_ASKED))
        end = address.offset + (address.max_chars or self._defaults.max_chars)
        text = read.text[address.offset : end]
        evidence = Evidence(self._store.name, latency, _size(text), read.cache)
        return PageItem(address, read.title, text, len(read.text), None, evidence)


async def _timed(answer: Callable[[], Awaitable[T]]) -> tuple[T | None, Fault | None, float]:
    started = time.perf_counter()
    result: T | None = None
    fault: Fault | None = None
    try:
        result = await answer()
    except Fault as known:
        fault = known
    except Exception:  # the batch goes on; the caller learns no inner text
        _log.exception("unhandled error in an item of a batch")
        fault = internal()
    return result, fault, time.perf_counter() - started


def _check_query(field: str, query: Query) -> None:
    if not query.text.strip():
        raise invalid(f"{field}.query", "QUERY_EMPTY", "empty")
    if len(query.text) > MAX_QUERY_CHARS:
        raise invalid(
            f"{field}.query",
            "QUERY_TOO_LONG",
            f"{len(query.text)} characters > {MAX_QUERY_CHARS}",
            chars=len(query.text),
            limit=MAX_QUERY_CHARS,
        )
    if query.count > MAX_COUNT:
        message = f"{query.count} > {MAX_COUNT} hits"
        raise invalid(f"{field}.count", "COUNT_TOO_LARGE", message, count=query.count, limit=MAX_COUNT)


def _check_address(field: str, address: Address) -> None:
    if not address.url.strip():
        raise invalid(f"{field}.url", "URL_EMPTY", "empty")
    if len(address.url) > MAX_URL_CHARS:
        message = f"{len(address.url)} characters > {MAX_URL_CHARS}"
        raise invalid(f"{field}.url", "URL_TOO_LONG", message, chars=len(address.url), limit=MAX_URL_CHARS)
    if address.max_chars > MAX_CHARS:
        message = f"{address.max_chars} > {MAX_CHARS} characters; read on with offset"
        raise invalid(
            f"{field}.max_chars", "MAX_CHARS_TOO_LARGE", message, max_chars=address.max_chars, limit=MAX_CHARS
        )


def _check_offset(field: str, offset: int, total: int) -> None:
    if offset > total:
        message = f"{field}.offset: {offset} > {total}, the characters of the text"
        raise Fault(
            Kind.PAST_END, "OFFSET_PAST_END", message, field=f"{field}.offset", offset=offset, total_chars=total
        )


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())
