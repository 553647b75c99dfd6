"""Task sets: JSONL of questions with their gold answers, in RLinf's format.

Invariants: a task that exists is usable; the order in which a run asks them is a pure function of its seed, every task
once before any comes again.
"""

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from wideseek_scoring.tables import normalise_column, parse_tables

from wideseek_trainer.core.errors import TaskSetError


@dataclass(frozen=True)
class Task:
    """A question. `accepted` holds the gold table alone, or every accepted short answer."""

    task_id: str
    question: str
    accepted: tuple[str, ...]
    columns: tuple[str, ...]
    key_columns: tuple[str, ...]
    is_markdown: bool = True
    language: str = ""
    corpus: str = ""


@dataclass(frozen=True)
class TaskSet:
    """The tasks of a file and the SHA-256 (hex) of its bytes."""

    tasks: tuple[Task, ...]
    sha256: str

    def for_step(self, step: int, count: int, seed: int) -> list[Task]:
        """The `count` tasks that step `step` (from 1) asks; epochs follow each other, each in its own order."""
        size = len(self.tasks)
        chosen = []
        orders: dict[int, list[int]] = {}
        for position in range((step - 1) * count, step * count):
            epoch, place = divmod(position, size)
            if epoch not in orders:
                orders[epoch] = list(range(size))
                random.Random(f"{seed}/{epoch}").shuffle(orders[epoch])
            chosen.append(self.tasks[orders[epoch][place]])
        return chosen


def parse_task_set(data: bytes, name: str) -> TaskSet:
    """Read a task set; `name` is what errors call it.

    Raises:
        TaskSetError: a line cannot be used; names file, line and field. Or there is no task.
    """
    try:
        lines = data.decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise TaskSetError(f"{name}: not UTF-8 at byte {error.start}", file=name, byte=error.start) from error
    tasks: dict[str, Task] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        task = _task(line, number, name)
        if task.task_id in tasks:
            raise _fault(name, number, "instance_id", f"{task.task_id!r} stands on an earlier line too")
        tasks[task.task_id] = task
    if not tasks:
        raise TaskSetError(f"{name}: holds no task", file=name)
    return TaskSet(tuple(tasks.values()), hashlib.sha256(data).hexdigest())


def _fault(name: str, line: int, field: str, message: str) -> TaskSetError:
    return TaskSetError(f"{name}, line {line}, {field}: {message}", file=name, line=line, task_field=field)


def _task(line: str, number: int, name: str) -> Task:
    try:
        data = json.loads(line)
    except ValueError as error:
        raise _fault(name, number, "-", f"not JSON: {error}") from error
    if not isinstance(data, dict):
        raise _fault(name, number, "-", "not a JSON object")

    def fault(field: str, message: str) -> TaskSetError:
        return _fault(name, number, field, message)

    question = data.get("question")
    if not isinstance(question, str) or not question.strip():
        raise fault("question", "missing or empty")
    answer = data.get("answer")
    accepted = [answer] if isinstance(answer, str) else answer
    if not isinstance(accepted, list) or not accepted or not all(isinstance(one, str) and one for one in accepted):
        raise fault("answer", "neither a text nor a list of texts")
    is_markdown = bool(data.get("is_markdown", bool(data.get("unique_columns"))))
    keys = _texts(data, "unique_columns", fault)
    columns = _texts(data, "columns", fault) or _required(data)
    if is_markdown:
        tables = parse_tables(accepted[0])
        if not tables or not tables[-1].rows:
            raise fault("answer", "holds no table with rows")
        columns = columns or list(tables[-1].columns)
        known = {normalise_column(column) for column in tables[-1].columns}
        for field, wanted in (("columns", columns), ("unique_columns", keys)):
            for column in wanted:
                if normalise_column(column) not in known:
                    raise fault(field, f"{column!r} is no column of the gold table ({', '.join(tables[-1].columns)})")
    return Task(
        task_id=str(data.get("instance_id") or f"line-{number}"),
        question=question,
        accepted=tuple(accepted),
        columns=tuple(columns) if is_markdown else (),
        key_columns=tuple(keys or columns[:1]) if is_markdown else (),
        is_markdown=is_markdown,
        language=str(data.get("language") or ""),
        corpus=str(data.get("corpus") or ""),
    )


def _texts(data: dict[str, Any], field: str, fault: Any) -> list[str]:
    value = data.get(field) or []
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise fault(field, "not a list of texts")
    return list(value)


def _required(data: dict[str, Any]) -> Sequence[str]:
    """The required columns of WideSearch's `evaluation`, an object or the same as a JSON string."""
    evaluation = data.get("evaluation")
    if isinstance(evaluation, str):
        try:
            evaluation = json.loads(evaluation)
        except ValueError:
            return []  # it is optional here: without it, every column of the gold table is required
    required = evaluation.get("required") if isinstance(evaluation, dict) else None
    return [str(column) for column in required] if isinstance(required, list) else []
