"""The swap's promises, with a fake engine that fails where it is told to."""

import asyncio
from pathlib import Path

import pytest
from wideseek_inference.core.layout import Tensor, WeightsRejectedError, check_layout
from wideseek_inference.core.swap import (
    Fetched,
    SwapFailedError,
    Swapper,
    SwapRunningError,
    Wanted,
    WeightsUnreachableError,
)
from wideseek_kit.testing import eventually

LAYOUT = {"w": Tensor("F32", (2, 2))}
START = Fetched(0, Path("/start"), LAYOUT)


class FakeEngine:
    """Remembers its weights and label as a real one would; `faults` maps a step to how often it is to fail."""

    def __init__(self) -> None:
        self.weights: Path | None = START.directory
        self.version = 0
        self.paused = False
        self.faults: dict[str, int] = {}
        self.steps: list[str] = []
        self.block: asyncio.Event | None = None

    async def _step(self, name: str) -> None:
        self.steps.append(name)
        if self.block is not None and name == "load":
            await self.block.wait()
        if self.faults.get(name, 0) > 0:
            self.faults[name] -= 1
            raise RuntimeError(f"{name} broke")

    async def pause(self) -> None:
        await self._step("pause")
        self.paused = True

    async def resume(self) -> None:
        await self._step("resume")
        self.paused = False

    async def load(self, directory: Path) -> None:
        assert self.paused
        self.weights = None
        await self._step("load")
        self.weights = directory

    async def label(self, version: int) -> None:
        assert self.paused
        await self._step("label")
        self.version = version


class FakeStore:
    def __init__(self) -> None:
        self.layout = dict(LAYOUT)
        self.fault: Exception | None = None
        self.there: set[Path] = set()

    def fetch(self, wanted: Wanted) -> Fetched:
        if self.fault is not None:
            raise self.fault
        directory = Path(f"/fetched/{wanted.version}")
        self.there.add(directory)
        return Fetched(int(wanted.uri), directory, self.layout)

    def discard(self, directory: Path) -> None:
        self.there.discard(directory)


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


@pytest.fixture
def swapper(engine: FakeEngine, store: FakeStore) -> Swapper:
    return Swapper(engine, store, START, step_limit=0.5)


def wanted(version: int) -> Wanted:
    return Wanted(version, str(version))


async def test_a_swap_pauses_loads_labels_and_resumes(engine: FakeEngine, store: FakeStore, swapper: Swapper) -> None:
    await swapper.update(wanted(1))
    await swapper.update(wanted(2))
    assert engine.steps == ["pause", "load", "label", "resume"] * 2
    assert (engine.weights, engine.version, engine.paused) == (Path("/fetched/2"), 2, False)
    assert store.there == {Path("/fetched/2")}
    state = swapper.state
    assert (state.served_version, state.swaps, state.failed_swaps, state.last_error) == (2, 2, 0, "")
    assert len(state.pauses) == 2


async def test_an_empty_uri_brings_the_start_back(engine: FakeEngine, store: FakeStore, swapper: Swapper) -> None:
    await swapper.update(wanted(3))
    await swapper.update(Wanted(0, ""))
    assert (engine.weights, engine.version) == (START.directory, 0)
    assert store.there == set()


@pytest.mark.parametrize("step", ["load", "label"])
async def test_a_fault_after_the_pause_restores_the_last_good_version(
    engine: FakeEngine, store: FakeStore, swapper: Swapper, step: str
) -> None:
    await swapper.update(wanted(1))
    engine.faults = {step: 1}
    with pytest.raises(SwapFailedError, match=f"{step} failed: {step} broke; version 1 serves on"):
        await swapper.update(wanted(2))
    assert (engine.weights, engine.version, engine.paused) == (Path("/fetched/1"), 1, False)
    assert store.there == {Path("/fetched/1")}
    state = swapper.state
    assert (state.served_version, state.announced_version, state.swaps, state.failed_swaps) == (1, 2, 1, 1)
    assert state.last_error.startswith("version 2: ")
    await swapper.update(wanted(3))
    assert (swapper.state.last_error, engine.version) == ("", 3)


async def test_a_pause_that_fails_touches_no_weights_and_resumes(engine: FakeEngine, swapper: Swapper) -> None:
    engine.faults = {"pause": 1}
    with pytest.raises(SwapFailedError, match="pause failed"):
        await swapper.update(wanted(1))
    assert engine.steps == ["pause", "resume"]
    assert (engine.weights, engine.version, swapper.state.served_version) == (START.directory, 0, 0)


