from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest
from grpc import aio
from wideseek.tools.v1 import corpus_service_pb2 as corpus_pb
from wideseek.tools.v1 import corpus_service_pb2_grpc as corpus_grpc
from wideseek.tools.v1 import tools_service_pb2 as pb
from wideseek.tools.v1 import tools_service_pb2_grpc as tools_grpc
from wideseek_kit.channels import calling, open_channel
from wideseek_kit.errors import InvalidArgument, NotFound, error_info, from_status
from wideseek_kit.testing import grpc_server
from wideseek_tools.adapters.local_index import open_index
from wideseek_tools.settings import Settings
from wideseek_tools.wiring import SERVICE_NAMES, register

Tools = tools_grpc.ToolsServiceStub
Corpora = corpus_grpc.CorpusServiceStub


@pytest.fixture
async def channel(tmp_path: Path) -> AsyncIterator[aio.Channel]:
    settings = Settings(max_page_chars=1_000)
    async with (
        open_index(tmp_path, 2) as index,
        grpc_server(lambda server: register(server, index, settings), *SERVICE_NAMES) as target,
        open_channel(target) as opened,
    ):
        yield opened


@pytest.fixture
def tools(channel: aio.Channel) -> Tools:
    return tools_grpc.ToolsServiceStub(channel)


@pytest.fixture
def corpora(channel: aio.Channel) -> Corpora:
    return corpus_grpc.CorpusServiceStub(channel)


async def ingest(corpora: Corpora, pages: Iterable[corpus_pb.Page], batch: int = 2) -> corpus_pb.IngestPagesResponse:
    pages = list(pages)

    async def requests() -> AsyncIterator[corpus_pb.IngestPagesRequest]:
        for start in range(0, len(pages), batch):
            yield corpus_pb.IngestPagesRequest(pages=pages[start : start + batch])

    with calling():
        return await corpora.IngestPages(requests())


def queries(*texts: str) -> list[pb.SearchQuery]:
    return [pb.SearchQuery(query=text) for text in texts]


def page(url: str, title: str, text: str, corpus: str = "") -> corpus_pb.Page:
    return corpus_pb.Page(corpus=corpus, url=url, title=title, text=text)


OTAVA = page("https://a.test/Otava", "Otava", "Otava is a river of 113 km. " + "It flows. " * 20)
LIST = page("https://a.test/Rivers", "Rivers", "The rivers are Otava and Blanice.")


async def test_ingest_search_fetch(tools: Tools, corpora: Corpora) -> None:
    assert await ingest(corpora, [OTAVA, LIST]) == corpus_pb.IngestPagesResponse(stored=2)
    assert (await ingest(corpora, [OTAVA, LIST])).stored == 2

    found = await tools.Search(pb.SearchRequest(queries=queries("length of Otava", "")))
    good, bad = found.results
    assert good.query == "length of Otava"
    assert [hit.url for hit in good.hits] == [OTAVA.url, LIST.url]
    assert good.hits[0].score > good.hits[1].score > 0
    assert not good.HasField("error")
    shown = sum(len(hit.title + hit.url + hit.snippet) for hit in good.hits) + 2 * good.hits[0].snippet.count("…")
    assert (good.evidence.backend, good.evidence.bytes) == ("local", shown)
    assert good.evidence.latency.ToTimedelta().total_seconds() > 0
    assert good.evidence.cache == pb.CACHE_STATE_UNSPECIFIED
    error = from_status(bad.error)
    assert isinstance(error, InvalidArgument)
    assert (error.reason, error.facts, len(bad.hits)) == ("QUERY_EMPTY", {"field": "queries[1].query"}, 0)

    wanted = [
        pb.PageRequest(url="https://a.test/Otava/#length", max_chars=10, offset=9),
        pb.PageRequest(url="https://a.test/Vltava"),
        pb.PageRequest(url="https://a.test/Rivers"),
    ]
    fetched = await tools.FetchPage(pb.FetchPageRequest(pages=wanted))
    part, missing, whole = fetched.results
    assert (part.title, part.text, part.total_chars) == ("Otava", "a river of", len(OTAVA.text))
    assert (part.url, part.evidence.bytes) == (wanted[0].url, 10)
    assert whole.text == LIST.text
    error = from_status(missing.error)
    assert isinstance(error, NotFound)
    assert (error.reason, error.facts) == (
        "PAGE_NOT_FOUND",
        {"url": "https://a.test/Vltava", "corpus": "default"},
    )
    info = error_info(missing.error)
    assert info is not None
    assert info.domain == "wideseek"
    assert len(missing.error.details) == 1


