"""The tools service as the agent's research.

Invariant: whatever goes wrong is told to the model as the error of the items asked for; the agent goes on.
"""

import logging
import time
from collections.abc import Sequence

import grpc
from google.rpc import status_pb2
from wideseek.tools.v1 import tools_service_pb2 as pb
from wideseek.tools.v1 import tools_service_pb2_grpc as pb_grpc
from wideseek_agent.pack import Hit
from wideseek_agent.tools import PageAsk, Query
from wideseek_kit.channels import calling
from wideseek_kit.errors import ServiceError, error_info

from wideseek_subagent.core.ports import Hits, Origin, PageText

_log = logging.getLogger(__name__)

# The words of a transport failure are for the log: they name addresses.
_PLAIN = {grpc.StatusCode.UNAVAILABLE: "unavailable", grpc.StatusCode.DEADLINE_EXCEEDED: "timed out"}


class RemoteResearch:
    """Search and page fetch in one corpus; a call may take `timeout` seconds."""

    def __init__(self, stub: pb_grpc.ToolsServiceStub, corpus: str, timeout: float) -> None:
        """Speak through `stub`. An empty corpus is the service's default."""
        self._stub = stub
        self._corpus = corpus
        self._timeout = timeout

    async def search(self, queries: Sequence[Query]) -> Sequence[Hits]:
        """Answer each query, in order."""
        asked = [pb.SearchQuery(query=query.query, count=query.count) for query in queries]
        started = time.monotonic()
        try:
            with calling():
                request = pb.SearchRequest(queries=asked, corpus=self._corpus)
                response = await self._stub.Search(request, timeout=self._timeout)
            _check_number("Search", len(response.results), len(asked))
        except ServiceError as error:
            return [Hits(_failed(error, started))] * len(asked)
        return [_hits(result) for result in response.results]

    async def fetch(self, pages: Sequence[PageAsk], *, max_chars: int) -> Sequence[PageText]:
        """Read the start of each page, in order."""
        asked = [pb.PageRequest(url=page.url, max_chars=max_chars) for page in pages]
        started = time.monotonic()
        try:
            with calling():
                request = pb.FetchPageRequest(pages=asked, corpus=self._corpus)
                response = await self._stub.FetchPage(request, timeout=self._timeout)
            _check_number("FetchPage", len(response.results), len(asked))
        except ServiceError as error:
            return [PageText(_failed(error, started))] * len(asked)
        return [_page(result) for result in response.results]


def _check_number(method: str, given: int, asked: int) -> None:
    if given != asked:
        raise ServiceError(f"{method} gave {given} results for {asked} items", reason="RESULT_COUNT_WRONG")


def _failed(error: ServiceError, started: float) -> Origin:
    _log.warning("the tools service failed: %s: %s", error.reason, error.message)
    text = _PLAIN.get(error.code, error.message)
    return Origin(error=text, reason=error.reason, latency_seconds=time.monotonic() - started)


def _hits(result: pb.SearchResult) -> Hits:
    hits = tuple(Hit(hit.title, hit.url, hit.snippet) for hit in result.hits)
    return Hits(_origin(result.error if result.HasField("error") else None, result.evidence), hits)


def _page(result: pb.PageResult) -> PageText:
    origin = _origin(result.error if result.HasField("error") else None, result.evidence)
    return PageText(origin, result.title, result.text, result.total_chars)


def _origin(error: status_pb2.Status | None, evidence: pb.Evidence) -> Origin:
    info = error_info(error)
    return Origin(
        error=(error.message or "failed") if error is not None else "",
        reason=(info.reason if info else "FAILED") if error is not None else "",
        bytes=evidence.bytes,
        latency_seconds=evidence.latency.ToTimedelta().total_seconds(),
        cache_hit=evidence.cache in (pb.CACHE_STATE_HIT, pb.CACHE_STATE_STALE),
    )
