"""The supervisor with small parts of its own: order, death, restart, nothing left behind."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import psutil
import pytest
from wideseek_cli.home import Home
from wideseek_cli.suite.control import SuiteError, clear_stale, current, down, sole_supervisor
from wideseek_cli.suite.process import Part
from wideseek_cli.suite.state import PartPhase, PartState, Phase, Process, SuiteState, read_state
from wideseek_cli.suite.supervisor import Limits, StartFailedError, Supervisor
from wideseek_client import Endpoints

FAST = Limits(start=20, probe=0.02, stop=0.5, backoff=0.05, max_restarts=2)

#: Writes when it starts and when it stops, then ends; its argument is its name.
PART = """
import pathlib, signal, sys, time
here, name = pathlib.Path(sys.argv[1]), sys.argv[2]
def note(text):
    with (here / "events").open("a") as f: f.write(f"{name} {text}\\n")
def stop(*_):
    note("stopped"); sys.exit(0)
signal.signal(signal.SIGTERM, stop)
note("started")
(here / f"{name}.ready").touch()
time.sleep(600)
"""


class Stage:
    """A directory, the parts in it, and a supervisor of them."""

    def __init__(self, root: Path) -> None:
        self.home = Home(root)
        self.home.make()
        self.parts: list[Part] = []
        self.told: list[tuple[str, PartPhase]] = []
        self.stop = asyncio.Event()
        self.state: SuiteState | None = None

    def add(self, name: str, code: str = PART, *, needs: tuple[str, ...] = (), after: tuple[str, ...] = ()) -> None:
        command = [sys.executable, "-S", "-c", code, str(self.home.root), name]
        self.parts.append(Part(name, command, self._ready(name), starts_after=after, needs=needs))

    def _ready(self, name: str) -> Callable[[], Awaitable[bool]]:
        async def ready() -> bool:
            return (self.home.root / f"{name}.ready").exists()

        return ready

    def run(self, limits: Limits = FAST) -> "asyncio.Task[None]":
        states = [PartState(part.name, 0, str(self.home.log(part.name))) for part in self.parts]
        self.state = SuiteState(Process.of(os.getpid()), "model", Endpoints(), "nats://", states)
        return asyncio.create_task(Supervisor(self.parts, self.state, self._tell, limits).run(self.stop))

    def _tell(self, state: SuiteState) -> None:
        self.told = [(part.name, part.phase) for part in state.parts]
        state.write(self.home.state)

    @property
    def known(self) -> SuiteState:
        assert self.state is not None
        return self.state

    async def until(self, condition: Callable[[SuiteState], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition(self.known):  # noqa: ASYNC110 -- the state belongs to the code under test
                await asyncio.sleep(0.01)

    def events(self) -> list[str]:
        return (self.home.root / "events").read_text().split("\n")[:-1]

    def pids(self) -> list[int]:
        return [part.process.pid for part in self.known.parts if part.process]


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def is_ready(state: SuiteState) -> bool:
    return state.phase is Phase.READY


async def test_parts_start_and_stop_in_the_order_of_use(stage: Stage) -> None:
    stage.add("base")
    stage.add("user", needs=("base",), after=("base",))
    running = stage.run()
    await stage.until(is_ready)
    stage.stop.set()
    await running
    assert stage.events() == ["base started", "user started", "user stopped", "base stopped"]
    assert [part.phase for part in stage.known.parts] == [PartPhase.STOPPED, PartPhase.STOPPED]
    assert not any(psutil.pid_exists(pid) for pid in stage.pids())


async def test_a_part_that_dies_at_start_is_named_with_the_end_of_its_log(stage: Stage) -> None:
    stage.add("good")
    stage.add("bad", "print('first'); print('no such model: atlas'); raise SystemExit(3)")
    with pytest.raises(StartFailedError) as caught:
        await stage.run()
    assert str(caught.value).startswith("bad ended with status 3; the end of ")
    assert "no such model: atlas" in str(caught.value)
    assert stage.known.phase is Phase.FAILED
    assert stage.known.fault == str(caught.value)
    assert not any(psutil.pid_exists(pid) for pid in stage.pids())


async def test_a_part_that_is_never_ready_is_named(stage: Stage) -> None:
    stage.add("good")
    stage.add("slow", "import time; print('loading', flush=True); time.sleep(600)")
    with pytest.raises(StartFailedError, match=r"slow is not ready after 0\.5 s; the end of .*\n    loading"):
        await stage.run(Limits(start=0.5, probe=0.02, stop=0.5))
    assert not any(psutil.pid_exists(pid) for pid in stage.pids())


async def test_a_part_that_dies_later_starts_again_until_it_is_given_up(stage: Stage) -> None:
    stage.add("one")
    stage.add("other")
    running = stage.run()
    await stage.until(is_ready)
    other = stage.known.part("other")
    for restarts in (1, 2, 3):
        assert other.process is not None
        os.kill(other.process.pid, signal.SIGKILL)
        if restarts <= FAST.max_restarts:
            await stage.until(lambda _, n=restarts: other.restarts == n and other.phase is PartPhase.READY)  # type: ignore[misc]
    await stage.until(lambda _: other.phase is PartPhase.DEAD)
    assert other.fault == "ended with status -9; restarted in vain"
    assert stage.known.part("one").phase is PartPhase.READY
    stage.stop.set()
    await running
    assert other.restarts == FAST.max_restarts
    assert other.phase is PartPhase.DEAD


async def test_a_part_that_will_not_end_is_killed_with_what_it_started(stage: Stage) -> None:
    code = """
