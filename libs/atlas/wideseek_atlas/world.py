"""Worlds: groups of entities with facts, and the pages that tell them.

Invariants: a world is a pure function of (split, index); the splits' seeds never meet; every fact stands in its
entity's page; where a snippet contradicts a fact, the page states the right value and says that older lists err.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from wideseek_atlas.categories import CATEGORIES, FILLERS, GENERIC_SENTENCES, Attribute, Category, Kind
from wideseek_atlas.lexicon import MEASURES, NAMES, WORDS, YEARS

URL_PREFIX = "https://atlas.test/"
SPLIT_SIZE = 1_000_000
"""Worlds a split; the seeds of a split are `SPLIT_SIZE` consecutive integers."""

_CATEGORIES_A_WORLD = 4
_GROUPS_A_CATEGORY = 2
_SIZES = (3, 4, 5, 6, 7, 8, 9, 10, 11, 12)
_SIZE_WEIGHTS = (12, 18, 19, 17, 13, 9, 4, 4, 2, 2)
_DISTRACTORS = ("Hymn", "Museum", "Legend", "Friends")


class Split(StrEnum):
    """Disjoint ranges of worlds. `PRETRAIN` made the seed policy; the others are the user's."""

    TRAIN = "train"
    VALIDATION = "validation"
    HELDOUT = "heldout"
    PRETRAIN = "pretrain"


@dataclass(frozen=True)
class Page:
    """One page: `text` is the whole of it, `snippet` what a search shows."""

    url: str
    title: str
    text: str
    snippet: str


@dataclass(frozen=True)
class Group:
    """A named group of 3 to 12 members; `facts[member][attribute]` is the cell's text."""

    category: Category
    name: str
    members: tuple[str, ...]
    facts: dict[str, dict[str, str]]


@dataclass(frozen=True)
class World:
    """A corpus of pages and the groups they tell of. `claims[name]` is what an entity's snippet says of it."""

    corpus: str
    pages: tuple[Page, ...]
    groups: tuple[Group, ...]
    claims: dict[str, dict[str, str]]


def page_url(title: str) -> str:
    """The address of the page with this title."""
    return URL_PREFIX + title.replace(" ", "_")


def world_seed(split: Split, index: int) -> int:
    """The seed of a world.

    Raises:
        ValueError: `index` is outside the split.
    """
    if not 0 <= index < SPLIT_SIZE:
        raise ValueError(f"index {index}: a split has worlds 0 to {SPLIT_SIZE - 1}")
    return list(Split).index(split) * SPLIT_SIZE + index


def make_world(split: Split, index: int) -> World:
    """Draw the world `index` of `split`."""
    return _Builder(f"atlas-{split}-{index:06d}", random.Random(world_seed(split, index))).build()


class _Builder:
    def __init__(self, corpus: str, rng: random.Random) -> None:
        self._corpus = corpus
        self._rng = rng
        self._names = iter(rng.sample(NAMES, len(NAMES)))
        self._pages: list[Page] = []
        self._claims: dict[str, dict[str, str]] = {}

    def build(self) -> World:
        groups = tuple(
            self._group(category)
            for category in self._rng.sample(CATEGORIES, _CATEGORIES_A_WORLD)
            for _ in range(_GROUPS_A_CATEGORY)
        )
        self._rng.shuffle(self._pages)
        return World(self._corpus, tuple(self._pages), groups, self._claims)

    def _group(self, category: Category) -> Group:
        name = next(self._names)
        size = self._rng.choices(_SIZES, _SIZE_WEIGHTS)[0]
        members = tuple(next(self._names) for _ in range(size))
        snippet = f"{name} is a {category.group} with {category.plural}."
        self._add(name, self._list_text(category, name, members), snippet)
        self._distractor(name, 0.4)
        facts = {member: self._entity(category, name, member) for member in members}
        return Group(category, name, members, facts)

    def _list_text(self, category: Category, name: str, members: tuple[str, ...]) -> str:
        listed = ", ".join(members)
        text = self._rng.choice(
            (
                f"{name} is a {category.group}. The {category.plural} of {name} are {listed}.",
                f"The {category.group} {name} has these {category.plural}: {listed}.",
                f"{name} is a known {category.group}. Its {category.plural} are {listed}.",
            )
        )
        return f"{text} {self._rng.choice(FILLERS)}" if self._rng.random() < 0.5 else text

    def _entity(self, category: Category, group: str, name: str) -> dict[str, str]:
        facts = {attribute.name: self._value(attribute.kind) for attribute in category.attributes}
        opening = f"{name} is a {category.singular} of {group}."
        sentences = [self._sentence(attribute, name, facts[attribute.name]) for attribute in category.attributes]
        self._rng.shuffle(sentences)
        claim, remark = self._claim(category, facts)
        extra = [remark] if remark else []
        if self._rng.random() < 0.4:
            extra.append(self._rng.choice(FILLERS))
        for sentence in extra:
            sentences.insert(self._rng.randrange(len(sentences) + 1), sentence)
        told = "".join(f" Its {attribute} is {value}." for attribute, value in claim.items())
        self._add(name, " ".join([opening, *sentences]), opening + told)
        self._claims[name] = claim
        self._distractor(name, 0.25)
        return facts

    def _claim(self, category: Category, facts: dict[str, str]) -> tuple[dict[str, str], str]:
        """What the snippet says beyond its neutral opening, and the page's remark if that is wrong."""
        roll = self._rng.random()
        attribute = self._rng.choice(category.attributes)
        if roll < 0.5:
            return {}, ""
        if roll < 0.75:
            return {attribute.name: facts[attribute.name]}, ""
        wrong = self._value(attribute.kind)
        while wrong == facts[attribute.name]:
            wrong = self._value(attribute.kind)
        return {attribute.name: wrong}, f"Older lists have a wrong {attribute.name}."

    def _sentence(self, attribute: Attribute, name: str, value: str) -> str:
        form = self._rng.choice((*GENERIC_SENTENCES, attribute.sentence, attribute.sentence))
        return form.format(a=attribute.name, n=name, v=value)

    def _value(self, kind: Kind) -> str:
        draw: dict[Kind, Callable[[], str]] = {
            Kind.NUMBER: lambda: str(self._rng.choice(MEASURES)),
            Kind.YEAR: lambda: str(self._rng.choice(YEARS)),
            Kind.NAME: lambda: next(self._names),
            Kind.WORD: lambda: self._rng.choice(WORDS),
        }
        return draw[kind]()

    def _distractor(self, about: str, chance: float) -> None:
        if self._rng.random() < chance:
            title = f"{self._rng.choice(_DISTRACTORS)} of {about}"
            who, when = next(self._names), self._rng.choice(YEARS)
            self._add(title, f"{title} was made by {who} in the year {when}.", f"{title} was made long ago.")

    def _add(self, title: str, text: str, snippet: str) -> None:
        self._pages.append(Page(page_url(title), title, text, snippet))
