"""A training run as it goes: a line an update."""

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime

from rich.console import Console
from rich.markup import escape
from wideseek.trainer.v1 import trainer_service_pb2 as pb
from wideseek_client import Client

_WIDTHS = (7, 7, 8, 7, 9, 6, 7, 7, 8)


def header() -> str:
    """The line above the updates."""
    return _line("update", "policy", "item-F1", "reward", "loss", "stale", "wait", "learn", "total")


def step_line(step: pb.TrainingStep) -> str:
    """One update; a figure that the trainer does not give is a dash."""
    metrics, seconds = dict(step.metrics), dict(step.seconds)
    return _line(
        str(step.step),
        str(step.policy_version),
        _figure(metrics, "item_f1", 3),
        _figure(metrics, "reward", 3),
        _figure(metrics, "loss", 4),
        _figure(metrics, "staleness_max", 0),
        _seconds(seconds, "wait"),
        _seconds(seconds, "learn"),
        f"{step.duration.ToMicroseconds() / 1e6 or sum(seconds.values()):.1f} s",
    )


def _line(*cells: str) -> str:
    return " ".join(f"{cell:>{width}}" for cell, width in zip(cells, _WIDTHS, strict=True))


def _figure(metrics: Mapping[str, float], name: str, digits: int) -> str:
    return f"{metrics[name]:.{digits}f}" if name in metrics else "-"


def _seconds(seconds: Mapping[str, float], name: str) -> str:
    return f"{seconds[name]:.1f} s" if name in seconds else "-"


def run_state(run: pb.TrainingRun) -> str:
    """The state in words, with the error if there is one."""
    state = pb.TrainingRun.State.Name(run.state).removeprefix("STATE_").lower()
    return f"{state}: {run.error.message}" if run.error.message else state


def run_summary(run: pb.TrainingRun) -> str:
    """One line about a run."""
    began = datetime.fromtimestamp(run.create_time.ToSeconds()).strftime("%H:%M:%S")
    counters = run.counters
    return (
        f"run {run.run_id}: {run_state(run)}, {run.steps_done} of {run.config.steps} updates, "
        f"policy version {run.policy_version}, groups: {counters.groups_trained} trained, "
        f"{counters.groups_stale} stale, {counters.groups_without_signal} without signal, began {began}"
    )


async def follow_run(
    caller: Client, run_id: str, console: Console, *, on_step: Callable[[pb.TrainingStep], None] = lambda _: None
) -> pb.TrainingRun:
    """Show a run's updates until it ends; returns the finished run. Being cancelled leaves the run at work."""
    run = pb.TrainingRun()
    try:
        async for message in caller.watch_training_run(run_id):
            match message.WhichOneof("event"):
                case "snapshot":
                    run = message.snapshot
                    console.print(header())
                case "step":
                    console.print(step_line(message.step))
                    on_step(message.step)
                case "finished":
                    run = message.finished
                case _:
                    continue  # of a newer service
    except asyncio.CancelledError:
        console.print(
            f"run {run_id} goes on: `wideseek watch {run_id}` shows it, `wideseek runs --cancel {run_id}` ends it"
        )
        raise
    console.print(escape(run_summary(run)), soft_wrap=True)
    return run
