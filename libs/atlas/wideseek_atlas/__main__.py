"""`python -m wideseek_atlas tasks`: write the pages and the tasks of some worlds to files."""

import argparse
import sys
from pathlib import Path

from wideseek_atlas.files import write_files
from wideseek_atlas.world import SPLIT_SIZE, Split

_SPLITS = (Split.TRAIN, Split.VALIDATION, Split.HELDOUT)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        pages, tasks = write_files(
            options.out, Split(options.split), first=options.first, worlds=options.worlds, per_world=options.per_world
        )
    except ValueError as error:
        sys.stderr.write(f"wideseek_atlas: {error}\n")
        return 2
    sys.stdout.write(f"{pages} pages and {tasks} tasks of {options.worlds} worlds in {options.out}\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m wideseek_atlas", description="The atlas of fictional worlds.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    tasks = commands.add_parser("tasks", help="write pages.jsonl and tasks.jsonl")
    tasks.add_argument("--split", choices=[str(s) for s in _SPLITS], required=True, help="disjoint ranges of worlds")
    tasks.add_argument("--worlds", type=int, required=True, help="how many worlds")
    tasks.add_argument("--first", type=int, default=0, help=f"the first world, 0 to {SPLIT_SIZE - 1}")
    tasks.add_argument("--per-world", type=int, default=1, help="tasks a world, each about another group")
    tasks.add_argument("--out", type=Path, required=True, help="folder to write to")
    return parser


if __name__ == "__main__":
    sys.exit(main())
