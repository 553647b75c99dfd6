"""A suite on its way up: which part is ready, and after how long."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.status import Status

from wideseek_cli.suite.state import PartPhase, SuiteState


class Starting:
    """Told of every state; prints a line when a part changes, and says meanwhile what is waited for."""

    def __init__(self, console: Console) -> None:
        """Show nothing yet."""
        self._console = console
        self._began = time.monotonic()
        self._said: dict[str, PartPhase] = {}
        self._status: Status | None = None

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._status = self._console.status("starting")
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._status is not None:
            self._status.stop()

    def show(self, state: SuiteState) -> None:
        """Say what is new."""
        for part in state.parts:
            phase = part.phase
            if self._said.get(part.name) is phase:
                continue
            self._said[part.name] = phase
            if phase in (PartPhase.READY, PartPhase.DEAD, PartPhase.RESTARTING):
                seconds = time.monotonic() - self._began
                port = f"port {part.port}" if part.port else ""
                fault = f"  {part.fault}" if part.fault else ""
                self._console.print(f"{part.name:<10} {phase:<10} {port:<11} {seconds:5.1f} s{fault}", soft_wrap=True)
        if self._status is not None:
            waiting = [p.name for p in state.parts if p.phase in (PartPhase.WAITING, PartPhase.STARTING)]
            self._status.update(f"starting {', '.join(waiting)}")
