"""One part as a process: started with its log in a file, stopped with everything it started."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from wideseek_cli.suite import tether


@dataclass(frozen=True)
class Part:
    """What the supervisor is to run.

    Attributes:
        name: for people and for the log's name.
        command: program and arguments.
        environment: added to the supervisor's own.
        port: where it listens, for showing; 0: nowhere.
        ready: tells whether it can work; may raise OSError while it cannot be reached.
        starts_after: parts that must be ready first.
        needs: parts that it works with until it has stopped; they are stopped after it.
    """

    name: str
    command: Sequence[str]
    ready: Callable[[], Awaitable[bool]]
    port: int = 0
    environment: Mapping[str, str] = field(default_factory=dict)
    starts_after: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()


async def spawn(part: Part, log: Path) -> asyncio.subprocess.Process:
    """Start a part; it ends when this process does.

    Raises:
        OSError: the interpreter cannot be started; a missing program shows in the log and ends the part.
    """
    with log.open("ab") as target:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-IS", str(Path(tether.__file__)), str(os.getpid())),
            *part.command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=target,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, **part.environment},
            start_new_session=True,
        )


def family(pid: int) -> list[psutil.Process]:
    """The processes that `pid` started, and those that they did."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).children(recursive=True)
    return []


async def stop(process: asyncio.subprocess.Process, seconds: float) -> bool:
    """Ask a part to end, and make it after `seconds`; whether it ended by itself. Nothing that it started stays."""
    children = family(process.pid)
    by_itself = True
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), seconds)
        except TimeoutError:
            by_itself = False
    await end_family(process, children)
    return by_itself


async def end_family(process: asyncio.subprocess.Process, children: Sequence[psutil.Process]) -> None:
    """Kill what is left of a part: its session's group and the given descendants."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    for child in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    await process.wait()
