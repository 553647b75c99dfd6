"""What happens to episodes when NATS goes away, a lead dies or stops, or a newer lead has written to the log."""

import asyncio
from typing import TYPE_CHECKING

import pytest
from google.protobuf import timestamp_pb2
from grpc import aio
from wideseek.events.v1 import trajectory_pb2 as events
from wideseek.lead.v1 import lead_service_pb2 as pb
from wideseek_contract.episodes import subject
from wideseek_kit.errors import from_rpc_error
from wideseek_kit.testing import eventually

if TYPE_CHECKING:
    from tests.conftest import Replica, World

E = pb.Episode


async def until_ended(replica: "Replica", episode_id: str, seconds: float = 20.0) -> pb.Episode:
    async with asyncio.timeout(seconds):
        while (episode := await replica.get(episode_id)).state == E.STATE_RUNNING:  # noqa: ASYNC110 -- asks the service
            await asyncio.sleep(0.02)
    return episode


async def abandon(replica: "Replica", monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop a lead as a crash does: nothing is told to anybody any more."""
    keeper = replica.lead.keeper
    for running in keeper._running.values():
        monkeypatch.setattr(running.journal, "flush", asyncio.Event().wait)
        monkeypatch.setattr(running.journal, "_put", lambda event: None)
    renewals = [task for task in asyncio.all_tasks() if "Keeper._renew" in repr(task.get_coro())]
    for task in renewals:
        task.cancel()


async def test_nats_goes_away_in_mid_episode_and_all_events_arrive(world: "World") -> None:
    world.subagents.hold = asyncio.Event()
    world.subagents.turns = 3
    async with world.replica() as lead:
        episode_id = (await lead.create()).episode_id
        await eventually(lambda: world.subagents.active == 2)
        await asyncio.to_thread(world.nats.stop)
        world.subagents.hold.set()  # the episode goes on to its end without NATS
        await eventually(lambda: len(world.inference.requests) == 2)
        await eventually(lambda: lead.lead.keeper._backlog.waiting > 0)
        await asyncio.sleep(0.3)
        await asyncio.to_thread(world.nats.start)
        await lead.lead.canceller._bus.connected(20)
        ended = await until_ended(lead, episode_id)
        assert ended.state == E.STATE_SUCCEEDED
        log = await lead.log(episode_id)
        assert [event.sequence for event in log] == list(range(1, ended.last_sequence + 1))
        expected = {entry.agent_id: entry.turns for entry in log[-1].episode_finished.expected}
        assert expected == {"lead": 2, "s1": 3, "s2": 3}
        found = [event.turn.agent_id for event in log if event.HasField("turn")]
        assert {agent: found.count(agent) for agent in expected} == expected
        assert lead.lead.keeper._backlog.waiting == 0


async def test_events_that_wait_are_bounded_and_hold_the_episode_back(world: "World") -> None:
    world.subagents.hold = asyncio.Event()
    world.subagents.turns = 400
    async with world.replica(backlog_bytes=1 << 16) as lead:
        episode_id = (await lead.create()).episode_id
        await eventually(lambda: world.subagents.active == 2)
        await asyncio.to_thread(world.nats.stop)
        backlog = lead.lead.keeper._backlog
        await eventually(lambda: backlog.waiting >= 1 << 16)
        world.subagents.hold.set()
        await asyncio.sleep(0.3)
        assert backlog.waiting < (1 << 16) + 8192  # an event more for each agent at most
        assert len(world.inference.requests) == 1
        await asyncio.to_thread(world.nats.start)
        await lead.lead.canceller._bus.connected(20)
        ended = await until_ended(lead, episode_id)
        assert ended.usage.turns == 802
        log = await lead.log(episode_id)
        assert [event.sequence for event in log] == list(range(1, ended.last_sequence + 1))


async def test_nats_away_at_create_is_told(world: "World") -> None:
    async with world.replica() as lead:
        await lead.stub.ListEpisodes(pb.ListEpisodesRequest())
        await asyncio.to_thread(world.nats.stop)
        request = pb.CreateEpisodeRequest(question="q")
        with pytest.raises(aio.AioRpcError) as caught:
            await lead.stub.CreateEpisode(request, timeout=30)
        error = from_rpc_error(caught.value)
        assert (error.code.name, error.reason) == ("UNAVAILABLE", "NATS_UNAVAILABLE")
        assert len(lead.lead.keeper) == 0
        await asyncio.to_thread(world.nats.start)
        await lead.lead.canceller._bus.connected(20)
        assert (await lead.ended((await lead.create()).episode_id)).state == E.STATE_SUCCEEDED


async def test_an_episode_of_a_dead_lead_is_closed_once(world: "World", monkeypatch: pytest.MonkeyPatch) -> None:
    world.subagents.hold = asyncio.Event()
    short = {"lease_ttl": 0.6}
    async with world.replica(**short) as second, world.replica(**short) as third, world.replica(**short) as first:
        episode_id = (await first.create()).episode_id
        await eventually(lambda: world.subagents.active == 2)
        watching = asyncio.create_task(second.watch(episode_id))
        await asyncio.sleep(0.2)
        await abandon(first, monkeypatch)
        first.lead.sweeper._holds = lambda _: True
        ended = (await watching)[-1].finished
        assert ended.state == E.STATE_FAILED
        assert ended.stop_reason == events.STOP_REASON_LEAD_LOST
        assert ended.error.message == "the lead that ran the episode is gone"
        assert ended.usage.turns == 2  # the subagents'; the lead's first had not ended
        assert not ended.HasField("answer")
        log = await third.log(episode_id)
        assert [event.sequence for event in log] == list(range(1, ended.last_sequence + 1))
        assert [event.HasField("episode_finished") for event in log].count(True) == 1
        finished = log[-1].episode_finished
        assert {entry.agent_id: entry.turns for entry in finished.expected} == {"lead": 0, "s1": 1, "s2": 1}
        await asyncio.sleep(0.8)
        assert await third.get(episode_id) == ended
        first.lead.keeper._given_up.set()


async def test_a_lead_that_lost_its_episode_writes_nothing_behind_the_end(world: "World") -> None:
    world.subagents.hold = asyncio.Event()
    async with world.replica() as first, world.replica() as second:
        episode_id = (await first.create()).episode_id
        await eventually(lambda: world.subagents.active == 2)
        await eventually(lambda: first.lead.keeper._backlog.waiting == 0)
        await second.lead.sweeper.close(episode_id)  # as if the first were cut off, its lease gone
        world.subagents.hold.set()
        await eventually(lambda: len(first.lead.keeper) == 0)
        ended = await second.get(episode_id)
        assert ended.stop_reason == events.STOP_REASON_LEAD_LOST
        log = await second.log(episode_id)
        assert log[-1].HasField("episode_finished")
        assert len(log) == ended.last_sequence


async def test_an_end_that_only_the_log_knows_is_taken_from_there(world: "World") -> None:
    async with world.replica() as lead:
        episode_id = (await lead.create()).episode_id
        ended = await lead.ended(episode_id)
        bucket = lead.lead.keeper._store._episodes
        running = pb.Episode()
        running.CopyFrom(ended)
        for name in ("answer", "end_time", "error", "usage", "last_sequence", "stop_reason"):
            running.ClearField(name)
        running.state = E.STATE_RUNNING
        await bucket.put(episode_id, running.SerializeToString())
        await lead.lead.sweeper.close(episode_id)
        again = await lead.get(episode_id)
        assert (again.state, again.answer, again.usage) == (ended.state, ended.answer, ended.usage)
        assert (again.stop_reason, again.last_sequence) == (ended.stop_reason, ended.last_sequence)


async def test_no_episode_is_swept_right_after_nats_was_away(world: "World") -> None:
    async with world.replica() as lead:
        await lead.stub.ListEpisodes(pb.ListEpisodesRequest())
        sweeper = lead.lead.sweeper
        sweeper._quiet_until = None
        await lead.lead.keeper._store._running.put("0123", b"gone")
        assert await sweeper.sweep() == []
        assert await sweeper.sweep() == []
        sweeper._quiet_until = 0.0
        assert await sweeper.sweep() == []  # a suspect now
        assert await sweeper.sweep() == ["0123"]
        assert await lead.lead.keeper._store.orphans() == []


async def test_a_draining_lead_lets_episodes_end(world: "World") -> None:
    world.subagents.hold = asyncio.Event()
    async with world.replica() as second:
        async with world.replica() as first:
            episode_id = (await first.create()).episode_id
            await eventually(lambda: world.subagents.active == 2)
            first.lead.keeper.drain(10)
            with pytest.raises(aio.AioRpcError) as caught:
                await first.stub.CreateEpisode(pb.CreateEpisodeRequest(question="q"))
            assert from_rpc_error(caught.value).reason == "LEAD_DRAINING"
            world.subagents.hold.set()
        assert (await second.get(episode_id)).state == E.STATE_SUCCEEDED


async def test_a_lead_that_stops_closes_its_episodes(world: "World") -> None:
    world.subagents.hold = asyncio.Event()
    async with world.replica() as second:
        async with world.replica() as first:
            episode_id = (await first.create()).episode_id
            await eventually(lambda: world.subagents.active == 2)
            first.lead.keeper.drain(0.1)
        ended = await second.get(episode_id)
        assert ended.state == E.STATE_FAILED
        assert ended.stop_reason == events.STOP_REASON_LEAD_LOST
        assert ended.error.message == "the lead that ran the episode was shut down"
        log = await second.log(episode_id)
        assert log[-1].HasField("episode_finished")
        assert world.subagents.cancelled == 2


async def test_a_lead_stops_though_nats_is_away(world: "World", monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wideseek_lead.keeper._CLOSE_SECONDS", 0.3)
    world.subagents.hold = asyncio.Event()
    async with world.replica() as lead:
        await lead.create()
        await eventually(lambda: world.subagents.active == 2)
        await asyncio.to_thread(world.nats.stop)
    assert len(lead.lead.keeper) == 0


async def test_events_of_a_newer_schema_are_passed_over(world: "World") -> None:
    async with world.replica() as lead:
        episode_id = (await lead.create()).episode_id
        before = await lead.watch(episode_id)
        newer = events.TrajectoryEvent(
            schema_version=99, event_id="newer", episode_id=episode_id, sequence=7, time=timestamp_pb2.Timestamp()
        )
        await lead.lead.canceller._bus.publish(subject(episode_id), newer.SerializeToString(), "newer")
        assert (await lead.watch(episode_id))[1:] == before[1:]
        assert lead.lead.servicer._reader.newer == 1