async def test_defaults_and_bounds_of_count(tools: Tools, corpora: Corpora) -> None:
    await ingest(corpora, [page(f"u{i}", f"Page {i}", "pebble") for i in range(60)], batch=60)
    counts = [0, 1, 50, 51]
    found = await tools.Search(
        pb.SearchRequest(queries=[pb.SearchQuery(query="pebble", count=count) for count in counts])
    )
    assert [len(result.hits) for result in found.results] == [3, 1, 50, 0]
    assert "51 > 50" in found.results[3].error.message


async def test_a_corpus_hides_the_others(tools: Tools, corpora: Corpora) -> None:
    await ingest(corpora, [page("u", "Otava", "one", "a"), page("u", "Otava", "two", "b")])
    for corpus, text in (("a", "one"), ("b", "two")):
        found = await tools.Search(pb.SearchRequest(corpus=corpus, queries=queries("otava")))
        assert [hit.snippet for hit in found.results[0].hits] == [text]
        fetched = await tools.FetchPage(pb.FetchPageRequest(corpus=corpus, pages=[pb.PageRequest(url="u")]))
        assert fetched.results[0].text == text
    nowhere = await tools.Search(pb.SearchRequest(corpus="z", queries=queries("otava")))
    assert from_status(nowhere.results[0].error).reason == "CORPUS_NOT_FOUND"


async def test_refused_pages_are_reported_by_reason(corpora: Corpora) -> None:
    report = await ingest(corpora, [OTAVA, page("", "t", "x"), page("v", "t", ""), page("w", "t", " "), LIST])
    assert report.stored == 2
    assert [(entry.reason, entry.count, entry.example_url) for entry in report.refused] == [
        ("empty text", 2, "v"),
        ("empty url", 1, ""),
    ]
    too_long = await ingest(corpora, [page("long", "t", "x" * 1_001)])
    assert too_long.refused[0].reason == "text longer than 1000 characters"


async def test_corpora_in_pages(corpora: Corpora) -> None:
    await ingest(corpora, [page(f"u{i}", "", "x", f"k{i % 5}") for i in range(12)])
    names, token = [], ""
    for _ in range(3):
        listed = await corpora.ListCorpora(corpus_pb.ListCorporaRequest(page_size=2, page_token=token))
        names += [(corpus.name, corpus.pages) for corpus in listed.corpora]
        token = listed.next_page_token
    assert names == [("k0", 3), ("k1", 3), ("k2", 2), ("k3", 2), ("k4", 2)]
    assert token == ""
    with pytest.raises(InvalidArgument, match="page_size: 1001 > 1000"), calling():
        await corpora.ListCorpora(corpus_pb.ListCorporaRequest(page_size=1_001))


@pytest.mark.parametrize(
    ("items", "corpus", "reason", "text"),
    [
        (0, "", "BATCH_EMPTY", "{field}: empty; 1 to 32"),
        (33, "", "BATCH_TOO_LARGE", "{field}: 33 items > 32"),
        (1, "k" * 129, "CORPUS_NAME_TOO_LONG", "corpus: 129 characters > 128"),
        (1, "a\0b", "CORPUS_NAME_UNPRINTABLE", "corpus: "),
    ],
)
async def test_a_batch_that_cannot_be(tools: Tools, items: int, corpus: str, reason: str, text: str) -> None:
    with pytest.raises(InvalidArgument) as search, calling():
        await tools.Search(pb.SearchRequest(corpus=corpus, queries=[pb.SearchQuery(query="x")] * items))
    assert search.value.reason == reason
    assert text.format(field="queries") in search.value.message
    with pytest.raises(InvalidArgument) as fetch, calling():
        await tools.FetchPage(pb.FetchPageRequest(corpus=corpus, pages=[pb.PageRequest(url="x")] * items))
    assert fetch.value.reason == reason
    assert text.format(field="pages") in fetch.value.message
