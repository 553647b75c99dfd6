import pytest
from google.protobuf.message import DecodeError
from wideseek.events.v1 import trajectory_pb2 as pb
from wideseek_contract import episodes
from wideseek_kit.bus import open_bus
from wideseek_kit.testing import nats_server


def test_ids_are_the_same_at_every_try_and_never_shared() -> None:
    ids = [
        episodes.event_id(episode, agent, kind, turn)
        for episode in ("e1", "e2")
        for agent in ("lead", "sub-1")
        for kind in ("turn", "closed")
        for turn in (0, 1, 11)
    ]
    assert len(set(ids)) == len(ids)
    assert episodes.event_id("e1", "lead", "turn", 3) == episodes.event_id("e1", "lead", "turn", 3)


def test_an_event_is_read_back() -> None:
    event = pb.TrajectoryEvent(schema_version=episodes.SCHEMA_VERSION, event_id="e/lead/turn/0", episode_id="e")
    assert episodes.decode(event.SerializeToString()) == event


def test_a_newer_event_is_named_and_rubbish_refused() -> None:
    newer = pb.TrajectoryEvent(schema_version=episodes.SCHEMA_VERSION + 1, event_id="e/lead/turn/0")
    with pytest.raises(episodes.NewerSchemaError, match=r"e/lead/turn/0: schema 2 > 1"):
        episodes.decode(newer.SerializeToString())
    with pytest.raises(DecodeError):
        episodes.decode(b"\xff\xff\xff")


async def test_the_stream_holds_every_episode_and_stores_an_event_once() -> None:
    with nats_server() as server:
        async with open_bus(server.url, "test", on_up=episodes.ensure_stream) as bus:
            await bus.connected(10)
            await episodes.ensure_stream(bus)
            for episode in ("e1", "e2"):
                event = pb.TrajectoryEvent(schema_version=1, event_id=f"{episode}/lead/turn/0", episode_id=episode)
                for _ in range(2):
                    await bus.publish(episodes.subject(episode), event.SerializeToString(), event.event_id)
            info = await bus.jetstream.stream_info(episodes.STREAM)
            assert (info.state.messages, info.config.max_bytes) == (2, 20 << 30)
            only = await bus.jetstream.subscribe(episodes.subject("e2"), ordered_consumer=True)
            message = await only.next_msg(5)
            assert episodes.decode(await bus.payload(message)).episode_id == "e2"
