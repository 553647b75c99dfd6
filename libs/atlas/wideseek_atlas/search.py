"""A small BM25 index over one world's pages, to make demonstrations without a running tools service."""

import math
import re
from collections import Counter
from collections.abc import Sequence

from wideseek_atlas.world import Page

_WORD = re.compile(r"\w+")
_SATURATION = 1.2
_LENGTH_WEIGHT = 0.75


class Index:
    """BM25 (Robertson and Zaragoza, 2009) over title, text and snippet; ties in the pages' order."""

    def __init__(self, pages: Sequence[Page]) -> None:
        """Count the words of `pages`."""
        self._pages = pages
        self._counts = [Counter(_WORD.findall(f"{p.title} {p.text} {p.snippet}".lower())) for p in pages]
        self._lengths = [sum(counts.values()) for counts in self._counts]
        self._mean_length = sum(self._lengths) / max(1, len(pages))
        seen_in = Counter(word for counts in self._counts for word in counts)
        self._weight = {w: math.log(1 + (len(pages) - n + 0.5) / (n + 0.5)) for w, n in seen_in.items()}

    def search(self, query: str, count: int = 3) -> list[Page]:
        """The `count` best pages that share a word with the query, best first."""
        words = [w for w in _WORD.findall(query.lower()) if w in self._weight]
        scores = [(self._score(i, words), -i) for i in range(len(self._pages))]
        best = sorted((s for s in scores if s[0] > 0), reverse=True)[:count]
        return [self._pages[-i] for _, i in best]

    def _score(self, number: int, words: list[str]) -> float:
        counts = self._counts[number]
        damp = _SATURATION * (1 - _LENGTH_WEIGHT + _LENGTH_WEIGHT * self._lengths[number] / self._mean_length)
        return sum(self._weight[w] * counts[w] * (_SATURATION + 1) / (counts[w] + damp) for w in words if w in counts)
