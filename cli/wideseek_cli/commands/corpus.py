"""`ingest` and `corpora`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from wideseek.tools.v1.corpus_service_pb2 import Page
from wideseek_client import IngestResult

from wideseek_cli.pages import PageFileError, read_pages
from wideseek_cli.running import UsageError, client, err, out, run, say


def ingest(
    paths: Annotated[list[Path], typer.Argument(help="JSONL files: url, text, and title, snippet, corpus if any.")],
    corpus: Annotated[str, typer.Option(help="Corpus of the pages that name none.")] = "",
) -> None:
    """Fill the search index. A page replaces an earlier one of the same corpus and address."""
    result = run(_ingest(paths, corpus))
    out.print(f"{result.stored} pages stored")
    for reason, (count, example) in result.refused.items():
        out.print(f"{count} refused: {escape(reason)} (the first: {escape(example)!r})", soft_wrap=True)
    if result.refused:
        raise typer.Exit(1)


async def _ingest(paths: list[Path], corpus: str) -> IngestResult:
    for path in paths:
        if not path.is_file():
            raise UsageError(f"{path}: there is no such file")
    stored = 0
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, disable=not err.is_terminal) as progress:
        shown = progress.add_task("reading", total=sum(path.stat().st_size for path in paths))

        def pages() -> Iterator[Page]:
            for path in paths:
                progress.update(shown, description=path.name)
                for page in read_pages(path, corpus):
                    yield page
                    progress.advance(shown, page.ByteSize())

        def count(result: IngestResult) -> None:
            nonlocal stored
            stored = result.stored
            progress.update(shown, description=f"{stored} pages stored")

        async with client() as caller:
            try:
                return await caller.ingest_pages(pages(), on_progress=count)
            except PageFileError as error:
                raise UsageError(f"{error} ({stored} pages were stored before it)") from error


def corpora() -> None:
    """List the corpora that can be searched."""
    run(_corpora())


async def _corpora() -> None:
    token = ""
    found = 0
    async with client() as caller:
        while True:
            page = await caller.list_corpora(page_token=token)
            for corpus in page.corpora:
                found += 1
                out.print(f"{escape(corpus.name)}: {corpus.pages} pages", soft_wrap=True)
            token = page.next_page_token
            if not token:
                break
    if not found:
        say("no corpus yet: `wideseek ingest FILE` makes one")
