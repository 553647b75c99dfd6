"""Tasks: a question about one group of a world, with its gold table.

Invariants: a task is a pure function of (world, split, index, number); 3 to 12 rows, 2 to 5 columns, the key column
`name` first; the gold table's cells stand in the world's pages.
"""

import random
from dataclasses import dataclass
from typing import Any

from wideseek_atlas.world import Group, Split, World, make_world, world_seed

KEY_COLUMN = "name"

_ATTRIBUTE_COUNTS = (1, 2, 3, 4)
_ATTRIBUTE_WEIGHTS = (25, 37, 25, 13)
_PHRASINGS = (
    "List all {members} of {group} with their {attributes}.",
    "Which {members} does {group} have? Give their {attributes}.",
    "Make a table of the {members} of {group} with {attributes}.",
    "Find all {members} of the {kind} {group} and their {attributes}.",
    "What are the {members} of {group}? For each give {attributes}.",
    "Table of {members} of {group}: {attributes}.",
)


@dataclass(frozen=True)
class Task:
    """A question and what a full answer holds. `group` is where it was drawn from; files do not show it."""

    instance_id: str
    corpus: str
    question: str
    columns: tuple[str, ...]
    key_columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    group: Group
    language: str = "en"

    @property
    def attributes(self) -> tuple[str, ...]:
        """The columns asked for beside the key."""
        return self.columns[1:]

    @property
    def answer(self) -> str:
        """The gold table in Markdown."""
        return markdown_table(self.columns, self.rows)

    def to_json(self) -> dict[str, Any]:
        """The task in the RLinf format, with the corpus it is asked of and the columns in order."""
        return {
            "question": self.question,
            "answer": self.answer,
            "unique_columns": list(self.key_columns),
            "is_markdown": True,
            "instance_id": self.instance_id,
            "language": self.language,
            "corpus": self.corpus,
            "columns": list(self.columns),
        }


def markdown_table(columns: tuple[str, ...], rows: tuple[tuple[str, ...], ...]) -> str:
    """A Markdown table, one line a row, ending without a line break."""
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def ask(world: World, group: Group, number: int, rng: random.Random) -> Task:
    """Draw a question about `group`; `number` tells the world's tasks apart."""
    names = [attribute.name for attribute in group.category.attributes]
    count = rng.choices(_ATTRIBUTE_COUNTS, _ATTRIBUTE_WEIGHTS)[0]
    attributes = tuple(rng.sample(names, count))
    question = rng.choice(_PHRASINGS).format(
        members=group.category.plural,
        kind=group.category.group,
        group=group.name,
        attributes=", ".join(attributes),
    )
    return Task(
        instance_id=f"{world.corpus}-{number:02d}",
        corpus=world.corpus,
        question=question,
        columns=(KEY_COLUMN, *attributes),
        key_columns=(KEY_COLUMN,),
        rows=tuple((member, *(group.facts[member][a] for a in attributes)) for member in group.members),
        group=group,
    )


def draw_tasks(split: Split, index: int, per_world: int = 1) -> tuple[World, list[Task]]:
    """The world `index` of `split` and `per_world` tasks, each of another group.

    Raises:
        ValueError: `per_world` is not between 1 and the world's number of groups, or `index` is out of range.
    """
    world = make_world(split, index)
    if not 1 <= per_world <= len(world.groups):
        raise ValueError(f"per_world {per_world}: a world has 1 to {len(world.groups)} tasks")
    rng = random.Random(world_seed(split, index) * 1_000 + 7)
    groups = rng.sample(world.groups, per_world)
    return world, [ask(world, group, number, rng) for number, group in enumerate(groups)]
