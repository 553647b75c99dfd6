"""The figures of an experiment on disk, one file a phase.

Invariant: a file is written whole or not at all, so a phase that has one is done; that is how `learn` resumes.
"""

import json
from enum import StrEnum
from pathlib import Path
from typing import Any


class Phase(StrEnum):
    """What is measured, in the order in which it is."""

    TRAIN = "train"
    HELDOUT = "heldout"
    CURVE = "curve"
    WIDTH = "width"
    MODES = "modes"
    CONTROL = "control"


class MissingPhaseError(Exception):
    """A phase needs the figures of another one that has not run."""


class Results:
    """The figures below one directory."""

    def __init__(self, directory: Path) -> None:
        """Use `directory`, made if need be."""
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)

    def has(self, phase: Phase) -> bool:
        """Whether the phase is done."""
        return self._path(phase).exists()

    def read(self, phase: Phase) -> dict[str, Any]:
        """The figures of a phase.

        Raises:
            MissingPhaseError: it has not run.
        """
        if not self.has(phase):
            raise MissingPhaseError(f"there are no figures of phase {phase} yet: run it first (`--phase {phase}`)")
        found: dict[str, Any] = json.loads(self._path(phase).read_text())
        return found

    def write(self, phase: Phase, figures: dict[str, Any]) -> None:
        """Keep the figures of a phase."""
        scratch = self._path(phase).with_suffix(".tmp")
        scratch.write_text(json.dumps(figures, indent=1))
        scratch.replace(self._path(phase))

    def all(self) -> dict[str, Any]:
        """The figures of every phase that is done, by its name."""
        return {phase.value: self.read(phase) for phase in Phase if self.has(phase)}

    def _path(self, phase: Phase) -> Path:
        return self._directory / f"{phase}.json"
