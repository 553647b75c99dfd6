"""The two gRPC services: message in, core, message out."""

from collections.abc import AsyncIterator
from typing import Any

from grpc import aio
from wideseek.tools.v1 import corpus_service_pb2 as corpus_pb
from wideseek.tools.v1 import corpus_service_pb2_grpc as corpus_grpc
from wideseek.tools.v1 import tools_service_pb2 as pb
from wideseek.tools.v1 import tools_service_pb2_grpc as tools_grpc

from wideseek_tools import wire
from wideseek_tools.core.desk import Desk
from wideseek_tools.core.ingest import ingest
from wideseek_tools.core.ports import CorpusStore


class ToolsServicer(tools_grpc.ToolsServiceServicer):
    """Search and page fetch."""

    def __init__(self, desk: Desk) -> None:
        """Answer from `desk`."""
        self._desk = desk

    async def Search(self, request: pb.SearchRequest, context: aio.ServicerContext[Any, Any]) -> pb.SearchResponse:
        """Run a batch of queries."""
        items = await self._desk.search(wire.corpus_of(request.corpus), wire.queries_of(request))
        return wire.search_response(items)

    async def FetchPage(
        self, request: pb.FetchPageRequest, context: aio.ServicerContext[Any, Any]
    ) -> pb.FetchPageResponse:
        """Fetch a batch of pages."""
        items = await self._desk.fetch(wire.corpus_of(request.corpus), wire.addresses_of(request))
        return wire.fetch_response(items)


class CorpusServicer(corpus_grpc.CorpusServiceServicer):
    """Ingest, and what there is."""

    def __init__(self, store: CorpusStore, max_page_chars: int) -> None:
        """Keep pages of up to `max_page_chars` characters in `store`."""
        self._store = store
        self._max_page_chars = max_page_chars

    async def IngestPages(
        self,
        request_iterator: AsyncIterator[corpus_pb.IngestPagesRequest],
        context: aio.ServicerContext[Any, Any],
    ) -> corpus_pb.IngestPagesResponse:
        """Store a stream of pages."""
        report = await ingest(wire.pages_of(request_iterator), self._store, self._max_page_chars)
        return wire.ingest_response(report)

    async def ListCorpora(
        self, request: corpus_pb.ListCorporaRequest, context: aio.ServicerContext[Any, Any]
    ) -> corpus_pb.ListCorporaResponse:
        """List the corpora by name."""
        size = wire.page_size_of(request)
        return wire.corpora_response(await self._store.corpora(request.page_token, size + 1), size)
