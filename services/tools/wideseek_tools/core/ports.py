"""What the core asks of the world. A live search API, a fetcher or a cache fits behind the same three.

Invariant: a method either answers, or raises `Fault` for what the caller can understand; it never blocks the loop.
"""

from collections.abc import Sequence
from typing import Protocol

from wideseek_tools.core.model import Corpus, Found, Page, Read


class SearchBackend(Protocol):
    """Finds pages."""

    @property
    def name(self) -> str:
        """Its name in evidence."""
        ...

    async def search(self, corpus: str, query: str, count: int) -> Found:
        """The `count` best pages of `corpus` for `query`, best first.

        Raises:
            Fault: there is no such corpus.
        """
        ...


class PageStore(Protocol):
    """Gives pages by address."""

    @property
    def name(self) -> str:
        """Its name in evidence."""
        ...

    async def read(self, corpus: str, url: str) -> Read:
        """The page at `url`, which may differ from the stored address by a fragment or a closing slash.

        Raises:
            Fault: there is no such page.
        """
        ...


class CorpusStore(Protocol):
    """Keeps pages."""

    async def put(self, pages: Sequence[Page]) -> None:
        """Store all of `pages`, or none; they are found as soon as it returns. A later page replaces an earlier one."""
        ...

    async def corpora(self, after: str, limit: int) -> Sequence[Corpus]:
        """Up to `limit` corpora whose names sort behind `after`, by name."""
        ...
