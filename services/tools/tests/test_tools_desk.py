import asyncio
import logging

import pytest
from wideseek_tools.core.desk import MAX_CHARS, MAX_QUERY_CHARS, MAX_URL_CHARS, Defaults, Desk
from wideseek_tools.core.faults import Kind, page_not_found
from wideseek_tools.core.model import Address, Cache, Found, Hit, Query, Read


class Scripted:
    """A backend and a store: answers at once, late, not at all, or with a defect, as the text asks."""

    name = "scripted"

    def __init__(self) -> None:
        self.running = 0
        self.most_at_once = 0

    async def search(self, corpus: str, query: str, count: int) -> Found:
        self.running += 1
        self.most_at_once = max(self.most_at_once, self.running)
        await asyncio.sleep(0)
        self.running -= 1
        if query == "defect":
            raise RuntimeError("secret inner text")
        return Found([Hit("é", "u", corpus, 1.0)] * count, Cache.STALE)

    async def read(self, corpus: str, url: str) -> Read:
        if url == "gone":
            raise page_not_found(url, corpus)
        return Read("title", "0123456789")


@pytest.fixture
def backend() -> Scripted:
    return Scripted()


@pytest.fixture
def desk(backend: Scripted) -> Desk:
    return Desk(backend, backend, Defaults(count=3, max_chars=4))


async def test_items_keep_their_order_and_fail_alone(
    desk: Desk, backend: Scripted, caplog: pytest.LogCaptureFixture
) -> None:
    queries = [Query("a", 2), Query("  ", 0), Query("defect", 0), Query("b", 51), Query("q" * 2001, 0), Query("c", 0)]
    with caplog.at_level(logging.ERROR):
        items = await desk.search("k", queries)
    assert [item.query for item in items] == queries
    assert [item.fault and item.fault.reason for item in items] == [
        None,
        "QUERY_EMPTY",
        "INTERNAL",
        "COUNT_TOO_LARGE",
        "QUERY_TOO_LONG",
        None,
    ]
    assert [len(item.hits) for item in items] == [2, 0, 0, 0, 0, 3]
    assert backend.most_at_once == 3
    assert items[2].fault is not None
    assert "secret" not in items[2].fault.message
    assert "secret inner text" in caplog.text


async def test_evidence_tells_backend_bytes_and_cache(desk: Desk) -> None:
    good, bad = await desk.search("k", [Query("a", 2), Query("", 0)])
    assert (good.evidence.backend, good.evidence.size, good.evidence.cache) == ("scripted", 8, Cache.STALE)
    assert (bad.evidence.backend, bad.evidence.size, bad.evidence.cache) == ("scripted", 0, Cache.NOT_ASKED)
    assert good.evidence.latency > 0


@pytest.mark.parametrize(
    ("query", "field", "figures"),
    [
        (Query("x" * 2_500, 0), "queries[1].query", {"chars": "2500", "limit": str(MAX_QUERY_CHARS)}),
        (Query("x", 60), "queries[1].count", {"count": "60", "limit": "50"}),
    ],
)
async def test_a_bad_query_names_field_and_figure(
    desk: Desk, query: Query, field: str, figures: dict[str, str]
) -> None:
    _, bad = await desk.search("k", [Query("fine", 0), query])
    assert bad.fault is not None
    assert bad.fault.kind is Kind.INVALID
    assert bad.fault.facts == {"field": field, **figures}
    assert all(figure in bad.fault.message for figure in [field, *figures.values()])


async def test_a_page_is_read_in_parts(desk: Desk) -> None:
    items = await desk.fetch("k", [Address("u", 0, 0), Address("u", 3, 8), Address("u", 0, 10), Address("u", 0, 11)])
    assert [item.text for item in items] == ["0123", "89", "", ""]
    assert [item.total_chars for item in items] == [10, 10, 10, 0]
    assert [item.evidence.size for item in items] == [4, 2, 0, 0]
    past = items[3].fault
    assert past is not None
    assert (past.kind, past.reason) == (Kind.PAST_END, "OFFSET_PAST_END")
    assert past.facts == {"field": "pages[3].offset", "offset": "11", "total_chars": "10"}


async def test_bad_addresses_fail_alone(desk: Desk) -> None:
    wanted = [Address("gone", 0, 0), Address(" ", 0, 0), Address("u" * 3_000, 0, 0), Address("u", 200_001, 0)]
    items = await desk.fetch("k", [*wanted, Address("u", 0, 0)])
    faults = [item.fault for item in items[:4]]
    assert [fault and fault.reason for fault in faults] == [
        "PAGE_NOT_FOUND",
        "URL_EMPTY",
        "URL_TOO_LONG",
        "MAX_CHARS_TOO_LARGE",
    ]
    assert faults[0] is not None
    assert faults[0].facts == {"url": "gone", "corpus": "k"}
    assert str(MAX_URL_CHARS) in str(faults[2])
    assert str(MAX_CHARS) in str(faults[3])
    assert items[4].fault is None
