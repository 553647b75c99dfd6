"""Atlas worlds for a running suite: which to draw, how they get into the index and into a task file.

Invariant: questions are drawn in the order of the worlds' numbers, so a larger set begins with the smaller one.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import wideseek_atlas as atlas
from wideseek.tools.v1.corpus_service_pb2 import Page
from wideseek_atlas.files import write_files
from wideseek_client import Client, IngestResult


@dataclass(frozen=True)
class WorldSet:
    """Some worlds of one split, with their tasks."""

    split: atlas.Split
    per_world: int
    worlds: tuple[atlas.World, ...]
    tasks: tuple[atlas.Task, ...]

    @classmethod
    def draw(cls, split: atlas.Split, tasks: int, per_world: int) -> "WorldSet":
        """As many worlds as `tasks` questions take, `per_world` of each."""
        drawn = [atlas.draw_tasks(split, index, per_world) for index in range(-(-tasks // per_world))]
        some = tuple(task for _, of_one in drawn for task in of_one)[:tasks]
        return cls(split, per_world, tuple(world for world, _ in drawn), some)

    def pages(self) -> Iterator[Page]:
        """All pages, each of its world's corpus."""
        for world in self.worlds:
            for page in world.pages:
                yield Page(corpus=world.corpus, url=page.url, title=page.title, text=page.text, snippet=page.snippet)

    def write(self, folder: Path) -> Path:
        """Write `pages.jsonl` and `tasks.jsonl` of all worlds; returns the latter's path, for training."""
        write_files(folder, self.split, first=0, worlds=len(self.worlds), per_world=self.per_world)
        return folder / "tasks.jsonl"


async def ingest(
    client: Client, sets: Sequence[WorldSet], on_progress: Callable[[IngestResult], None] = lambda _: None
) -> IngestResult:
    """Store the pages of all sets."""
    return await client.ingest_pages((page for one in sets for page in one.pages()), on_progress=on_progress)
