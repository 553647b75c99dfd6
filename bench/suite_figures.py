"""The suite on this machine: time to ready, memory at rest, one episode at a time, a training step.

    python bench/suite_figures.py [--starts 3] [--episodes 20] [--steps 4]

Everything runs as users run it: `wideseek up` with the seed policy, episodes through the client, a training run of 8
questions with 8 episodes each. The first step of a run also starts Ray and is shown on its own. Prints one table.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from pathlib import Path

import psutil
from wideseek.inference.v1.inference_service_pb2 import SamplingParams
from wideseek.lead.v1.lead_service_pb2 import EpisodeOptions
from wideseek.trainer.v1 import trainer_service_pb2 as trainer
from wideseek_atlas import Split
from wideseek_cli.home import Home
from wideseek_cli.lab.evaluation import Setup
from wideseek_cli.lab.worlds import WorldSet, ingest
from wideseek_cli.suite.control import down, up
from wideseek_cli.suite.parts import SuiteOptions
from wideseek_cli.suite.state import SuiteState
from wideseek_client import Client

TEMPERATURE = 0.7


def memory_gib(state: SuiteState) -> float:
    """Memory of the supervisor, all parts and what they started, shared pages counted once."""
    total = 0
    for part in [state.supervisor, *(part.process for part in state.parts if part.process)]:
        process = psutil.Process(part.pid)
        children = [] if part == state.supervisor else process.children(recursive=True)
        total += sum(one.memory_full_info().pss for one in [process, *children])
    return total / 2**30


async def episodes(state: SuiteState, count: int) -> list[float]:
    """Seconds of each episode, one after another."""
    worlds = WorldSet.draw(Split.HELDOUT, count, 2)
    seconds = []
    async with Client(state.endpoints) as client:
        await ingest(client, [worlds])
        for task in worlds.tasks:
            began = time.monotonic()
            await client.ask(task.question, Setup(TEMPERATURE).options(task))
            seconds.append(time.monotonic() - began)
    return seconds


async def training(state: SuiteState, steps: int, folder: Path) -> list[float]:
    """Seconds of each step."""
    worlds = WorldSet.draw(Split.TRAIN, steps * 8, 4)
    async with Client(state.endpoints) as client:
        await ingest(client, [worlds])
        config = trainer.TrainingConfig(
            task_set_uri=str(worlds.write(folder)),
            steps=steps,
            questions_per_step=8,
            group_size=8,
            episode=EpisodeOptions(sampling=SamplingParams(temperature=TEMPERATURE)),
        )
        run = await client.create_training_run(config)
        return [
            message.step.duration.ToMilliseconds() / 1e3
            async for message in client.watch_training_run(run.run_id)
            if message.WhichOneof("event") == "step"
        ]


def row(name: str, values: list[float], unit: str, target: str) -> None:
    """One line of the table."""
    print(f"{name:34} {statistics.median(values):8.2f} {min(values):8.2f} {max(values):8.2f}  {unit:4} {target}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=int, default=3)
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--steps", type=int, default=4)
    options = parser.parse_args()
    starts, rest, one, steps = [], [], [], []
    for number in range(options.starts):
        with tempfile.TemporaryDirectory(prefix="wideseek-bench-") as root:
            home = Home(Path(root))
            began = time.monotonic()
            state = up(home, SuiteOptions().resolved(), lambda _: None)
            try:
                starts.append(time.monotonic() - began)
                time.sleep(5)
                rest.append(memory_gib(state))
                if number == options.starts - 1:
                    one = asyncio.run(episodes(state, options.episodes))
                    steps = asyncio.run(training(state, options.steps, Path(root)))
            finally:
                down(home)
    print(f"{'':34} {'median':>8} {'least':>8} {'most':>8}       target")
    row("wideseek up, to ready", starts, "s", "<= 60")
    row("suite at rest", rest, "GiB", "<= 5")
    row("one atlas episode", one, "s", "<= 15")
    row("first training step, Ray's start in", steps[:1], "s", "")
    row("training step, 8 x 8", steps[1:], "s", "<= 90")


if __name__ == "__main__":
    main()
