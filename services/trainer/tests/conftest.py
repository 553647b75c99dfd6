"""A served trainer with one learner in this process, a scripted lead and a real NATS."""

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from wideseek.lead.v1 import lead_service_pb2_grpc as lead_rpc
from wideseek.trainer.v1 import trainer_service_pb2 as pb
from wideseek.trainer.v1 import trainer_service_pb2_grpc as rpc
from wideseek_contract import episodes
from wideseek_kit.bus import Bus, open_bus
from wideseek_kit.channels import open_channel
from wideseek_kit.testing import NatsServer, eventually, grpc_server, nats_server
from wideseek_trainer.settings import Settings
from wideseek_trainer.testing import ScriptedLead, local_learners, tiny_policy, write_tasks
from wideseek_trainer.wiring import SERVICE, building


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def nats() -> Iterator[NatsServer]:
    with nats_server() as server:
        yield server


@pytest.fixture(scope="session")
def policy_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_policy(tmp_path_factory.mktemp("trainer-policy"))


@dataclass
class Stand:
    """Where a trainer under test stands."""

    settings: Settings
    lead: ScriptedLead
    bus: Bus
    tasks: Path
    stop: Callable[[], None] = lambda: None  # noqa: E731 -- that of the trainer served last

    def config(self, **fields: Any) -> pb.TrainingConfig:
        base: dict[str, Any] = {"steps": 3, "questions_per_step": 2, "group_size": 2, "max_staleness": 9}
        return pb.TrainingConfig(task_set_uri=str(self.tasks), **{**base, **fields})


@pytest.fixture
async def stand(nats: NatsServer, policy_dir: Path, tmp_path: Path) -> AsyncIterator[Stand]:
    async with open_bus(nats.url, "test", on_up=episodes.ensure_stream) as bus:
        await bus.connected(10)
        lead = ScriptedLead(bus)
        async with grpc_server(lambda server: lead_rpc.add_LeadServiceServicer_to_server(lead, server)) as target:
            settings = Settings(
                nats_url=nats.url,
                lead_address=target,
                state_dir=str(tmp_path / "state"),
                policy_store_uri=str(tmp_path / "store"),
                initial_policy=str(policy_dir),
            )
            yield Stand(settings, lead, bus, write_tasks(tmp_path / "tasks.jsonl", 5))


Serve = Callable[..., contextlib.AbstractAsyncContextManager[rpc.TrainerServiceStub]]


@pytest.fixture
def serve(stand: Stand) -> Serve:
    """Serves a trainer on a socket of its own while the context lasts."""

    @contextlib.asynccontextmanager
    async def serving(**more: Any) -> AsyncIterator[rpc.TrainerServiceStub]:
        async with (
            building(stand.settings, local_learners, **more) as (servicer, manager, readiness),
            grpc_server(lambda server: rpc.add_TrainerServiceServicer_to_server(servicer, server), SERVICE) as target,
            open_channel(target) as channel,
        ):
            await eventually(lambda: not readiness.faults)
            stand.stop = manager.stop
            yield rpc.TrainerServiceStub(channel)
            manager.stop()

    return serving
