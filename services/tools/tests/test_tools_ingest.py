from collections.abc import AsyncIterator, Sequence

import pytest
from wideseek_tools.core import ingest as module
from wideseek_tools.core.ingest import Refused, fault_of, ingest
from wideseek_tools.core.model import Corpus, Page


class Memory:
    def __init__(self) -> None:
        self.chunks: list[list[Page]] = []

    async def put(self, pages: Sequence[Page]) -> None:
        self.chunks.append(list(pages))

    async def corpora(self, after: str, limit: int) -> Sequence[Corpus]:
        return []


def page(url: str = "u", text: str = "t", corpus: str = "c", title: str = "", snippet: str = "") -> Page:
    return Page(corpus, url, title, text, snippet)


async def stream(*batches: Sequence[Page]) -> AsyncIterator[Sequence[Page]]:
    for batch in batches:
        yield batch


async def test_refused_pages_are_counted_and_stop_nothing() -> None:
    store = Memory()
    pages = [page("a"), page("b", text=" \n"), page("", text="x"), page("d", text=""), page("e", text="x" * 11)]
    report = await ingest(stream(pages[:2], pages[2:], [page("f")]), store, max_page_chars=10)
    assert report.stored == 2
    assert [p.url for chunk in store.chunks for p in chunk] == ["a", "f"]
    assert report.refused == {
        "empty text": Refused("b", 2),
        "empty url": Refused("", 1),
        "text longer than 10 characters": Refused("e", 1),
    }


async def test_an_empty_stream_stores_nothing() -> None:
    store = Memory()
    report = await ingest(stream([], []), store, 10)
    assert (report.stored, report.refused, store.chunks) == (0, {}, [])


async def test_a_long_stream_is_stored_in_chunks() -> None:
    store = Memory()
    batches = [[page(f"{b}-{i}") for i in range(1_000)] for b in range(25)]
    report = await ingest(stream(*batches), store, 10)
    assert [len(chunk) for chunk in store.chunks] == [10_000, 10_000, 5_000]
    assert report.stored == 25_000


async def test_large_texts_make_smaller_chunks() -> None:
    store = Memory()
    await ingest(stream(*([page(str(i), text="x" * 8_000_000)] for i in range(5))), store, 10_000_000)
    assert [len(chunk) for chunk in store.chunks] == [4, 1]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (page(url="u" * 2_049), "url longer than 2048 characters"),
        (page(corpus="c" * 129), "corpus longer than 128 characters"),
        (page(title="t" * 4_097), "title longer than 4096 characters"),
        (page(snippet="s" * 8_193), "snippet longer than 8192 characters"),
        (page(corpus="a\0b"), "unprintable character in url or corpus"),
        (page(url="https://a.test/\n"), "unprintable character in url or corpus"),
    ],
)
def test_what_cannot_be_stored(bad: Page, reason: str) -> None:
    assert fault_of(bad, 1_000_000) == reason


def test_what_can_be_stored() -> None:
    limits = page(url="u" * module.MAX_URL_CHARS, corpus="语料", title="t\n\0", text="x" * 10, snippet="é")
    assert fault_of(limits, 10) == ""
