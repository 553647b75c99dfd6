"""The lead as a process: help, a wrong setting, a NATS that comes late, SIGTERM."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from wideseek.lead.v1 import lead_service_pb2 as pb
from wideseek.lead.v1 import lead_service_pb2_grpc as pb_grpc
from wideseek_kit.channels import open_channel
from wideseek_kit.testing import NatsServer, eventually
from wideseek_lead.servicer import SERVICE

if TYPE_CHECKING:
    from tests.conftest import World

SERVING = health_pb2.HealthCheckResponse.SERVING


async def start(environment: Mapping[str, str], *arguments: str) -> Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "wideseek_lead",
        *arguments,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def test_help_lists_the_settings() -> None:
    process = await start({}, "--help")
    out, _ = await process.communicate()
    assert process.returncode == 0
    assert b"WIDESEEK_LEAD_NATS_URL" in out


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"WIDESEEK_LEAD_MAX_TURNS": "0"}, b"WIDESEEK_LEAD_MAX_TURNS='0'"),
        ({"WIDESEEK_LEAD_PROMPT_PACK": "nowhere"}, b"WIDESEEK_LEAD_PROMPT_PACK='nowhere'"),
    ],
)
async def test_a_wrong_setting_is_one_line(environment: dict[str, str], told: bytes) -> None:
    process = await start(environment)
    _, error = await process.communicate()
    assert process.returncode != 0
    assert told in error
    assert b"Traceback" not in error


async def test_a_lead_waits_for_nats_runs_an_episode_and_closes_it_at_sigterm(tmp_path: Path, world: "World") -> None:
    late = NatsServer(tmp_path / "nats")
    world.subagents.hold = asyncio.Event()
    port_file = tmp_path / "port"
    names = {"listen": "127.0.0.1:0", "port_file": str(port_file), "nats_url": late.url, "drain_grace": "1"}
    names |= {name: world.settings[name] for name in ("inference", "subagent", "prompt_pack")}
    process = await start({f"WIDESEEK_LEAD_{name.upper()}": value for name, value in names.items()})
    try:
        await eventually(port_file.exists, 30)
        async with open_channel(f"127.0.0.1:{port_file.read_text()}") as channel:
            health = health_pb2_grpc.HealthStub(channel)
            ask = health_pb2.HealthCheckRequest(service=SERVICE)
            assert (await health.Check(ask)).status != SERVING
            await asyncio.to_thread(late.start)
            async with asyncio.timeout(30):
                while (await health.Check(ask)).status != SERVING:  # noqa: ASYNC110 -- another process
                    await asyncio.sleep(0.05)
            lead = pb_grpc.LeadServiceStub(channel)
            made = (await lead.CreateEpisode(pb.CreateEpisodeRequest(question="q"))).episode
            await eventually(lambda: world.subagents.active == 2)
            watching = lead.WatchEpisode(pb.WatchEpisodeRequest(episode_id=made.episode_id))
            await anext(aiter(watching))
            process.send_signal(signal.SIGTERM)
            parts = [part async for part in watching]  # the drain lets the watcher see the end
            assert parts[-1].finished.error.message == "the lead that ran the episode was shut down"
            with pytest.raises(grpc.aio.AioRpcError):
                await lead.GetEpisode(pb.GetEpisodeRequest(episode_id=made.episode_id), timeout=3)
        _, error = await asyncio.wait_for(process.communicate(), 20)
        assert process.returncode == 0, error.decode()
        assert b"Traceback" not in error, error.decode()
        assert world.subagents.cancelled == 2
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        late.stop()
