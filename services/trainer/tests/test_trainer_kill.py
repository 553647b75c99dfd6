"""The kill matrix: SIGKILL at every boundary of a step and inside it; afterwards all is as if nothing had happened."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from wideseek.lead.v1 import lead_service_pb2_grpc as lead_rpc
from wideseek.trainer.v1 import trainer_service_pb2 as pb
from wideseek_contract import episodes, policies
from wideseek_kit.bus import Bus, open_bus
from wideseek_kit.testing import grpc_server, nats_server
from wideseek_trainer.adapters.policies import PolicyRegistry
from wideseek_trainer.adapters.runs import RunRecords
from wideseek_trainer.testing import ScriptedLead, write_tasks

WORKER = Path(__file__).with_name("trainer_worker.py")

# (port, method, which call of it, when). One call a step, but `learners.start` and `events.open`: one a life.
POINTS = [
    ("learners", "start", 1, "before"),
    ("events", "open", 1, "after"),
    ("learners", "update", 1, "before"),
    ("learners", "update", 2, "during"),
    ("learners", "update", 2, "after"),
    ("policies", "reserve", 2, "after"),
    ("learners", "save", 1, "before"),
    ("learners", "save", 2, "during"),
    ("learners", "save", 2, "after"),
    ("policies", "publish", 1, "before"),
    ("policies", "publish", 2, "during"),
    ("policies", "publish", 2, "after"),
    ("policies", "announce", 2, "after"),
    ("journal", "step_done", 2, "before"),
    ("journal", "step_done", 2, "after"),
    ("journal", "step_done", 3, "after"),
]


class Worker:
    """The forking parent of the trainers."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def train(self, **order: Any) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        async with asyncio.timeout(60):
            return int(await self._process.stdout.readline())


@pytest.fixture
async def worker() -> AsyncIterator[Worker]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(WORKER),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield Worker(process)
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # its children too, when a test has failed
        await process.wait()


async def outcome(bus: Bus, store: str) -> dict[str, Any]:
    """All that a run leaves behind, in one comparable piece."""
    records, registry = RunRecords(bus), PolicyRegistry(bus, store, 50)
    (run,) = await records.all()
    steps = [await records.step(run.run_id, number) for number in (1, 2, 3)]
    versions = await registry.all()
    announced = await (await bus.bucket(policies.BUCKET)).get(policies.CURRENT)
    return {
        "state": pb.TrainingRun.State.Name(run.state),
        "trained": run.counters.groups_trained,
        "failed": run.counters.episodes_failed,
        "steps": run.steps_done,
        "metrics": [dict(sorted(step.metrics.items())) for step in steps if step is not None],
        "versions": [(policy.version, policy.step) for policy in versions],
        "weights": [policy.manifest_sha256 for policy in versions],
        "announced": policies.decode_announcement(announced.value or b"").version,
    }


def tasks_below(root: Path) -> Path:
    root.mkdir()
    return write_tasks(root / "tasks.jsonl", 5)


async def story(worker: Worker, policy_dir: Path, root: Path, kill: dict[str, Any] | None) -> dict[str, Any]:
    """A run, killed once and started again unless `kill` is None; what it leaves behind."""
    with nats_server() as nats:
        async with open_bus(nats.url, "test", on_up=episodes.ensure_stream) as bus:
            await bus.connected(10)
            lead = ScriptedLead(bus)
            async with grpc_server(lambda server: lead_rpc.add_LeadServiceServicer_to_server(lead, server)) as target:
                order = {
                    "settings": {
                        "nats_url": nats.url,
                        "lead_address": target,
                        "state_dir": str(root / "state"),
                        "policy_store_uri": str(root / "store"),
                        "initial_policy": str(policy_dir),
                    },
                    "tasks": str(tasks_below(root)),
                    "log": str(root / "log"),
                }
                if kill is not None:
                    assert await worker.train(**order, kill=kill) == -9, "it was to die"
                assert await worker.train(**order, kill=None) == 0
                # The run's last acts are done: nothing is left to read, and no episode was asked for under two names.
                assert len(lead.requests) == 3 * 2 * 2
                return await outcome(bus, str(root / "store"))


@pytest.mark.timeout(280)
async def test_trainer_killed_anywhere_trains_each_group_exactly_once(
    worker: Worker, policy_dir: Path, tmp_path: Path
) -> None:
    expected = await story(worker, policy_dir, tmp_path / "whole", None)
    assert expected["state"] == "STATE_SUCCEEDED"
    assert expected["versions"] == [(3, 3), (2, 2), (1, 1), (0, 0)]
    assert expected["trained"] == 6
    assert expected["announced"] == 3
    assert len(set(expected["weights"])) == 4, "each update changed the weights"
    for number, (port, method, call, when) in enumerate(POINTS):
        kill = {"port": port, "method": method, "call": call, "when": when}
        found = await story(worker, policy_dir, tmp_path / f"killed-{number}", kill)
        assert found == expected, kill
