"""Builds the trainer from its settings."""

import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from wideseek.trainer.v1 import trainer_service_pb2 as pb
from wideseek.trainer.v1 import trainer_service_pb2_grpc as rpc
from wideseek_contract import episodes, policies
from wideseek_kit.bus import Bus, open_bus
from wideseek_kit.channels import open_channel
from wideseek_kit.entry import StartError
from wideseek_kit.serve import Readiness, serve

from wideseek_trainer.adapters.events import JetStreamEvents
from wideseek_trainer.adapters.inference import InferenceServing
from wideseek_trainer.adapters.lead import LeadEpisodes
from wideseek_trainer.adapters.learners import RayLearners, RayPlace
from wideseek_trainer.adapters.policies import PolicyRegistry
from wideseek_trainer.adapters.runs import RunRecords
from wideseek_trainer.adapters.tracing import UpdateTracer
from wideseek_trainer.core.checkpoint import Progress
from wideseek_trainer.core.config import RunConfig
from wideseek_trainer.core.launch import Limits
from wideseek_trainer.core.learner import LearnerSpec
from wideseek_trainer.core.loss import Objective
from wideseek_trainer.core.ports import Learners, Ports
from wideseek_trainer.manager import RunManager
from wideseek_trainer.servicer import TrainerServicer
from wideseek_trainer.settings import Settings

SERVICE = "wideseek.trainer.v1.TrainerService"

#: Makes learners of a specification, for as long as the context lasts.
LearnersOf = Callable[[LearnerSpec], contextlib.AbstractAsyncContextManager[Learners]]


class _RunJournal:
    def __init__(self, manager: RunManager, run_id: str) -> None:
        self._manager = manager
        self._run_id = run_id

    async def step_done(self, progress: Progress) -> None:
        await self._manager.step_done(self._run_id, progress)


async def run(settings: Settings) -> None:
    """Serve until told to stop."""
    async with building(settings, lambda spec: _ray(settings, spec)) as (servicer, manager, readiness):
        await serve(
            lambda server: rpc.add_TrainerServiceServicer_to_server(servicer, server),
            settings,
            readiness=readiness,
            service_names=[SERVICE],
            on_drain=manager.stop,
        )


@contextlib.asynccontextmanager
async def building(
    settings: Settings, learners: LearnersOf, around: Callable[[Ports], Ports] = lambda ports: ports
) -> AsyncIterator[tuple[TrainerServicer, RunManager, Readiness]]:
    """The servicer with all that is under it. `around` may wrap the ports of a run, to watch them or to break them."""
    state = _check_places(settings)
    readiness = Readiness([SERVICE])

    async def on_up(bus: Bus) -> None:
        await episodes.ensure_stream(bus)
        await policies.ensure_bucket(bus)

    async with open_bus(settings.nats_url, "trainer", readiness=readiness, on_up=on_up) as bus:
        registry = PolicyRegistry(bus, settings.policy_store_uri, settings.keep_versions)
        records = RunRecords(bus)
        limits = Limits(episode=settings.episode_timeout, serving=settings.serving_timeout)
        manager: RunManager

        def ports(run: pb.TrainingRun, config: RunConfig, base: Path) -> contextlib.AbstractAsyncContextManager[Ports]:
            spec = learner_spec(settings, config, base)
            return _ports(settings, bus, registry, manager, run, learners(spec), around)

        manager = RunManager(records, registry, ports, state, limits, readiness)
        async with manager.working(settings.initial_policy):
            yield TrainerServicer(manager, records, registry), manager, readiness


def _check_places(settings: Settings) -> Path:
    state = Path(settings.state_dir).absolute()
    state.mkdir(parents=True, exist_ok=True)
    if settings.initial_policy and not (Path(settings.initial_policy) / "config.json").exists():
        raise StartError(f"WIDESEEK_TRAINER_INITIAL_POLICY={settings.initial_policy}: holds no config.json")
    return state


@contextlib.asynccontextmanager
async def _ports(
    settings: Settings,
    bus: Bus,
    registry: PolicyRegistry,
    manager: RunManager,
    run: pb.TrainingRun,
    learners: contextlib.AbstractAsyncContextManager[Learners],
    around: Callable[[Ports], Ports],
) -> AsyncIterator[Ports]:
    async with contextlib.AsyncExitStack() as stack:
        lead = await stack.enter_async_context(open_channel(settings.lead_address))
        serving = None
        if settings.inference_address:
            channel = await stack.enter_async_context(open_channel(settings.inference_address))
            serving = InferenceServing(channel, run.config.episode.model)
        ports = Ports(
            episodes=LeadEpisodes(lead, run.run_id, run.config.episode),
            events=JetStreamEvents(bus, run.run_id),
            policies=registry,
            learners=await stack.enter_async_context(learners),
            journal=_RunJournal(manager, run.run_id),
            tracer=UpdateTracer(run.run_id),
            serving=serving,
        )
        yield around(ports)


def learner_spec(settings: Settings, config: RunConfig, base: Path) -> LearnerSpec:
    """How the learners of a run learn."""
    return LearnerSpec(
        base=str(base.absolute()),
        learning_rate=config.learning_rate,
        temperature=config.temperature,
        objective=Objective(kl_coefficient=config.kl_coefficient),
        tokens_per_microbatch=settings.tokens_per_microbatch,
        device="cuda" if settings.learner_gpus else "cpu",
    )


@contextlib.asynccontextmanager
async def _ray(settings: Settings, spec: LearnerSpec) -> AsyncIterator[Learners]:
    place = RayPlace(
        count=settings.learners,
        threads=settings.learner_threads,
        gpus=settings.learner_gpus,
        address=settings.ray_address,
        directory=Path(settings.state_dir) / "ray",
    )
    learners = RayLearners(place, spec)
    try:
        yield learners
    finally:
        await learners.close()
