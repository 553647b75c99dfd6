"""The service as a process of its own: start, follow, drain, and what a wrong setting says."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from wideseek.events.v1 import policy_pb2
from wideseek.inference.v1 import inference_service_pb2 as pb
from wideseek.inference.v1 import inference_service_pb2_grpc as rpc
from wideseek.inference.v1 import weight_service_pb2 as weights_pb
from wideseek.inference.v1 import weight_service_pb2_grpc as weights_rpc
from wideseek_contract.policies import BUCKET, CURRENT
from wideseek_inference.servicer import SERVICE_NAME
from wideseek_inference.testing import Tiny
from wideseek_kit.bus import open_bus
from wideseek_kit.channels import calling, open_channel
from wideseek_kit.errors import FailedPrecondition
from wideseek_kit.testing import eventually, nats_server

REMOTE = '{"backend": "openai", "url": "http://127.0.0.1:1", "model": "m"}'
ALL_REMOTE = f'{{"policy": {REMOTE}, "judge": {REMOTE}, "summarizer": {REMOTE}}}'


async def start(**settings: str) -> asyncio.subprocess.Process:
    environment = {**os.environ, **{f"WIDESEEK_INFERENCE_{name.upper()}": value for name, value in settings.items()}}
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "wideseek_inference", env=environment, stderr=asyncio.subprocess.PIPE
    )


@dataclass(frozen=True)
class Process:
    process: asyncio.subprocess.Process
    target: str
    weights: str


@contextlib.asynccontextmanager
async def running(directory: Path, **settings: str) -> AsyncIterator[Process]:
    files = {"port_file": directory / "port", "weights_port_file": directory / "weights_port"}
    process = await start(**{name: str(path) for name, path in files.items()}, **settings)
    log = asyncio.create_task(process.communicate())
    try:
        await eventually(lambda: files["port_file"].exists() or process.returncode is not None, 120)
        assert process.returncode is None, (await log)[1].decode()
        ports = [path.read_text() for path in files.values()]
        yield Process(process, f"127.0.0.1:{ports[0]}", f"127.0.0.1:{ports[1]}")
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        text = (await asyncio.wait_for(log, 40))[1].decode()
        assert process.returncode == 0, text
    finally:
        if process.returncode is None:
            process.kill()
            await log


async def serving(target: str) -> bool:
    async with open_channel(target) as channel:
        answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=SERVICE_NAME))
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


async def test_it_follows_the_policy_and_drains(tiny: Tiny, tmp_path: Path) -> None:
    wanted = tiny.wanted(tiny.b, 301)
    with nats_server() as server:
        async with open_bus(server.url, "test") as bus:
            await bus.connected(5)
            announcement = policy_pb2.PolicyAnnouncement(
                schema_version=1, version=wanted.version, uri=wanted.uri, manifest_sha256=wanted.manifest_sha256
            )
            await (await bus.bucket(BUCKET, history=16)).put(CURRENT, announcement.SerializeToString())
        settings = {"model": str(tiny.a), "nats": server.url, "kv_cache_bytes": str(32 << 20)}
        async with running(tmp_path, **settings, weights_dir=str(tmp_path / "weights")) as service:
            async with asyncio.timeout(30):
                while not await serving(service.target):  # noqa: ASYNC110 -- another process tells it when asked
                    await asyncio.sleep(0.1)
            async with open_channel(service.weights) as channel:
                stub = weights_rpc.WeightServiceStub(channel)
                state = (await stub.GetWeightState(weights_pb.GetWeightStateRequest())).state
            assert (state.served_version, state.announced_version) == (301, 301)
            engines = psutil.Process(service.process.pid).children(recursive=True)
            assert engines
            async with open_channel(service.target) as channel:
                request = pb.GenerateRequest(
                    messages=[pb.Message(role=pb.ROLE_USER, content="Hi")],
                    sampling=pb.SamplingParams(temperature=0.7, seed=1),
                )
                call = rpc.InferenceServiceStub(channel).Generate(request)
                await call.read()
                service.process.send_signal(signal.SIGTERM)
                rest = [event async for event in call]
            assert rest[-1].result.version_spans[0].version == 301
        assert psutil.wait_procs(engines, timeout=10)[1] == []
        assert list((tmp_path / "weights").iterdir()) == []


async def test_a_killed_service_takes_its_engine_along(tiny: Tiny, tmp_path: Path) -> None:
    process = await start(model=str(tiny.a), port_file=str(tmp_path / "port"), kv_cache_bytes=str(32 << 20))
    log = asyncio.create_task(process.communicate())
    await eventually((tmp_path / "port").exists, 120)
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    await log
    assert children
    assert psutil.wait_procs(children, timeout=10)[1] == []


async def test_a_service_whose_engine_dies_ends_and_says_so(tiny: Tiny, tmp_path: Path) -> None:
    process = await start(model=str(tiny.a), port_file=str(tmp_path / "port"), kv_cache_bytes=str(32 << 20))
    log = asyncio.create_task(process.communicate())
    await eventually((tmp_path / "port").exists, 120)
    for child in psutil.Process(process.pid).children(recursive=True):
        child.kill()
    text = (await asyncio.wait_for(log, 60))[1].decode()
    assert process.returncode == 1
    assert text.strip().splitlines()[-1] == "inference: the engine's process has ended"


async def test_without_an_engine_there_are_no_weights(tmp_path: Path) -> None:
    async with running(tmp_path, routes=ALL_REMOTE) as service:
        assert await serving(service.target)
        async with open_channel(service.weights) as channel:
            stub = weights_rpc.WeightServiceStub(channel)
            with pytest.raises(FailedPrecondition) as error, calling():
                await stub.GetWeightState(weights_pb.GetWeightStateRequest())
        assert error.value.reason == "NO_ENGINE"
        assert not psutil.Process(service.process.pid).children()


@pytest.mark.parametrize(
    ("settings", "code", "line"),
    [
        ({}, 1, "inference: WIDESEEK_INFERENCE_MODEL is empty"),
        ({"routes": '{"judge": {"backend": "openai"}}'}, 2, "needs url and model"),
        ({"max_num_seqs": "0"}, 2, "WIDESEEK_INFERENCE_MAX_NUM_SEQS='0'"),
    ],
)
async def test_a_wrong_setting_ends_the_start_with_one_line(settings: dict[str, str], code: int, line: str) -> None:
    process = await start(**settings)
    _, log = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == code
    assert line in log.decode().strip().splitlines()[-1]
