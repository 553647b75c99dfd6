"""Asking many questions at a bounded concurrency and scoring the answers.

Invariants: outcomes come in the order of the tasks, one for each, so that two evaluations pair up; an episode that
failed scores 0 and is counted.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from wideseek.inference.v1.inference_service_pb2 import SamplingParams
from wideseek.lead.v1 import lead_service_pb2 as pb
from wideseek_atlas import Task
from wideseek_client import Client
from wideseek_scoring.training import training_item_f1


@dataclass(frozen=True)
class Setup:
    """How questions are asked. Empty limits mean the service's defaults."""

    temperature: float
    single_agent: bool = False
    max_subagents: int | None = None

    def options(self, task: Task) -> pb.EpisodeOptions:
        """The options of the episode that answers `task`."""
        return pb.EpisodeOptions(
            mode=pb.EPISODE_MODE_SINGLE_AGENT if self.single_agent else pb.EPISODE_MODE_MULTI_AGENT,
            required_columns=task.columns,
            key_columns=task.key_columns,
            sampling=SamplingParams(temperature=self.temperature),
            limits=pb.EpisodeLimits(max_subagents=self.max_subagents),
            corpus=task.corpus,
        )


@dataclass(frozen=True)
class Outcome:
    """One answered question; `seconds` is wall-clock time from the lead's start to its end."""

    task_id: str
    episode_id: str
    item_f1: float
    seconds: float
    failed: bool
    agents: int
    tool_calls: int
    output_tokens: int

    def to_json(self) -> dict[str, Any]:
        """For a file of figures."""
        return asdict(self)


def score(episode: pb.Episode, task: Task) -> float:
    """The item-F1 of an episode's answer against the task's gold table; 0 for an episode that failed."""
    if episode.state != pb.Episode.STATE_SUCCEEDED:
        return 0.0
    return training_item_f1(episode.answer.text, task.answer, task.key_columns, task.columns).item_f1


async def evaluate(
    client: Client,
    tasks: Sequence[Task],
    setup: Setup,
    *,
    concurrency: int = 32,
    on_done: Callable[[Outcome], None] = lambda _: None,
) -> list[Outcome]:
    """Ask all `tasks`, at most `concurrency` at a time; `on_done` is told of each as it ends."""
    slots = asyncio.Semaphore(concurrency)

    async def one(task: Task) -> Outcome:
        async with slots:
            episode = await client.ask(task.question, setup.options(task))
        outcome = _outcome(episode, task)
        on_done(outcome)
        return outcome

    async with asyncio.TaskGroup() as group:
        running = [group.create_task(one(task)) for task in tasks]
    return [task.result() for task in running]


async def timed(
    client: Client, tasks: Sequence[Task], setup: Setup, *, concurrency: int = 32
) -> tuple[list[Outcome], float]:
    """The outcomes, and the wall-clock seconds for all."""
    began = time.monotonic()
    return await evaluate(client, tasks, setup, concurrency=concurrency), time.monotonic() - began


def _outcome(episode: pb.Episode, task: Task) -> Outcome:
    return Outcome(
        task.instance_id,
        episode.episode_id,
        score(episode, task),
        (episode.end_time.ToMicroseconds() - episode.create_time.ToMicroseconds()) / 1e6,
        episode.state != pb.Episode.STATE_SUCCEEDED,
        episode.usage.agents,
        episode.usage.tool_calls,
        episode.usage.output_tokens,
    )
