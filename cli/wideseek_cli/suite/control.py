"""Starting and stopping a suite from outside of its supervisor.

Invariants: one suite a home, held by a lock; whatever a crash or a reboot left behind is recognised and cleared; after
`down` no process of the suite is left.
"""

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil

from wideseek_cli.home import Home
from wideseek_cli.suite.logs import tail
from wideseek_cli.suite.parts import SuiteOptions
from wideseek_cli.suite.state import Phase, Process, SuiteState, read_state

_POLL = 0.1


class SuiteError(Exception):
    """The suite cannot be started, found or stopped; the message is for people."""


class AlreadyUpError(SuiteError):
    """A suite runs in this home; `state` is what is known of it."""

    def __init__(self, state: SuiteState, home: Home) -> None:
        """Say which."""
        super().__init__(f"the suite in {home.root} is already up (supervisor {state.supervisor.pid})")
        self.state = state


@contextmanager
def sole_supervisor(home: Home) -> Iterator[None]:
    """Hold the home's lock.

    Raises:
        SuiteError: another supervisor holds it.
    """
    home.make()
    with home.lock.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SuiteError(f"another supervisor runs in {home.root}") from None
        yield


def current(home: Home) -> SuiteState | None:
    """The suite that runs in `home`, whatever its phase; None when there is none."""
    state = read_state(home.state)
    return state if state is not None and state.running() else None


def required(home: Home) -> SuiteState:
    """The suite that is up in `home`.

    Raises:
        SuiteError: there is none, or it is not ready.
    """
    state = current(home)
    if state is None:
        raise SuiteError(f"no suite is up in {home.root}: start one with `wideseek up`")
    if state.phase is not Phase.READY:
        raise SuiteError(f"the suite in {home.root} is {state.phase}: see `wideseek status`")
    return state


def clear_stale(home: Home) -> list[str]:
    """Forget a suite whose supervisor is gone, ending what is left of it; returns what was done, for people.

    Raises:
        AlreadyUpError: it is not gone.
    """
    state = read_state(home.state)
    if state is None:
        return []
    if state.running():
        raise AlreadyUpError(state, home)
    left = state.leftovers()
    _end(left)
    home.state.unlink(missing_ok=True)
    ended = [f"ended {len(left)} processes that a dead supervisor left behind"] if left else []
    return [f"cleared what was left of a suite that is gone (supervisor {state.supervisor.pid})", *ended]


def up(home: Home, options: SuiteOptions, on_change: Callable[[SuiteState], None]) -> SuiteState:
    """Start a suite in the background and wait until it is ready; `on_change` is told how it goes.

    Raises:
        AlreadyUpError: it is up.
        SuiteError: it did not start; everything is stopped by then.
    """
    clear_stale(home)
    home.make()
    supervisor = _launch(home, options)
    try:
        state = _until_ready(home, supervisor, on_change)
    except BaseException:
        if supervisor.poll() is None:
            supervisor.terminate()
            supervisor.wait()
        raise
    supervisor.returncode = 0  # it outlives this process on purpose: nobody is to wait for it, or to warn about it
    return state


def _launch(home: Home, options: SuiteOptions) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "wideseek_cli.suite", str(home.root), options.model, options.prompt_pack]
    with home.log("supervisor").open("ab") as log:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )


def _until_ready(
    home: Home, supervisor: subprocess.Popen[bytes], on_change: Callable[[SuiteState], None]
) -> SuiteState:
    while True:
        ended = supervisor.poll() is not None
        state = read_state(home.state)
        if state is not None and state.supervisor.pid == supervisor.pid:
            on_change(state)
            if state.phase is Phase.READY and not ended:
                return state
        if ended:
            own = state is not None and state.supervisor.pid == supervisor.pid
            raise SuiteError((state.fault if own and state else "") or "\n".join(tail(home.log("supervisor"))))
        time.sleep(_POLL)


def down(home: Home, *, limit: float = 60.0) -> list[str]:
    """Stop the suite; returns what was done, for people. Nothing of it runs afterwards."""
    state = read_state(home.state)
    if state is None:
        return []
    if not state.running():
        return clear_stale(home)
    os.kill(state.supervisor.pid, signal.SIGTERM)
    done = []
    if not _wait([state.supervisor], limit):
        done.append(f"the supervisor did not end within {limit:g} s and was killed")
    left = (read_state(home.state) or state).leftovers()
    _end([state.supervisor, *left])
    home.state.unlink(missing_ok=True)
    return [*done, f"stopped {len(state.parts)} parts"]


def _wait(processes: list[Process], seconds: float) -> bool:
    give_up = time.monotonic() + seconds
    while any(process.alive() for process in processes):
        if time.monotonic() > give_up:
            return False
        time.sleep(_POLL)
    return True


def _end(processes: list[Process]) -> None:
    """Kill processes and all that they started."""
    for process in processes:
        if not process.alive():
            continue
        try:
            target = psutil.Process(process.pid)
            for victim in [*target.children(recursive=True), target]:
                victim.kill()
        except psutil.NoSuchProcess:
            continue  # it ended by itself meanwhile
    _wait(processes, 5.0)
