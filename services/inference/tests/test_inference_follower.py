"""Following the announced version over a real NATS server, with a fake engine."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from wideseek.events.v1 import policy_pb2 as pb
from wideseek_contract.policies import BUCKET, CURRENT, WEIGHTS, publish_directory
from wideseek_inference.adapters.follower import Follower
from wideseek_inference.adapters.weights import PolicyStore, read_layout
from wideseek_inference.core.swap import Fetched, Swapper, Wanted
from wideseek_inference.testing import Tiny
from wideseek_kit.bus import Bus, open_bus
from wideseek_kit.serve import Readiness
from wideseek_kit.testing import NatsServer, eventually, nats_server


class FakeEngine:
    def __init__(self) -> None:
        self.loads: list[Path] = []
        self.faults = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def pause(self) -> None: ...

    async def resume(self) -> None: ...

    async def label(self, version: int) -> None: ...

    async def load(self, directory: Path) -> None:
        await self.gate.wait()
        if self.faults > 0:
            self.faults -= 1
            raise RuntimeError("out of memory")
        self.loads.append(directory)


class Replica:
    def __init__(self, tiny: Tiny, root: Path, bus: Bus) -> None:
        self.engine = FakeEngine()
        self.swapper = Swapper(self.engine, PolicyStore(root), Fetched(0, tiny.a, read_layout(tiny.a)))
        self.readiness = Readiness(["x"])
        self.follower = Follower(bus, self.swapper, self.readiness, backoff=0.1)

    @property
    def served(self) -> int:
        return self.swapper.state.served_version

    @property
    def fault(self) -> str:
        return self.readiness.faults.get("policy", "")

    async def until(self, version: int) -> None:
        await eventually(lambda: self.served == version and not self.fault)


@pytest.fixture
def server() -> Iterator[NatsServer]:
    with nats_server() as running:
        yield running


@pytest.fixture
async def bus(server: NatsServer) -> AsyncIterator[Bus]:
    async with open_bus(server.url, "test") as opened:
        yield opened


@contextlib.asynccontextmanager
async def following(replica: Replica) -> AsyncIterator[None]:
    task = asyncio.create_task(replica.follower.run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def announce(bus: Bus, wanted: Wanted, schema: int = 1) -> None:
    await bus.connected(5)
    time = Timestamp()
    time.GetCurrentTime()
    announcement = pb.PolicyAnnouncement(
        schema_version=schema,
        version=wanted.version,
        uri=wanted.uri,
        manifest_sha256=wanted.manifest_sha256,
        time=time,
    )
    await (await bus.bucket(BUCKET, history=16)).put(CURRENT, announcement.SerializeToString())


async def test_without_an_announcement_the_first_weights_are_current(tiny: Tiny, tmp_path: Path, bus: Bus) -> None:
    replica = Replica(tiny, tmp_path, bus)
    async with following(replica):
        await asyncio.sleep(0)
        assert replica.fault == "the announced policy version is not known yet"
        await replica.until(0)
    assert replica.engine.loads == []


async def test_a_replica_that_joins_is_not_ready_until_it_is_current(tiny: Tiny, tmp_path: Path, bus: Bus) -> None:
    await announce(bus, tiny.wanted(tiny.b, 201))
    replica = Replica(tiny, tmp_path, bus)
    replica.engine.gate.clear()
    async with following(replica):
        await eventually(lambda: replica.swapper.state.paused)
        assert replica.fault
        replica.engine.gate.set()
        await replica.until(201)


async def test_announcements_are_followed_forth_and_back(tiny: Tiny, tmp_path: Path, bus: Bus) -> None:
    replica = Replica(tiny, tmp_path, bus)
    async with following(replica):
        for wanted in (tiny.wanted(tiny.a, 211), tiny.wanted(tiny.b, 212), tiny.wanted(tiny.a, 211), Wanted(0, "")):
            await announce(bus, wanted)
            await replica.until(wanted.version)
    assert replica.swapper.state.swaps == 4
    assert replica.engine.loads[-1] == tiny.a


async def test_a_number_that_is_given_again_is_loaded_again(tiny: Tiny, tmp_path: Path, bus: Bus) -> None:
    replica = Replica(tiny, tmp_path, bus)
    first = tiny.wanted(tiny.a, 215)
    second = Wanted(215, first.uri + "-again", publish_directory(first.uri + "-again", 215, {WEIGHTS: b_weights(tiny)}))
    async with following(replica):
        await announce(bus, first)
        await replica.until(215)
        await announce(bus, second)
        await eventually(lambda: len(replica.engine.loads) == 2)
        await eventually(lambda: replica.swapper.serves(second))


def b_weights(tiny: Tiny) -> bytes:
    return (tiny.b / WEIGHTS).read_bytes()


async def test_of_a_rapid_series_only_the_newest_is_loaded(tiny: Tiny, tmp_path: Path, bus: Bus) -> None:
    replica = Replica(tiny, tmp_path, bus)
    series = [tiny.wanted(tiny.b, version) for version in range(221, 231)]
    async with following(replica):
        await replica.until(0)
        replica.engine.gate.clear()
        await announce(bus, series[0])
        await eventually(lambda: replica.swapper.state.paused)
        for wanted in series[1:]:
            await announce(bus, wanted)
        await eventually(lambda: replica.follower._wanted == series[-1])
        replica.engine.gate.set()
        await replica.until(230)
    assert [path.name.split("-")[0] for path in replica.engine.loads] == ["221", "230"]


async def test_a_rejected_version_leaves_a_current_replica_ready(tiny: Tiny, tmp_path: Path, bus: Bus) -> None:
    replica = Replica(tiny, tmp_path, bus)
    async with following(replica):
        await announce(bus, tiny.wanted(tiny.b, 241))
        await replica.until(241)
        await announce(bus, tiny.misshapen(242))
        await eventually(lambda: replica.swapper.state.failed_swaps == 1)
        state = replica.swapper.state
        assert (state.served_version, state.announced_version, replica.fault) == (241, 242, "")
        assert "the model has" in state.last_error
        await announce(bus, tiny.wanted(tiny.b, 243))
        await replica.until(243)
        assert replica.swapper.state.failed_swaps == 1


async def test_a_rejected_version_keeps_a_replica_out_that_was_never_current(
    tiny: Tiny, tmp_path: Path, bus: Bus
) -> None:
    await announce(bus, tiny.misshapen(251))
    replica = Replica(tiny, tmp_path, bus)
    async with following(replica):
        await eventually(lambda: "version 251 is announced: tensor" in replica.fault)
        assert replica.served == 0


async def test_a_load_that_fails_here_is_tried_again(tiny: Tiny, tmp_path: Path, bus: Bus) -> None:
    replica = Replica(tiny, tmp_path, bus)
    async with following(replica):
        await replica.until(0)
        replica.engine.faults = 1
        await announce(bus, tiny.wanted(tiny.b, 261))
        await eventually(lambda: "version 0 is served, version 261 is announced: load failed" in replica.fault)
        await replica.until(261)
    assert replica.swapper.state.failed_swaps == 1


async def test_an_announcement_of_a_newer_schema_is_left_alone(
    tiny: Tiny, tmp_path: Path, bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    replica = Replica(tiny, tmp_path, bus)
    async with following(replica):
        await replica.until(0)
        await announce(bus, tiny.wanted(tiny.b, 271), schema=2)
        await eventually(lambda: "schema 2 > 1" in caplog.text)
        await announce(bus, tiny.wanted(tiny.b, 272))
        await replica.until(272)
    assert len(replica.engine.loads) == 1


async def test_nats_may_be_down_at_start_and_go_away(tiny: Tiny, tmp_path: Path) -> None:
    with nats_server() as server:
        server.stop()
        async with open_bus(server.url, "test") as bus:
            replica = Replica(tiny, tmp_path, bus)
            async with following(replica):
                await eventually(lambda: f"NATS at {server.url} is out of reach" in replica.fault)
                server.start()
                await announce(bus, tiny.wanted(tiny.b, 281))
                await replica.until(281)
                server.stop()
                await asyncio.sleep(0.5)
                assert (replica.served, replica.fault) == (281, "")
                server.start()
                await announce(bus, tiny.wanted(tiny.b, 282))
                await replica.until(282)