import pathlib, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"], start_new_session=True)
(pathlib.Path(sys.argv[1]) / "child").write_text(str(child.pid))
(pathlib.Path(sys.argv[1]) / "deaf.ready").touch()
time.sleep(600)
"""
    stage.add("deaf", code)
    running = stage.run()
    await stage.until(is_ready)
    child = int((stage.home.root / "child").read_text())
    stage.stop.set()
    await running
    assert stage.known.part("deaf").fault == "killed after 0.5 s"
    await stage.until(lambda _: not Process(child, 0.0).alive())
    assert not psutil.pid_exists(stage.pids()[0])


SUPERVISED = """
import asyncio, os, pathlib, sys
from wideseek_cli.home import Home
from wideseek_cli.suite.process import Part
from wideseek_cli.suite.state import PartState, Process, SuiteState
from wideseek_cli.suite.supervisor import Limits, Supervisor
from wideseek_client import Endpoints
import signal

home = Home(pathlib.Path(sys.argv[1]))
home.make()
async def ready(): return True
async def main():
    part = Part("part", [sys.executable, "-S", "-c", "import time; time.sleep(600)"], ready)
    state = SuiteState(Process.of(os.getpid()), "m", Endpoints(), "", [PartState("part", 0, str(home.log("part")))])
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await Supervisor([part], state, lambda s: s.write(home.state), Limits()).run(stop)
asyncio.run(main())
"""


def _supervised(home: Home) -> "subprocess.Popen[bytes]":
    supervisor = subprocess.Popen([sys.executable, "-c", SUPERVISED, str(home.root)])
    for _ in range(1000):
        state = read_state(home.state)
        if state is not None and state.phase is Phase.READY:
            return supervisor
        time.sleep(0.02)
    supervisor.kill()
    raise AssertionError("the supervisor did not get ready")


def test_down_ends_everything(tmp_path: Path) -> None:
    home = Home(tmp_path)
    with _supervised(home) as supervisor:
        state = current(home)
        assert state is not None
        # It is this test's child, so it stays a zombie until waited for, which counts as ended.
        assert down(home) == ["stopped 1 parts"]
        assert supervisor.wait(10) == 0
    assert not state.leftovers()
    assert not home.state.exists()
    assert down(home) == []


def test_a_part_dies_with_its_supervisor(tmp_path: Path) -> None:
    home = Home(tmp_path)
    with _supervised(home) as supervisor:
        state = read_state(home.state)
        assert state is not None
        supervisor.kill()
        supervisor.wait()
        deadline = time.monotonic() + 10
        while state.leftovers() and time.monotonic() < deadline:
            time.sleep(0.02)
    assert not state.leftovers()
    assert current(home) is None
    assert clear_stale(home)[0].startswith("cleared what was left of a suite that is gone")
    assert clear_stale(home) == []


def test_a_state_from_before_a_reboot_is_stale(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.make()
    someone = Process(os.getpid(), 12345.0)  # the same id, another start time
    part = PartState("part", 0, "log", PartPhase.READY, someone)
    SuiteState(someone, "m", Endpoints(), "", [part], Phase.READY).write(home.state)
    assert current(home) is None
    assert down(home) == [f"cleared what was left of a suite that is gone (supervisor {os.getpid()})"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 99}'])
def test_a_state_file_that_is_none_counts_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "suite.json").write_text(text)
    assert read_state(tmp_path / "suite.json") is None


def test_a_home_has_one_supervisor(tmp_path: Path) -> None:
    home = Home(tmp_path)
    with sole_supervisor(home), pytest.raises(SuiteError, match="another supervisor runs"), sole_supervisor(home):
        pass
    with sole_supervisor(home):
        pass
