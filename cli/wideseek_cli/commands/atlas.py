"""`atlas`: worlds and questions as files, to ingest, to ask and to train on."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from wideseek_atlas import Split, draw_tasks
from wideseek_atlas.files import write_files
from wideseek_atlas.world import SPLIT_SIZE

from wideseek_cli.running import out, reporting


def atlas(
    directory: Annotated[Path, typer.Argument(help="Where pages.jsonl and tasks.jsonl go.")],
    split: Annotated[Split, typer.Option(help="Splits never share a world.")] = Split.TRAIN,
    worlds: Annotated[int, typer.Option(min=1, help="Worlds, each a corpus of its own.")] = 20,
    per_world: Annotated[int, typer.Option(min=1, max=8, help="Questions a world.")] = 4,
    first: Annotated[int, typer.Option(min=0, max=SPLIT_SIZE - 1, help="Number of the first world.")] = 0,
) -> None:
    """Write fictional worlds: pages for `wideseek ingest`, questions for `wideseek train` and `wideseek ask`."""
    with reporting():
        pages, tasks = write_files(directory, split, first=first, worlds=worlds, per_world=per_world)
    task = draw_tasks(split, first, per_world)[1][0]
    where = escape(str(directory))
    options = f"--corpus {task.corpus} --columns {','.join(task.columns)} --key {','.join(task.key_columns)}"
    out.print(f"{pages} pages of {worlds} worlds and {tasks} questions in {where}; try", soft_wrap=True)
    out.print(f"  wideseek ingest {where}/pages.jsonl", soft_wrap=True)
    out.print(f'  wideseek ask "{escape(task.question)}" {options}', soft_wrap=True)
    out.print(f"  wideseek train --tasks {where}/tasks.jsonl", soft_wrap=True)
