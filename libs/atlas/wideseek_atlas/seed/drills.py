"""Short copy drills: the pieces of an episode that copy, without the boilerplate around them.

They come before whole episodes because a dense signal teaches copying many times faster.
"""

import random
from collections.abc import Callable

from wideseek_atlas.categories import CATEGORIES, FILLERS, GENERIC_SENTENCES, Attribute, Category, Kind
from wideseek_atlas.expert import entity_prompt
from wideseek_atlas.lexicon import MEASURES, NAMES, WORDS, YEARS
from wideseek_atlas.seed.render import Renderer, Tokens

_SIZES = (3, 4, 5, 6, 7, 8, 9, 10, 11, 12)
_SIZE_WEIGHTS = (12, 14, 15, 15, 13, 10, 7, 6, 4, 4)


class Drills:
    """Draws drills; each is a text to read and a text to write."""

    def __init__(self, renderer: Renderer, rng: random.Random) -> None:
        """Use one renderer's tokens."""
        self._renderer = renderer
        self._rng = rng

    def draw(self, *, lists_only: bool) -> Tokens:
        """One drill; the first stage of the curriculum has lists only."""
        kinds: tuple[Callable[[], tuple[str, str]], ...] = (self._list, self._prompts, self._rows, self._page)
        source, copy = self._list() if lists_only else self._rng.choice(kinds)()
        read, write = self._renderer.encode(source), self._renderer.encode(copy)
        return Tokens((*read, *write), (*[False] * len(read), *[True] * len(write)))

    def _list(self) -> tuple[str, str]:
        category, names = self._rng.choice(CATEGORIES), self._names()
        listed = ", ".join(names)
        source = f"The {category.plural} of {self._rng.choice(NAMES)} are {listed}.\n"
        return source, f"All {category.plural}: {listed}."

    def _prompts(self) -> tuple[str, str]:
        names, asked = self._names(), [a.name for a in self._asked(self._rng.choice(CATEGORIES))]
        calls = ", ".join(f'{{"prompt": "{entity_prompt([name], asked)}"}}' for name in names)
        return f"All: {', '.join(names)}.\n", f"[{calls}]"

    def _rows(self) -> tuple[str, str]:
        names, asked = self._names(), self._asked(self._rng.choice(CATEGORIES))
        facts = [[self._value(a.kind) for a in asked] for _ in names]
        source = "".join(
            f"{number}. {name}: {', '.join(f'{a.name} {v}' for a, v in zip(asked, values, strict=True))}.\n"
            for number, (name, values) in enumerate(zip(names, facts, strict=True), 1)
        )
        rows = (f"| {name} | {' | '.join(values)} |\n" for name, values in zip(names, facts, strict=True))
        return source, "".join(rows)

    def _page(self) -> tuple[str, str]:
        category, name = self._rng.choice(CATEGORIES), self._rng.choice(NAMES)
        facts = {a: self._value(a.kind) for a in category.attributes}
        sentences = [
            self._rng.choice((*GENERIC_SENTENCES, a.sentence, a.sentence)).format(a=a.name, n=name, v=v)
            for a, v in facts.items()
        ]
        if self._rng.random() < 0.3:
            sentences.append(f"Older lists have a wrong {self._rng.choice(category.attributes).name}.")
        if self._rng.random() < 0.3:
            sentences.append(self._rng.choice(FILLERS))
        self._rng.shuffle(sentences)
        asked = self._asked(category)
        told = ", ".join(f"{a.name} {facts[a]}" for a in asked)
        return f"{entity_prompt([name], [a.name for a in asked])} {' '.join(sentences)}\n", f"{name}: {told}."

    def _names(self) -> list[str]:
        return self._rng.sample(NAMES, self._rng.choices(_SIZES, _SIZE_WEIGHTS)[0])

    def _asked(self, category: Category) -> list[Attribute]:
        return self._rng.sample(category.attributes, self._rng.choice((1, 2, 2, 3, 4)))

    def _value(self, kind: Kind) -> str:
        if kind is Kind.NAME:
            return self._rng.choice(NAMES)
        if kind is Kind.WORD:
            return self._rng.choice(WORDS)
        return str(self._rng.choice(YEARS if kind is Kind.YEAR else MEASURES))
