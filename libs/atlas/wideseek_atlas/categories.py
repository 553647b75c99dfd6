"""What a world's groups are made of: categories, their attributes, and the sentences that state a fact.

Invariant: category and attribute names are single lower-case words, so each is one token of the seed policy.
"""

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What the values of an attribute are."""

    NUMBER = "number"
    YEAR = "year"
    NAME = "name"
    WORD = "word"


@dataclass(frozen=True)
class Attribute:
    """One attribute; `sentence` states its value `{v}` in the attribute's own way."""

    name: str
    kind: Kind
    sentence: str


@dataclass(frozen=True)
class Category:
    """A kind of entity (`plural`, `singular`) that stands in groups of the kind `group`."""

    plural: str
    singular: str
    group: str
    attributes: tuple[Attribute, ...]


GENERIC_SENTENCES: tuple[str, ...] = (
    "The {a} of {n} is {v}.",
    "Its {a} is {v}.",
    "{n} has the {a} {v}.",
    "Records give its {a} as {v}.",
)
"""Ways to state any attribute `{a}` of the entity `{n}`."""

FILLERS: tuple[str, ...] = (
    "It is well known in the area.",
    "Many people visit it every season.",
    "Little else is recorded.",
    "A small museum is nearby.",
    "Old maps show it clearly.",
    "Its history is long.",
    "Few letters about it remain.",
    "Songs mention it often.",
)
"""Sentences that state nothing."""


def _category(plural: str, singular: str, group: str, *attributes: tuple[str, Kind, str]) -> Category:
    return Category(plural, singular, group, tuple(Attribute(*a) for a in attributes))


_NUMBER, _YEAR, _NAME, _WORD = Kind.NUMBER, Kind.YEAR, Kind.NAME, Kind.WORD

CATEGORIES: tuple[Category, ...] = (
    _category(
        "moons",
        "moon",
        "planet",
        ("radius", _NUMBER, "It has a radius of {v} km."),
        ("discoverer", _NAME, "The discoverer was {v}."),
        ("year", _YEAR, "It was first seen in the year {v}."),
        ("surface", _WORD, "Its surface is covered with {v}."),
        ("period", _NUMBER, "It has a period of {v} days."),
    ),
    _category(
        "mines",
        "mine",
        "province",
        ("depth", _NUMBER, "Its shaft reaches a depth of {v} m."),
        ("owner", _NAME, "It belongs to the owner {v}."),
        ("year", _YEAR, "It was opened in the year {v}."),
        ("mineral", _WORD, "People dig for the mineral {v} there."),
        ("workers", _NUMBER, "The number of workers is {v}."),
    ),
    _category(
        "operas",
        "opera",
        "composer",
        ("length", _NUMBER, "The length is {v} minutes."),
        ("author", _NAME, "The text is by the author {v}."),
        ("year", _YEAR, "The premiere was in the year {v}."),
        ("theme", _WORD, "Its theme is {v}."),
    ),
    _category(
        "bridges",
        "bridge",
        "river",
        ("length", _NUMBER, "The deck has a length of {v} m."),
        ("builder", _NAME, "It was made by the builder {v}."),
        ("year", _YEAR, "Traffic began in the year {v}."),
        ("material", _WORD, "Its main material is {v}."),
        ("arches", _NUMBER, "The number of arches is {v}."),
    ),
    _category(
        "ships",
        "ship",
        "fleet",
        ("crew", _NUMBER, "It sails with a crew of {v}."),
        ("captain", _NAME, "It is led by captain {v}."),
        ("year", _YEAR, "It was launched in the year {v}."),
        ("cargo", _WORD, "It carries a cargo of {v}."),
    ),
    _category(
        "schools",
        "school",
        "district",
        ("pupils", _NUMBER, "The number of pupils is {v}."),
        ("head", _NAME, "Lessons are led by head {v}."),
        ("year", _YEAR, "It was founded in the year {v}."),
        ("subject", _WORD, "Its best subject is {v}."),
    ),
    _category(
        "lakes",
        "lake",
        "region",
        ("area", _NUMBER, "The water covers an area of {v} ha."),
        ("warden", _NAME, "The shore is kept by warden {v}."),
        ("year", _YEAR, "It was mapped in the year {v}."),
        ("fish", _WORD, "The common fish is {v}."),
        ("depth", _NUMBER, "The water reaches a depth of {v} m."),
    ),
    _category(
        "towers",
        "tower",
        "city",
        ("height", _NUMBER, "It rises to a height of {v} m."),
        ("architect", _NAME, "It was drawn by architect {v}."),
        ("year", _YEAR, "It was completed in the year {v}."),
        ("stone", _WORD, "It is made of the stone {v}."),
        ("steps", _NUMBER, "The number of steps is {v}."),
    ),
    _category(
        "gardens",
        "garden",
        "valley",
        ("area", _NUMBER, "The beds cover an area of {v} ha."),
        ("keeper", _NAME, "The beds are kept by keeper {v}."),
        ("year", _YEAR, "It was planted in the year {v}."),
        ("tree", _WORD, "The common tree is {v}."),
    ),
)
