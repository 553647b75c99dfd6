"""Filling the index.

Invariants: pages travel in calls of a bounded number of pages, each in messages of a bounded size; a call that failed
because the service was away is repeated whole, which changes nothing, since a page replaces itself.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from wideseek.tools.v1 import corpus_service_pb2 as pb
from wideseek.tools.v1.corpus_service_pb2_grpc import CorpusServiceStub

from wideseek_client.base import Base

_MESSAGE_BYTES = 1 << 20
_CALL_PAGES = 5_000


@dataclass
class IngestResult:
    """What became of the pages.

    Attributes:
        sent: pages sent so far.
        stored: pages stored.
        refused: reason to (number of pages, address of the first).
    """

    sent: int = 0
    stored: int = 0
    refused: dict[str, tuple[int, str]] = field(default_factory=dict)

    def add(self, response: pb.IngestPagesResponse) -> None:
        """Count what one call did."""
        self.stored += response.stored
        for group in response.refused:
            count, example = self.refused.get(group.reason, (0, group.example_url))
            self.refused[group.reason] = (count + group.count, example)


class Corpora(Base):
    """The calls of the corpus service."""

    async def ingest_pages(
        self, pages: Iterable[pb.Page], *, on_progress: Callable[[IngestResult], None] = lambda _: None
    ) -> IngestResult:
        """Store pages; `on_progress` is told after each call."""
        result = IngestResult()
        source = iter(pages)
        while chunk := list(islice(source, _CALL_PAGES)):
            response = await self._ingest(chunk)
            result.sent += len(chunk)
            result.add(response)
            on_progress(result)
        return result

    async def list_corpora(self, *, page_size: int = 100, page_token: str = "") -> pb.ListCorporaResponse:
        """A page of corpora, by name."""
        request = pb.ListCorporaRequest(page_size=page_size, page_token=page_token)
        return await self._repeat(lambda: self._corpora().ListCorpora(request))

    async def _ingest(self, chunk: list[pb.Page]) -> pb.IngestPagesResponse:
        async def requests() -> AsyncIterator[pb.IngestPagesRequest]:
            for batch in _batches(chunk):
                yield pb.IngestPagesRequest(pages=batch)

        return await self._repeat(lambda: self._corpora().IngestPages(requests()))

    def _corpora(self) -> CorpusServiceStub:
        return CorpusServiceStub(self.channel("tools"))


def _batches(pages: list[pb.Page]) -> Iterator[list[pb.Page]]:
    batch: list[pb.Page] = []
    size = 0
    for page in pages:
        if batch and size + page.ByteSize() > _MESSAGE_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(page)
        size += page.ByteSize()
    if batch:
        yield batch
