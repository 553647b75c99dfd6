"""The parts' log files, for people: JSON lines as text, the end of a log, the last word on each condition."""

import json
from pathlib import Path

_TAIL_BYTES = 64 << 10
#: Where the services say which of their conditions hold.
_READINESS_LOGGER = "wideseek_kit.serve"


def tail(path: Path, lines: int = 12) -> list[str]:
    """The last `lines` lines that say something, shortened to text."""
    said = [readable(line) for line in _end(path) if line.strip()]
    return [line for line in said if line][-lines:]


def readable(line: str) -> str:
    """A log line without its machinery; the last line of a traceback counts for all of it."""
    entry = _entry(line)
    if entry is None:
        return line.rstrip()
    text = f"{entry.get('levelname', '')} {entry.get('message', '')}".strip()
    trace = str(entry.get("exc_info") or "").strip().split("\n")[-1]
    return f"{text}: {trace}" if trace else text


def unmet_conditions(path: Path) -> list[str]:
    """The conditions that a service last said not to hold, each as "name: reason"."""
    last: dict[str, str] = {}
    for line in _end(path):
        entry = _entry(line)
        if entry is None or entry.get("name") != _READINESS_LOGGER:
            continue
        condition, separator, reason = str(entry.get("message", "")).partition(": ")
        if separator:
            last[condition] = reason
    return [f"{condition}: {reason}" for condition, reason in last.items() if reason != "ok"]


def _entry(line: str) -> dict[str, object] | None:
    if not line.startswith("{"):
        return None
    try:
        entry = json.loads(line)
    except json.JSONDecodeError:
        return None
    return entry if isinstance(entry, dict) else None


def _end(path: Path) -> list[str]:
    try:
        with path.open("rb") as source:
            source.seek(0, 2)
            size = source.tell()
            source.seek(max(0, size - _TAIL_BYTES))
            return source.read().decode("utf-8", "replace").split("\n")[1 if size > _TAIL_BYTES else 0 :]
    except FileNotFoundError:
        return []
