"""What a request must satisfy before an episode is made of it.

Invariant: every fault is told with the path of its field and the figure, before anything was started or stored.
"""

import math
import re
from collections.abc import Sequence

from wideseek_scoring.tables import normalise_column

MAX_QUESTION = 32_768
MAX_COLUMNS = 64
MAX_COLUMN_NAME = 256
MAX_ID = 512
LANGUAGES = ("en", "zh")
SUBAGENTS = (1, 1_000)
TURNS = (1, 500)
TOOL_CALLS = (1, 100_000)
OUTPUT_TOKENS = (1, 10_000_000)
TURN_TOKENS = (1, 1_000_000)
TOP_K = (0, 1_000_000)
TEMPERATURE = (0.0, 10.0)
DAY = 86_400.0
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_ROUTE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:-]*")


class FieldError(ValueError):
    """A field cannot be used.

    Attributes:
        field: its path in the request.
        facts: the variables of the message.
    """

    def __init__(self, field: str, message: str, **facts: object) -> None:
        """Make an error about `field`."""
        super().__init__(message)
        self.field = field
        self.facts = facts


def question(text: str) -> str:
    """A question that is not empty and not too long."""
    if not text.strip():
        raise FieldError("question", "empty; give the question to answer")
    if len(text) > MAX_QUESTION:
        raise FieldError("question", f"{len(text)} characters, at most {MAX_QUESTION}", limit=MAX_QUESTION)
    return text


def columns(required: Sequence[str], keys: Sequence[str]) -> None:
    """Column names that are there, short, different from each other; keys are among the required ones."""
    _distinct("options.required_columns", required)
    _distinct("options.key_columns", keys)
    known = {normalise_column(name) for name in required}
    for name in keys:
        if normalise_column(name) not in known:
            have = ", ".join(required) or "none"
            raise FieldError("options.key_columns", f"{name!r} is not among required_columns ({have})", value=name)


def _distinct(field: str, names: Sequence[str]) -> None:
    if len(names) > MAX_COLUMNS:
        raise FieldError(field, f"{len(names)} columns, at most {MAX_COLUMNS}", limit=MAX_COLUMNS)
    seen: dict[str, str] = {}
    for place, name in enumerate(names):
        where = f"{field}[{place}]"
        if not name.strip():
            raise FieldError(where, "empty name")
        if len(name) > MAX_COLUMN_NAME:
            raise FieldError(where, f"{len(name)} characters, at most {MAX_COLUMN_NAME}", limit=MAX_COLUMN_NAME)
        if any(character in name for character in "|\n\r"):
            raise FieldError(where, f"{name!r} holds a pipe or a line end, which no table header can", value=name)
        twin = seen.setdefault(normalise_column(name), name)
        if twin is not name:
            raise FieldError(where, f"{name!r} is the same column as {twin!r}", value=name)


def language(code: str) -> str:
    """A language that the prompt packs may have."""
    if code not in LANGUAGES:
        raise FieldError("options.language", f"{code!r}, must be one of {', '.join(LANGUAGES)}", value=code)
    return code


def within(field: str, value: float, bounds: tuple[float, float]) -> None:
    """A number between two bounds, both allowed."""
    low, high = bounds
    if not low <= value <= high:  # a NaN is in no range
        raise FieldError(field, f"{value:,} given, must be from {low:,} to {high:,}", value=value, least=low, most=high)


def deadline(seconds: float) -> float:
    """Seconds above 0, at most a day."""
    if not (math.isfinite(seconds) and 0 < seconds <= DAY):
        raise FieldError(
            "options.limits.deadline",
            f"{seconds:g} s given, must be above 0 s and at most {DAY:g} s (a day)",
            value=seconds,
            most=DAY,
        )
    return seconds


def top_p(value: float) -> None:
    """A nucleus mass in (0, 1]."""
    if not 0 < value <= 1:
        raise FieldError("options.sampling.top_p", f"{value:g} given, must be above 0 and at most 1", value=value)


def name(field: str, value: str, *, route: bool = False) -> str:
    """A plain name: letters, digits, dots, dashes, underscores (a model route may have slashes too)."""
    if len(value) > 128:
        raise FieldError(field, f"{len(value)} characters, at most 128", limit=128)
    if not (_ROUTE if route else _NAME).fullmatch(value):
        raise FieldError(field, f"{value!r} is not a plain name", value=value)
    return value


def identifier(field: str, value: str) -> str:
    """An id of the caller's own making; may be empty."""
    if len(value) > MAX_ID:
        raise FieldError(field, f"{len(value)} characters, at most {MAX_ID}", limit=MAX_ID)
    return value


def training(group_size: int, index: int) -> None:
    """A place within the group."""
    if group_size and index >= group_size:
        raise FieldError("training.index", f"{index} given, the group has {group_size} (counted from 0)", value=index)
