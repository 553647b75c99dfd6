"""Pages in JSONL files: one object a line with `url`, `text` and, if there are, `title`, `snippet` and `corpus`.

Invariant: a line that cannot be used is named by file, line and field. RLinf's page files (`url`, `contents`) are read
as they are.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from wideseek.tools.v1.corpus_service_pb2 import Page

#: Where the text stands; the second name is that of the RLinf page files.
_TEXT = ("text", "contents")
_OPTIONAL = ("title", "snippet", "corpus")


class PageFileError(ValueError):
    """A line of a page file cannot be used. The message names file, line and field."""


def read_pages(path: Path, corpus: str = "") -> Iterator[Page]:
    """The pages of a file, one after the other; `corpus` is for those that name none.

    Raises:
        PageFileError: a line cannot be used.
        OSError: the file cannot be read.
    """
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield _page(line, f"{path}:{number}", corpus)


def _page(line: bytes, where: str, corpus: str) -> Page:
    try:
        entry = json.loads(line)
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise PageFileError(f"{where}: not JSON: {error}") from error
    if not isinstance(entry, dict):
        raise PageFileError(f"{where}: a page is an object, this is a {type(entry).__name__}")
    text = next((name for name in _TEXT if name in entry), _TEXT[0])
    page = Page(url=_string(entry, "url", where, required=True), text=_string(entry, text, where, required=True))
    for name in _OPTIONAL:
        setattr(page, name, _string(entry, name, where))
    page.corpus = page.corpus or corpus
    return page


def _string(entry: dict[str, object], name: str, where: str, *, required: bool = False) -> str:
    value = entry.get(name, "")
    if not isinstance(value, str):
        raise PageFileError(f"{where}: {name}: {value!r} is not a string")
    if required and not value:
        raise PageFileError(f"{where}: {name}: is {'empty' if name in entry else 'missing'}")
    return value
