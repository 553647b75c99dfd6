"""What each phase of the experiment does on a running suite.

Invariants: every comparison is paired on the same held-out questions; a phase says which policy version it needs and
waits until inference serves it; the training worlds and the held-out worlds are disjoint.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from wideseek.inference.v1.inference_service_pb2 import SamplingParams
from wideseek.lead.v1.lead_service_pb2 import EpisodeOptions
from wideseek.trainer.v1 import trainer_service_pb2 as pb
from wideseek_atlas import Split, Task
from wideseek_client import Client

from wideseek_cli.lab.evaluation import Outcome, Setup, timed
from wideseek_cli.lab.statistics import mean
from wideseek_cli.lab.worlds import WorldSet, ingest
from wideseek_cli.learn.store import Phase, Results
from wideseek_cli.show.training import follow_run

ROLLOUT, GREEDY = 0.7, 0.0
WIDTHS = (1, 2, 4, 8)
#: So few episodes at a time that their wall-clock time is their own, not that of a queue for the engine.
_UNHURRIED = 4
_MOST_ATTEMPTS = 20
_HELDOUT_PER_WORLD, _TRAIN_PER_WORLD = 2, 4


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    questions: int = 100
    width_questions: int = 48
    updates: int = 27
    control_updates: int = 15
    control_runs: int = 3
    curve_points: int = 6
    groups: int = 8
    group_size: int = 8
    learning_rate: float = 3e-4
    kl_coefficient: float = 0.0
    max_staleness: int = 1
    seed: int = 0
    concurrency: int = 32


class TrainingFailedError(Exception):
    """A run did not make all its updates."""


class Experiment:
    """The phases, on the suite that `client` leads to; their figures go into `results`."""

    def __init__(self, client: Client, results: Results, size: Size, folder: Path, console: Console) -> None:
        """Prepare; `load` fills the index."""
        self._client = client
        self._results = results
        self._size = size
        self._folder = folder
        self._tasks_file = folder / "tasks.jsonl"
        self._console = console
        self._heldout = WorldSet.draw(Split.HELDOUT, max(size.questions, size.width_questions), _HELDOUT_PER_WORLD)
        self._training = WorldSet.draw(Split.TRAIN, size.updates * size.groups, _TRAIN_PER_WORLD)

    async def load(self) -> None:
        """Ingest all worlds and write the training tasks; doing it again changes nothing."""
        stored = await ingest(self._client, [self._heldout, self._training])
        self._training.write(self._folder)
        self._console.print(f"{stored.stored} pages stored")

    async def run(self, phase: Phase) -> None:
        """Run one phase and keep its figures."""
        work: Mapping[Phase, Callable[[], Any]] = {
            Phase.TRAIN: self._train,
            Phase.HELDOUT: self._held_out,
            Phase.CURVE: self._curve,
            Phase.WIDTH: self._widths,
            Phase.MODES: self._modes,
            Phase.CONTROL: self._control,
        }
        began = time.monotonic()
        figures = await work[phase]()
        self._results.write(phase, {**figures, "seconds": time.monotonic() - began})

    async def _train(self) -> dict[str, Any]:
        await self._serve(0)
        return await self._run_updates("train", self._size.updates, self._size.seed, shuffle=False)

    async def _control(self) -> dict[str, Any]:
        runs = []
        for seed in range(self._size.seed, self._size.seed + self._size.control_runs):
            await self._serve(0)
            run = await self._run_updates("control", self._size.control_updates, seed, shuffle=True)
            await self._serve(run["versions"][-1])
            for name, temperature in (("rollout", ROLLOUT), ("greedy", GREEDY)):
                run[name] = await self._ask(self._questions, Setup(temperature), f"control {seed}, {name}")
            runs.append(run)
        return {"runs": runs}

    async def _run_updates(self, name: str, updates: int, seed: int, *, shuffle: bool) -> dict[str, Any]:
        """One run; asked for a second time with the same name and sizes, it is the same run."""
        size = self._size
        config = pb.TrainingConfig(
            task_set_uri=str(self._tasks_file),
            steps=updates,
            questions_per_step=size.groups,
            group_size=size.group_size,
            learning_rate=size.learning_rate,
            kl_coefficient=size.kl_coefficient or None,
            max_staleness=size.max_staleness,
            seed=seed,
            shuffle_advantages=shuffle,
            episode=EpisodeOptions(sampling=SamplingParams(temperature=ROLLOUT)),
        )
        kl = f"-kl{size.kl_coefficient:g}" if size.kl_coefficient else ""
        created = await self._create(config, f"learn-{name}-{updates}-{seed}{kl}")
        steps: list[pb.TrainingStep] = []
        ended = await follow_run(self._client, created.run_id, self._console, on_step=steps.append)
        if ended.state != pb.TrainingRun.STATE_SUCCEEDED:
            raise TrainingFailedError(
                f"run {ended.run_id} ended after {ended.steps_done} updates: {ended.error.message}"
            )
        weights = await self._client.get_weight_state()
        return {
            "run_id": ended.run_id,
            "versions": [step.policy_version for step in steps],
            "item_f1": [step.metrics["item_f1"] for step in steps],
            "metrics": [dict(step.metrics) for step in steps],
            "times": [step.time.ToMicroseconds() / 1e6 for step in steps],
            "wall_clock": (ended.end_time.ToMicroseconds() - ended.create_time.ToMicroseconds()) / 1e6,
            "pauses": [pause.ToMicroseconds() / 1e6 for pause in weights.pauses],
            "requests_lost": weights.requests_lost,
        }

    async def _create(self, config: pb.TrainingConfig, request_id: str) -> pb.TrainingRun:
        """The run of this request; one that failed or was cancelled gives way to a new one."""
        for attempt in range(1, _MOST_ATTEMPTS + 1):
            created = await self._client.create_training_run(config, request_id=f"{request_id}-{attempt}")
            if created.state in (pb.TrainingRun.STATE_RUNNING, pb.TrainingRun.STATE_SUCCEEDED):
                return created
        raise TrainingFailedError(f"{_MOST_ATTEMPTS} runs of {request_id} failed; `--afresh` forgets them")

    async def _held_out(self) -> dict[str, Any]:
        figures: dict[str, Any] = {}
        for policy, version in (("seed", 0), ("trained", self._trained)):
            await self._serve(version)
            for name, temperature in (("rollout", ROLLOUT), ("greedy", GREEDY)):
                asked = await self._ask(self._questions, Setup(temperature), f"{policy}, {name}")
                figures.setdefault(name, {})[policy] = asked
        return figures

    async def _curve(self) -> dict[str, Any]:
        versions = [0, *self._results.read(Phase.TRAIN)["versions"]]
        points = min(self._size.curve_points, len(versions) - 1)
        updates = sorted({round(i * (len(versions) - 1) / points) for i in range(points + 1)})
        asked = []
        for update in updates:
            await self._serve(versions[update])
            asked.append(await self._ask(self._questions, Setup(ROLLOUT), f"after {update} updates"))
        return {"updates": updates, "rollout": asked}

    async def _widths(self) -> dict[str, Any]:
        figures: dict[str, Any] = {"widths": list(WIDTHS)}
        for policy, version in (("seed", 0), ("trained", self._trained)):
            await self._serve(version)
            for name, temperature in (("greedy", GREEDY), ("rollout", ROLLOUT)):
                asked = [
                    await self._ask(
                        self._heldout.tasks[: self._size.width_questions],
                        Setup(temperature, max_subagents=width),
                        f"{policy}, {name}, at most {width} subagents",
                        concurrency=_UNHURRIED,
                    )
                    for width in WIDTHS
                ]
                figures.setdefault(name, {})[policy] = asked
        return figures

    async def _modes(self) -> dict[str, Any]:
        figures: dict[str, Any] = {}
        for policy, version in (("seed", 0), ("trained", self._trained)):
            await self._serve(version)
            for mode in ("multi", "single"):
                asked = await self._ask(
                    self._heldout.tasks[: self._size.width_questions],
                    Setup(GREEDY, single_agent=mode == "single"),
                    f"{policy}, {mode}-agent",
                    concurrency=_UNHURRIED,
                )
                figures.setdefault(policy, {})[mode] = asked
        return figures

    async def _ask(
        self, tasks: Sequence[Task], setup: Setup, name: str, concurrency: int | None = None
    ) -> dict[str, Any]:
        outcomes, seconds = await timed(self._client, tasks, setup, concurrency=concurrency or self._size.concurrency)
        scores = [outcome.item_f1 for outcome in outcomes]
        self._console.print(f"{name}: item-F1 {mean(scores):.3f}, {len(tasks)} questions in {seconds:.0f} s")
        return _figures(outcomes, seconds)

    async def _serve(self, version: int) -> None:
        """Have inference serve a policy version."""
        weights = await self._client.get_weight_state()
        if weights.served_version == version == weights.announced_version:
            return
        await self._client.promote_policy(version)
        async with asyncio.timeout(120):
            while (await self._client.get_weight_state()).served_version != version:  # noqa: ASYNC110 -- remote state
                await asyncio.sleep(0.1)

    @property
    def _questions(self) -> Sequence[Task]:
        return self._heldout.tasks[: self._size.questions]

    @property
    def _trained(self) -> int:
        return int(self._results.read(Phase.TRAIN)["versions"][-1])


def _figures(outcomes: Sequence[Outcome], seconds: float) -> dict[str, Any]:
    return {
        "item_f1": [outcome.item_f1 for outcome in outcomes],
        "episode_seconds": [outcome.seconds for outcome in outcomes],
        "agents": [outcome.agents for outcome in outcomes],
        "output_tokens": [outcome.output_tokens for outcome in outcomes],
        "failed": sum(outcome.failed for outcome in outcomes),
        "all_seconds": seconds,
    }
