"""An answer as a table with its sources."""

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from wideseek.lead.v1 import lead_service_pb2 as pb
from wideseek_scoring.tables import Table as Markdown

from wideseek_cli.show.progress import state_name


def show_answer(console: Console, episode: pb.Episode) -> None:
    """Print the answer: a drawn table on a terminal, a Markdown table elsewhere; then what is wrong with it."""
    answer = episode.answer
    if answer.columns:
        (_draw if console.is_terminal else _write)(console, answer)
    elif answer.boxed:
        console.print(escape(answer.boxed), soft_wrap=True)
    elif answer.text:
        console.print(escape(answer.text), soft_wrap=True)
    else:
        console.print(f"no answer: {state_name(episode)}{_fault(episode)}", soft_wrap=True)
    for problem in answer.problems:
        console.print(f"[yellow]note:[/] {escape(problem)}", soft_wrap=True)


def _fault(episode: pb.Episode) -> str:
    return f": {escape(episode.error.message)}" if episode.error.message else ""


def _draw(console: Console, answer: pb.Answer) -> None:
    sources = list(dict.fromkeys(url for row in answer.rows for url in row.sources))
    table = Table(box=box.ROUNDED, header_style="bold")
    for column in answer.columns:
        table.add_column(escape(column))
    if sources:
        table.add_column("sources", style="dim")
    for row in answer.rows:
        numbers = " ".join(f"\\[{sources.index(url) + 1}]" for url in row.sources)
        table.add_row(*(escape(cell) for cell in row.cells), *([numbers] if sources else []))
    console.print(table)
    for number, url in enumerate(sources, start=1):
        console.print(f"[dim]{f'[{number}]':>5} {escape(url)}[/]", soft_wrap=True)


def _write(console: Console, answer: pb.Answer) -> None:
    sources = any(row.sources for row in answer.rows)
    columns = (*answer.columns, *(("sources",) if sources else ()))
    rows = tuple((*row.cells, *((" ".join(row.sources),) if sources else ())) for row in answer.rows)
    console.print(escape(Markdown(columns, rows).to_markdown()), soft_wrap=True)
