"""`wideseek demo`: the whole loop on this machine, told in plain words.

Invariants: it works in a home of its own, emptied at the start; whatever happens, Ctrl-C included, nothing of it runs
afterwards; the questions before and after are the same, and no question of the training is among them.
"""

import asyncio
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from wideseek.inference.v1.inference_service_pb2 import SamplingParams
from wideseek.inference.v1.weight_service_pb2 import WeightState
from wideseek.lead.v1.lead_service_pb2 import EpisodeOptions
from wideseek.trainer.v1 import trainer_service_pb2 as trainer_pb
from wideseek_atlas import Split, Task
from wideseek_client import Client

from wideseek_cli.home import VARIABLE, Home
from wideseek_cli.lab.evaluation import Outcome, Setup, evaluate, score
from wideseek_cli.lab.statistics import mean, paired, quantile
from wideseek_cli.lab.worlds import WorldSet, ingest
from wideseek_cli.running import UsageError, out, run
from wideseek_cli.show.answer import show_answer
from wideseek_cli.show.starting import Starting
from wideseek_cli.show.training import follow_run
from wideseek_cli.show.watching import follow
from wideseek_cli.suite import control
from wideseek_cli.suite.parts import SuiteOptions
from wideseek_cli.suite.state import SuiteState

#: Rollouts and their training have to share one temperature; see services/trainer/README.md.
TEMPERATURE = 0.7
LEARNING_RATE = 3e-4
GROUPS, GROUP_SIZE = 8, 8
#: The episodes of the next update run while the learner works, and no further ahead: fresher episodes teach more.
MAX_STALENESS = 1
_HELDOUT_PER_WORLD, _TRAIN_PER_WORLD = 2, 4

_INTRO = """
[bold]What you will see.[/] A [bold]lead[/] agent gets a broad question, splits it up, sends out [bold]subagents[/] that
search and read pages at the same time, and writes one table from their reports. All agents share one small model,
the [bold]seed policy[/]: a million parameters that copy well and plan badly. Their finished episodes train it, and
each new version goes into the running inference engine while other episodes are in flight.

Everything is real but small: five gRPC services, a NATS server, vLLM and Ray as processes of this machine. The
questions are about the [bold]atlas[/], a generator of fictional worlds; the seed policy knows nothing else.
"""


@dataclass(frozen=True)
class Plan:
    """How much of everything."""

    questions: int
    steps: int
    concurrency: int = 32


def demo(
    questions: Annotated[int, typer.Option(min=2, help="Held-out questions to score before and after.")] = 40,
    steps: Annotated[int, typer.Option(min=1, help="Training updates.")] = 10,
) -> None:
    """Show the whole loop: ask, train while asking, swap the weights, ask again. Takes about ten minutes."""
    home = Home(Home.here().root / "demo")
    run(_demo(home, Plan(questions, steps)))


async def _demo(home: Home, plan: Plan) -> None:
    # A supervisor that is told to end (a CI job, a closed terminal) cleans up just as Ctrl-C does.
    task = asyncio.current_task()
    if task is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    began = time.monotonic()
    out.print(_INTRO)
    _empty(home)
    try:
        await _show(home, plan)
    finally:
        for line in await asyncio.to_thread(control.down, home):
            out.print(f"{line}; nothing is left running")
    out.print(f"the demo took {(time.monotonic() - began) / 60:.1f} minutes")


def _empty(home: Home) -> None:
    if control.current(home) is not None:
        raise UsageError(f"a demo's suite is up in {home.root}: end it with `{VARIABLE}={home.root} wideseek down`")
    for _ in control.clear_stale(home):
        pass
    shutil.rmtree(home.root, ignore_errors=True)


async def _show(home: Home, plan: Plan) -> None:
    _title("1. Five services and NATS start on this machine")
    with Starting(out) as starting:
        state = await _up(home, starting)
    async with Client(state.endpoints, patience=30) as client:
        heldout, tasks_file = await _prepare(client, home, plan)
        first = heldout.tasks[0]
        _title("3. A held-out question, before training")
        before_one = await _ask(client, first)
        _title(f"4. {plan.questions} held-out questions, before training")
        before = await _evaluate(client, heldout.tasks, plan)
        _title(
            f"5. {plan.steps} updates, {GROUPS} questions x {GROUP_SIZE} episodes each; weights change in mid-flight"
        )
        trained = await _train(client, str(tasks_file), plan)
        weights = await client.get_weight_state()
        _title(f"6. The same {plan.questions} held-out questions, after training")
        after = await _evaluate(client, heldout.tasks, plan)
        _title("7. The same question as before")
        after_one = await _ask(client, first)
    _title("What came of it")
    _summary(before, after, (before_one, after_one), trained, weights)
    _next(home, first, after)


async def _up(home: Home, starting: Starting) -> SuiteState:
    options = SuiteOptions().resolved()
    up = asyncio.ensure_future(asyncio.to_thread(control.up, home, options, starting.show))
    try:
        return await asyncio.shield(up)
    except asyncio.CancelledError:
        await asyncio.to_thread(control.down, home)  # makes `up` end too
        await asyncio.wait([up])
        raise


