"""The directory where a local suite keeps everything: logs, data, and what is known of it.

Invariant: two suites with two homes share nothing, no port and no file.
"""

import os
from dataclasses import dataclass
from pathlib import Path

VARIABLE = "WIDESEEK_HOME"


@dataclass(frozen=True)
class Home:
    """The paths below one directory."""

    root: Path

    @classmethod
    def here(cls) -> "Home":
        """WIDESEEK_HOME, or `.wideseek` in the current directory."""
        return cls(Path(os.environ.get(VARIABLE) or ".wideseek").absolute())

    @property
    def state(self) -> Path:
        """What is known of the suite."""
        return self.root / "suite.json"

    @property
    def lock(self) -> Path:
        """Held by the supervisor while it lives."""
        return self.root / "suite.lock"

    @property
    def logs(self) -> Path:
        """One file a part."""
        return self.root / "logs"

    def log(self, part: str) -> Path:
        """The log of a part."""
        return self.logs / f"{part}.log"

    def data(self, part: str) -> Path:
        """The directory of a part's data."""
        return self.root / "data" / part

    def make(self) -> None:
        """Create the directories."""
        self.logs.mkdir(parents=True, exist_ok=True)
        (self.root / "data").mkdir(exist_ok=True)
