"""The tools as a demonstration sees them: searches and pages of one world, in the prompt pack's words.

Invariant: the right hit may stand at any rank, or be missing; a page stands at its name's address.
"""

import random
from collections.abc import Sequence

from wideseek_agent.messages import Message
from wideseek_agent.pack import Hit, Pack, PageResult, SearchResult

from wideseek_atlas.search import Index
from wideseek_atlas.world import Page, World, page_url

_SHUFFLED = 0.5
_LOST_HIT = 0.03
_COUNTS = (3, 3, 3, 3, 2, 4, 5)


class Desk:
    """Answers tool calls about one world; `rng` perturbs the hits unless `steady`."""

    def __init__(self, world: World, pack: Pack, rng: random.Random, *, steady: bool = False) -> None:
        """Index the world's pages."""
        self._pack = pack
        self._rng = rng
        self._steady = steady
        self._index = Index(world.pages)
        self._texts = {page.url: page.text for page in world.pages}
        self.claims = world.claims

    def search(self, query: str, about: str, *, turn: int, limit: int, empty: bool = False) -> tuple[Message, bool]:
        """The answer to a search, and whether the page titled `about` is among the hits."""
        pages = [] if empty else self._hits(query, about)
        hits = tuple(Hit(page.title, page.url, page.snippet) for page in pages)
        message = self._pack.search([SearchResult(query, hits)], turn=turn, limit=limit)
        return message, any(page.title == about for page in pages)

    def read(self, title: str, *, turn: int, limit: int, fails: bool = False) -> Message:
        """The answer to an access of the page titled `title`."""
        url = page_url(title)
        result = PageResult(url, error="not found") if fails else PageResult(url, self._texts[url])
        return self._pack.pages([result], turn=turn, limit=limit)

    def _hits(self, query: str, about: str) -> Sequence[Page]:
        if self._steady:
            return self._index.search(query)
        pages = self._index.search(query, self._rng.choice(_COUNTS))
        if self._rng.random() < _LOST_HIT:
            pages = [page for page in pages if page.title != about]
        if self._rng.random() < _SHUFFLED:
            self._rng.shuffle(pages)
        return pages
