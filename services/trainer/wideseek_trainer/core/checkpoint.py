"""Checkpoints: weights, optimizer and what was consumed, committed together.

Invariants: a checkpoint directory is complete or it is not there (written beside, synced, renamed); LATEST names the
newest and is replaced atomically; the mark PUBLISHED in a checkpoint says that its policy version was announced and
its events were acknowledged. Whoever dies in between finds the checkpoint and does the rest again, to the same effect.
"""

import json
import os
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from wideseek_trainer.core.batch import Counters
from wideseek_trainer.core.errors import CheckpointError

_LATEST = "LATEST"
_STATE = "state.json"
_PUBLISHED = "PUBLISHED"
_SCHEMA = 1
_KEEP = 2


@dataclass(frozen=True)
class Progress:
    """What a checkpoint commits beside the learner's files.

    Attributes:
        step: updates made; 0 before the first.
        watermark: every event up to this sequence of the stream is consumed or of no interest.
        consumed: ids of the groups whose events may lie above the watermark.
        versions: policy version to the update that made it, 0 for the run's first policy.
        version: the version that this update is published as.
        task_set_sha256: of the task set that the run began with.
        metrics: of the update.
        seconds: of the parts of the update.
        time: when the update was made, in seconds since 1970.
    """

    step: int
    watermark: int
    version: int
    task_set_sha256: str
    consumed: list[str] = field(default_factory=list)
    versions: dict[int, int] = field(default_factory=dict)
    counters: Counters = field(default_factory=Counters)
    metrics: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    time: float = 0.0


class Checkpoints:
    """The checkpoints of one run below its directory."""

    def __init__(self, directory: Path) -> None:
        """Use `directory`, made when missing."""
        self._root = directory
        self._root.mkdir(parents=True, exist_ok=True)

    def directory(self, step: int) -> Path:
        """Where the checkpoint of `step` lies."""
        return self._root / f"step-{step:08d}"

    def latest(self) -> Progress | None:
        """The newest committed progress; None before the first.

        Raises:
            CheckpointError: LATEST names what is not there or cannot be read.
        """
        pointer = self._root / _LATEST
        if not pointer.exists():
            return None
        state = self._root / pointer.read_text(encoding="utf-8").strip() / _STATE
        try:
            return _progress(json.loads(state.read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{state}: {error!r}", file=state) from error

    async def commit(self, progress: Progress, save: Callable[[Path], Awaitable[None]]) -> None:
        """Write a checkpoint: the files of `save` and the progress, then the pointer; older ones go."""
        scratch = self._root / f".tmp-{progress.step:08d}"
        target = self.directory(progress.step)
        for left_over in (scratch, target):  # of a try that died before its pointer
            if left_over.exists():
                shutil.rmtree(left_over)
        scratch.mkdir()
        await save(scratch)
        state = {"schema": _SCHEMA, **asdict(progress)}
        (scratch / _STATE).write_text(json.dumps(state, indent=1), encoding="utf-8")
        for path in [*scratch.iterdir(), scratch]:
            sync(path)
        scratch.rename(target)
        sync(self._root)
        _replace(self._root / _LATEST, target.name)
        for old in sorted(self._root.glob("step-*"))[:-_KEEP]:
            shutil.rmtree(old)

    def published(self, step: int) -> bool:
        """Whether the version of `step` was announced and its events acknowledged."""
        return (self.directory(step) / _PUBLISHED).exists()

    def mark_published(self, step: int) -> None:
        """Say so."""
        _replace(self.directory(step) / _PUBLISHED, "")


def _progress(data: dict[str, Any]) -> Progress:
    schema = data.pop("schema")
    if schema != _SCHEMA:
        raise ValueError(f"schema {schema}, this trainer reads {_SCHEMA}")
    data["counters"] = Counters(**data["counters"])
    data["versions"] = {int(version): int(update) for version, update in data["versions"].items()}
    return Progress(**data)


def _replace(path: Path, text: str) -> None:
    scratch = path.with_name(f".{path.name}.tmp")
    scratch.write_text(text, encoding="utf-8")
    sync(scratch)
    scratch.rename(path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Make a file or directory survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
