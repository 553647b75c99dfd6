"""Messages into the service's own words and back.

Invariant: what is wrong with the call as a whole (an empty or too large batch, a corpus name that cannot be) is
refused here with field and figure; what is wrong with one item is the core's to judge.
"""

from collections.abc import AsyncIterator, Sequence
from datetime import timedelta

from google.protobuf.duration_pb2 import Duration
from google.rpc import status_pb2
from wideseek.tools.v1 import corpus_service_pb2 as corpus_pb
from wideseek.tools.v1 import tools_service_pb2 as pb
from wideseek_kit.errors import Internal, InvalidArgument, NotFound, OutOfRange, ServiceError

from wideseek_tools.core.faults import Fault, Kind
from wideseek_tools.core.ingest import MAX_CORPUS_CHARS, Report
from wideseek_tools.core.model import (
    DEFAULT_CORPUS,
    Address,
    Cache,
    Corpus,
    Evidence,
    Page,
    PageItem,
    Query,
    SearchItem,
)

MAX_BATCH = 32
MAX_PAGE_SIZE = 1_000
_DEFAULT_PAGE_SIZE = 100

_CACHE = {
    Cache.NOT_ASKED: pb.CACHE_STATE_UNSPECIFIED,
    Cache.HIT: pb.CACHE_STATE_HIT,
    Cache.MISS: pb.CACHE_STATE_MISS,
    Cache.STALE: pb.CACHE_STATE_STALE,
}


def corpus_of(name: str) -> str:
    """The corpus a call is about.

    Raises:
        InvalidArgument: no corpus can have this name.
    """
    if len(name) > MAX_CORPUS_CHARS:
        message = f"{len(name)} characters > {MAX_CORPUS_CHARS}"
        raise InvalidArgument("corpus", message, reason="CORPUS_NAME_TOO_LONG", limit=MAX_CORPUS_CHARS)
    if not name.isprintable():
        raise InvalidArgument("corpus", f"{name!r} has an unprintable character", reason="CORPUS_NAME_UNPRINTABLE")
    return name or DEFAULT_CORPUS


def queries_of(request: pb.SearchRequest) -> list[Query]:
    """The queries of a batch.

    Raises:
        InvalidArgument: the batch is empty or too large.
    """
    _check_batch("queries", len(request.queries))
    return [Query(query.query, query.count) for query in request.queries]


def addresses_of(request: pb.FetchPageRequest) -> list[Address]:
    """The addresses of a batch.

    Raises:
        InvalidArgument: the batch is empty or too large.
    """
    _check_batch("pages", len(request.pages))
    return [Address(page.url, page.max_chars, page.offset) for page in request.pages]


def search_response(items: Sequence[SearchItem]) -> pb.SearchResponse:
    """The answer to a batch of queries."""
    return pb.SearchResponse(results=[_search_result(item) for item in items])


def fetch_response(items: Sequence[PageItem]) -> pb.FetchPageResponse:
    """The answer to a batch of addresses."""
    return pb.FetchPageResponse(results=[_page_result(item) for item in items])


async def pages_of(requests: AsyncIterator[corpus_pb.IngestPagesRequest]) -> AsyncIterator[list[Page]]:
    """The batches of a stream."""
    async for request in requests:
        yield [
            Page(page.corpus or DEFAULT_CORPUS, page.url, page.title, page.text, page.snippet) for page in request.pages
        ]


def ingest_response(report: Report) -> corpus_pb.IngestPagesResponse:
    """The answer to a stream of pages; the most frequent reason first."""
    refused = sorted(report.refused.items(), key=lambda entry: (-entry[1].count, entry[0]))
    return corpus_pb.IngestPagesResponse(
        stored=report.stored,
        refused=[
            corpus_pb.RefusedPages(reason=reason, count=pages.count, example_url=pages.example_url)
            for reason, pages in refused
        ],
    )


def page_size_of(request: corpus_pb.ListCorporaRequest) -> int:
    """How many corpora to list at once.

    Raises:
        InvalidArgument: too many.
    """
    if request.page_size > MAX_PAGE_SIZE:
        message = f"{request.page_size} > {MAX_PAGE_SIZE}"
        raise InvalidArgument("page_size", message, reason="PAGE_SIZE_TOO_LARGE", limit=MAX_PAGE_SIZE)
    return request.page_size or _DEFAULT_PAGE_SIZE


def corpora_response(corpora: Sequence[Corpus], page_size: int) -> corpus_pb.ListCorporaResponse:
    """A page of corpora, given one more than the page holds if there are more."""
    shown = corpora[:page_size]
    return corpus_pb.ListCorporaResponse(
        corpora=[corpus_pb.Corpus(name=corpus.name, pages=corpus.pages) for corpus in shown],
        next_page_token=shown[-1].name if len(corpora) > page_size else "",
    )


def status_of(fault: Fault) -> status_pb2.Status:
    """A fault of an item as google.rpc.Status with one ErrorInfo."""
    facts = dict(fault.facts)
    error: ServiceError
    match fault.kind:
        case Kind.INVALID:
            field = facts.pop("field", "")
            error = InvalidArgument(field, fault.message.removeprefix(f"{field}: "), reason=fault.reason, **facts)
        case Kind.NOT_FOUND:
            error = NotFound(fault.message, reason=fault.reason, **facts)
        case Kind.PAST_END:
            error = OutOfRange(fault.message, reason=fault.reason, **facts)
        case Kind.INTERNAL:
            error = Internal(fault.message, reason=fault.reason, **facts)
    return error.to_status()


def _check_batch(field: str, items: int) -> None:
    if items == 0:
        raise InvalidArgument(field, f"empty; 1 to {MAX_BATCH} items make a batch", reason="BATCH_EMPTY")
    if items > MAX_BATCH:
        message = f"{items} items > {MAX_BATCH}"
        raise InvalidArgument(field, message, reason="BATCH_TOO_LARGE", items=items, limit=MAX_BATCH)


def _search_result(item: SearchItem) -> pb.SearchResult:
    return pb.SearchResult(
        query=item.query.text,
        hits=[pb.SearchHit(title=hit.title, url=hit.url, snippet=hit.snippet, score=hit.score) for hit in item.hits],
        error=status_of(item.fault) if item.fault else None,
        evidence=_evidence(item.evidence),
    )


def _page_result(item: PageItem) -> pb.PageResult:
    return pb.PageResult(
        url=item.address.url,
        title=item.title,
        text=item.text,
        total_chars=item.total_chars,
        error=status_of(item.fault) if item.fault else None,
        evidence=_evidence(item.evidence),
    )


def _evidence(evidence: Evidence) -> pb.Evidence:
    latency = Duration()
    latency.FromTimedelta(timedelta(seconds=evidence.latency))
    return pb.Evidence(backend=evidence.backend, latency=latency, bytes=evidence.size, cache=_CACHE[evidence.cache])
