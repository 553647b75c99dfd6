"""Strategy faults of the scripted expert, and the rates at which demonstrations show them.

Invariant: a habit never spoils a copy; it leaves work undone. So a policy trained on the mixture copies well, and
dropping the habits is all that reinforcement learning has to find.
"""

import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Habits:
    """The faults of one episode. `snippet` is a rate: it is drawn anew for each subagent.

    Attributes:
        cut: the list subagent reports only the first members.
        few: the lead asks for the first members only.
        cram: the lead gives a subagent two entities, of which it reports one.
        snippet: how often a subagent answers from the search snippet, without reading the page.
        drop: the table lacks the last column asked for (never its only attribute).
    """

    cut: bool = False
    few: bool = False
    cram: bool = False
    snippet: float = 0.0
    drop: bool = False


@dataclass(frozen=True)
class Mixture:
    """The rate of each habit, and of mishaps that the agents must live with (failures, budgets cut short)."""

    cut: float = 0.0
    few: float = 0.0
    cram: float = 0.0
    snippet: float = 0.0
    drop: float = 0.0
    mishap: float = 0.0

    def draw(self, rng: random.Random) -> Habits:
        """The habits of one episode, each drawn on its own."""
        return Habits(
            cut=rng.random() < self.cut,
            few=rng.random() < self.few,
            cram=rng.random() < self.cram,
            snippet=self.snippet,
            drop=rng.random() < self.drop,
        )

    def scaled(self, factor: float) -> "Mixture":
        """The same mixture with every habit `factor` times as frequent; mishaps stay."""
        return Mixture(
            cut=self.cut * factor,
            few=self.few * factor,
            cram=self.cram * factor,
            snippet=self.snippet * factor,
            drop=self.drop * factor,
            mishap=self.mishap,
        )


SEED_MIXTURE = Mixture(cut=0.3, few=0.38, cram=0.4, snippet=0.6, drop=0.35, mishap=0.16)
"""What the seed policy was trained on last: faults everywhere, each with its remedy in reach."""
