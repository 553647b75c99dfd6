"""The service's own words: pages, hits, and what became of each item of a batch."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

from wideseek_tools.core.faults import Fault

DEFAULT_CORPUS = "default"


class Cache(Enum):
    """Whether a cache answered."""

    NOT_ASKED = auto()
    HIT = auto()
    MISS = auto()
    STALE = auto()


@dataclass(frozen=True, slots=True)
class Page:
    """A page as it is stored. `snippet` may be empty: then search shows the matching window of `text`."""

    corpus: str
    url: str
    title: str
    text: str
    snippet: str


@dataclass(frozen=True, slots=True)
class Hit:
    """One search result; scores compare within one result only."""

    title: str
    url: str
    snippet: str
    score: float


@dataclass(frozen=True, slots=True)
class Found:
    """What a search backend answers to one query, best hit first."""

    hits: Sequence[Hit]
    cache: Cache = Cache.NOT_ASKED


@dataclass(frozen=True, slots=True)
class Read:
    """What a page store answers for one address: the whole text."""

    title: str
    text: str
    cache: Cache = Cache.NOT_ASKED


@dataclass(frozen=True, slots=True)
class Evidence:
    """How an item's answer came about. `latency` in seconds, `size` in bytes of UTF-8 text returned."""

    backend: str
    latency: float
    size: int
    cache: Cache


@dataclass(frozen=True, slots=True)
class Query:
    """One query of a batch; `count` 0 means the default."""

    text: str
    count: int


@dataclass(frozen=True, slots=True)
class Address:
    """One page wanted; `max_chars` 0 means the default."""

    url: str
    max_chars: int
    offset: int


@dataclass(frozen=True, slots=True)
class SearchItem:
    """What became of a query: hits, or a fault."""

    query: Query
    hits: Sequence[Hit]
    fault: Fault | None
    evidence: Evidence


@dataclass(frozen=True, slots=True)
class PageItem:
    """What became of an address: the part of the text that was asked for, or a fault."""

    address: Address
    title: str
    text: str
    total_chars: int
    fault: Fault | None
    evidence: Evidence


@dataclass(frozen=True, slots=True)
class Corpus:
    """A corpus and the number of its pages."""

    name: str
    pages: int
