"""Task and page files, as the tools service and the trainer read them: one JSON object a line."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from wideseek_atlas.tasks import draw_tasks
from wideseek_atlas.world import Split


def write_files(folder: Path, split: Split, *, first: int, worlds: int, per_world: int) -> tuple[int, int]:
    """Write `pages.jsonl` and `tasks.jsonl` for `worlds` worlds from `first` on; returns how many lines each has."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = [draw_tasks(split, index, per_world) for index in range(first, first + worlds)]
    pages = [{"corpus": world.corpus, **asdict(page)} for world, _ in drawn for page in world.pages]
    tasks = [task.to_json() for _, some in drawn for task in some]
    _write(folder / "pages.jsonl", pages)
    _write(folder / "tasks.jsonl", tasks)
    return len(pages), len(tasks)


def _write(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