async def test_a_step_that_hangs_is_given_up(engine: FakeEngine, swapper: Swapper) -> None:
    engine.block = asyncio.Event()
    asyncio.get_running_loop().call_later(0.7, engine.block.set)
    with pytest.raises(SwapFailedError, match="load did not end within 0.5 s; version 0 serves on"):
        await swapper.update(wanted(1))
    assert (engine.weights, engine.paused) == (START.directory, False)


async def test_two_faults_are_both_told_and_the_engine_is_not_left_paused(engine: FakeEngine, swapper: Swapper) -> None:
    engine.faults = {"load": 2}
    with pytest.raises(SwapFailedError, match="loading version 0 back failed too: load failed"):
        await swapper.update(wanted(1))
    assert not engine.paused


async def test_a_resume_that_fails_is_told(engine: FakeEngine, swapper: Swapper) -> None:
    engine.faults = {"resume": 1}
    with pytest.raises(SwapFailedError, match="resume failed"):
        await swapper.update(wanted(1))
    assert (swapper.state.paused, swapper.state.failed_swaps) == (True, 1)
    await swapper.resume()
    assert (swapper.state.paused, swapper.state.served_version, engine.version) == (False, 1, 1)


@pytest.mark.parametrize("fault", [OSError("no route"), RuntimeError("bucket policy")])
async def test_files_out_of_reach_pause_nothing(
    engine: FakeEngine, store: FakeStore, swapper: Swapper, fault: Exception
) -> None:
    store.fault = fault
    with pytest.raises(WeightsUnreachableError, match="1 could not be fetched"):
        await swapper.update(wanted(1))
    assert engine.steps == []
    assert swapper.state.failed_swaps == 1


async def test_another_layout_is_rejected_unpaused(engine: FakeEngine, store: FakeStore, swapper: Swapper) -> None:
    store.layout = {"w": Tensor("F32", (2, 3))}
    with pytest.raises(WeightsRejectedError, match=r"tensor w is F32\[2, 3\]; the model has F32\[2, 2\]"):
        await swapper.update(wanted(1))
    assert (engine.steps, store.there) == ([], set())


async def test_the_files_of_another_version_are_rejected(
    engine: FakeEngine, store: FakeStore, swapper: Swapper
) -> None:
    with pytest.raises(WeightsRejectedError, match="7 holds version 7, not 1"):
        await swapper.update(Wanted(1, "7"))
    assert (engine.steps, store.there) == ([], set())


async def test_one_swap_at_a_time(engine: FakeEngine, swapper: Swapper) -> None:
    engine.block = asyncio.Event()
    first = asyncio.create_task(swapper.update(wanted(1)))
    await eventually(lambda: "load" in engine.steps)
    with pytest.raises(SwapRunningError, match="version 2 has to wait: version 1 is being loaded"):
        await swapper.update(wanted(2))
    engine.block.set()
    await first
    assert engine.version == 1


async def test_a_caller_that_goes_away_does_not_interrupt(engine: FakeEngine, swapper: Swapper) -> None:
    engine.block = asyncio.Event()
    caller = asyncio.create_task(swapper.update(wanted(1)))
    await eventually(lambda: "load" in engine.steps)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    engine.block.set()
    await swapper.close()
    assert (engine.version, engine.paused, swapper.state.served_version) == (1, False, 1)


async def test_a_pause_by_hand_outlives_a_swap(engine: FakeEngine, swapper: Swapper) -> None:
    await swapper.pause()
    await swapper.update(wanted(1))
    assert (engine.paused, swapper.state.paused, engine.version) == (True, True, 1)
    await swapper.resume()
    assert not engine.paused


async def test_only_the_last_pauses_are_kept(swapper: Swapper) -> None:
    for version in range(1, 260):
        await swapper.update(wanted(version))
    assert len(swapper.state.pauses) == 256


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({}, r"tensor a is missing; the model has F32\[1\]"),
        ({"a": Tensor("F32", (1,)), "b": Tensor("F32", ())}, r"tensor b F32\[\] is not one of the model's 1 tensors"),
        ({"a": Tensor("BF16", (1,))}, r"tensor a is BF16\[1\]; the model has F32\[1\]"),
    ],
)
def test_the_first_difference_of_a_layout_is_named(found: dict[str, Tensor], message: str) -> None:
    with pytest.raises(WeightsRejectedError, match=message):
        check_layout({"a": Tensor("F32", (1,))}, found)
