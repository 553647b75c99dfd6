"""The closed lexicon: every name, word and number that a world may hold.

Invariant: the lists are fixed for good. The seed policy's tokenizer has one token for each entry, so a change here
means a new seed policy.
"""

import random

_ONSETS: tuple[str, ...] = ("b", "d", "f", "g", "h", "j", "k", "l", "m", "n", "p", "r", "s", "t", "v", "z")
_ONSETS += ("br", "ch", "dr", "kr", "sh", "st", "th", "tr")
_VOWELS = ("a", "e", "i", "o", "u")
_NAME_COUNT = 1200

SMALL_NUMBERS = range(1, 500)
YEARS = range(1700, 2000)
MEASURES = range(12, 500)

_WORDS = """
Amber Basalt Birch Botany Bronze Carp Cedar Chalk Clay Cobalt Copper Coral Cotton Courage Envy Exile Flint Glass Gold
Granite Hemp Honey Honor Ice Iron Ivory Jade Lead Linen Logic Love Marble Mercy Moss Music Oak Opal Pearl Perch Pine
Pride Quartz Revenge Rhetoric Salmon Salt Sand Silk Silver Slate Spice Sulfur Tea Timber Tin Trout Wheat Wine Wool Zinc
"""
WORDS: tuple[str, ...] = tuple(_WORDS.split())


def _draw_names() -> tuple[str, ...]:
    rng = random.Random(20260204)
    taken: dict[str, None] = {}
    while len(taken) < _NAME_COUNT:
        name = "".join(rng.choice(_ONSETS) + rng.choice(_VOWELS) for _ in range(2)).capitalize()
        if name not in WORDS:
            taken.setdefault(name)
    return tuple(taken)


NAMES: tuple[str, ...] = _draw_names()