async def _prepare(client: Client, home: Home, plan: Plan) -> tuple[WorldSet, Path]:
    _title("2. Fictional worlds fill the search index")
    heldout = WorldSet.draw(Split.HELDOUT, plan.questions, _HELDOUT_PER_WORLD)
    training = WorldSet.draw(Split.TRAIN, plan.steps * GROUPS, _TRAIN_PER_WORLD)
    stored = await ingest(client, [heldout, training])
    tasks_file = training.write(home.root / "train")
    out.print(
        f"{stored.stored} pages of {len(heldout.worlds)} held-out and {len(training.worlds)} training worlds; "
        f"{len(heldout.tasks)} and {len(training.tasks)} questions"
    )
    return heldout, tasks_file


async def _ask(client: Client, task: Task) -> float:
    options = Setup(temperature=0).options(task)
    out.print(f"[bold]{escape(task.question)}[/]")
    episode = await client.create_episode(task.question, options)
    ended = await follow(client.watch_episode(episode.episode_id), out)
    show_answer(out, ended)
    f1 = score(ended, task)
    out.print(f"item-F1 against the gold table of {len(task.rows)} rows: [bold]{f1:.3f}[/]")
    return f1


async def _evaluate(client: Client, tasks: Sequence[Task], plan: Plan) -> list[Outcome]:
    columns = (TextColumn("episodes"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=out, disable=not out.is_terminal, transient=True) as progress:
        bar = progress.add_task("", total=len(tasks))
        outcomes = await evaluate(
            client, tasks, Setup(TEMPERATURE), concurrency=plan.concurrency, on_done=lambda _: progress.advance(bar)
        )
    failed = sum(outcome.failed for outcome in outcomes)
    out.print(
        f"mean item-F1 [bold]{mean([o.item_f1 for o in outcomes]):.3f}[/] at temperature {TEMPERATURE} "
        f"({plan.concurrency} episodes at a time, {failed} failed)"
    )
    return outcomes


async def _train(client: Client, tasks_file: str, plan: Plan) -> trainer_pb.TrainingRun:
    config = trainer_pb.TrainingConfig(
        task_set_uri=tasks_file,
        steps=plan.steps,
        questions_per_step=GROUPS,
        group_size=GROUP_SIZE,
        learning_rate=LEARNING_RATE,
        max_staleness=MAX_STALENESS,
        episode=EpisodeOptions(sampling=SamplingParams(temperature=TEMPERATURE)),
    )
    created = await client.create_training_run(config)
    ended = await follow_run(client, created.run_id, out)
    if ended.state != trainer_pb.TrainingRun.STATE_SUCCEEDED:
        raise UsageError(f"training ended after {ended.steps_done} updates: {ended.error.message}")
    return ended


def _summary(
    before: Sequence[Outcome],
    after: Sequence[Outcome],
    one: tuple[float, float],
    trained: trainer_pb.TrainingRun,
    weights: WeightState,
) -> None:
    scores = [o.item_f1 for o in before], [o.item_f1 for o in after]
    pauses = sorted(pause.ToMicroseconds() / 1e3 for pause in weights.pauses)
    p50, p95, longest = (quantile(pauses, q) for q in (0.5, 0.95, 1.0))
    failed = sum(o.failed for o in (*before, *after)) + trained.counters.episodes_failed
    out.print(f"item-F1, {len(before)} held-out questions   {mean(scores[0]):.3f} → [bold]{mean(scores[1]):.3f}[/]")
    out.print(f"paired difference                {paired(*scores)}")
    out.print(f"item-F1 of the question shown    {one[0]:.3f} → {one[1]:.3f}")
    out.print(f"updates made                     {trained.steps_done}, policy version {trained.policy_version}")
    out.print(
        f"swap pauses                      p50 {p50:.0f} ms, p95 {p95:.0f} ms, longest {longest:.0f} ms "
        f"({weights.swaps} swaps, {weights.failed_swaps} failed)"
    )
    out.print(f"requests lost                    {weights.requests_lost} ({failed} episodes failed)")


def _next(home: Home, task: Task, after: Sequence[Outcome]) -> None:
    question = task.question.replace('"', '\\"')
    columns, key = ",".join(task.columns), ",".join(task.key_columns)
    out.print(
        f"""
[bold]To look further[/] (its files are kept; the suite comes back with the trained policy):
  export {VARIABLE}={home.root} PATH={Path(sys.executable).parent}:$PATH
  wideseek up                         the suite again
  wideseek status                     its parts, and the policy version that is served
  wideseek episodes                   all episodes
  wideseek watch {after[0].episode_id}   one of them, turn by turn
  wideseek policies list              every version; `wideseek policies promote 0` goes back to the seed
  wideseek ask "{escape(question)}" --corpus {task.corpus} --columns {columns} --key {key}
  less {home.logs}/trainer.log        what the trainer said
  wideseek down
""",
        soft_wrap=True,
    )


def _title(text: str) -> None:
    out.print()
    out.rule(f"[bold]{text}", align="left", style="dim")
