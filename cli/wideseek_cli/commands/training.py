"""`train` and `runs`."""

from pathlib import Path
from typing import Annotated

import typer
from google.protobuf.json_format import MessageToJson
from rich.markup import escape
from wideseek.inference.v1.inference_service_pb2 import SamplingParams
from wideseek.lead.v1.lead_service_pb2 import EpisodeLimits, EpisodeOptions
from wideseek.trainer.v1 import trainer_service_pb2 as pb

from wideseek_cli.running import client, out, run, say
from wideseek_cli.show.training import follow_run, run_summary


def train(
    tasks: Annotated[str, typer.Option(help="Task set: JSONL file, or fsspec URI of one.")],
    steps: Annotated[int | None, typer.Option(help="Updates to make.")] = None,
    questions: Annotated[int | None, typer.Option(help="Questions an update.")] = None,
    group_size: Annotated[int | None, typer.Option(help="Episodes a question.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Of AdamW.")] = None,
    temperature: Annotated[float | None, typer.Option(help="At which episodes are sampled.")] = None,
    kl: Annotated[float | None, typer.Option(help="Weight of the KL term; 0 is off.")] = None,
    max_staleness: Annotated[int | None, typer.Option(help="Updates that an episode's oldest weights may lag.")] = None,
    in_flight: Annotated[int | None, typer.Option(help="Episodes in flight at most.")] = None,
    max_subagents: Annotated[int | None, typer.Option(help="Subagents an episode.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the order of tasks.")] = None,
    shuffle_advantages: Annotated[bool, typer.Option(help="A control that must not learn.")] = False,
    watch: Annotated[bool, typer.Option(help="Show each update until the run ends.")] = True,
) -> None:
    """Train the policy on a task set. Without options, the trainer's defaults hold."""
    config = pb.TrainingConfig(
        task_set_uri=_uri(tasks),
        steps=steps,
        questions_per_step=questions,
        group_size=group_size,
        learning_rate=learning_rate,
        kl_coefficient=kl,
        max_staleness=max_staleness,
        max_episodes_in_flight=in_flight,
        seed=seed,
        shuffle_advantages=shuffle_advantages,
        episode=EpisodeOptions(
            sampling=SamplingParams(temperature=temperature), limits=EpisodeLimits(max_subagents=max_subagents)
        ),
    )
    run(_train(config, watch=watch))


async def _train(config: pb.TrainingConfig, *, watch: bool) -> None:
    async with client() as caller:
        created = await caller.create_training_run(config)
        say(f"run {created.run_id} has begun")
        if not watch:
            out.print(created.run_id)
            return
        ended = await follow_run(caller, created.run_id, out)
    if ended.state != pb.TrainingRun.STATE_SUCCEEDED:
        raise typer.Exit(1)


def runs(
    cancel: Annotated[str, typer.Option(metavar="RUN", help="Stop this run after the update under way.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="The answer of the service as JSON.")] = False,
) -> None:
    """List training runs, newest first, or stop one."""
    run(_cancel(cancel) if cancel else _runs(as_json))


async def _cancel(run_id: str) -> None:
    async with client() as caller:
        out.print(escape(run_summary(await caller.cancel_training_run(run_id))), soft_wrap=True)


async def _runs(as_json: bool) -> None:
    async with client() as caller:
        page = await caller.list_training_runs()
    if as_json:
        out.print(MessageToJson(page, preserving_proto_field_name=True), soft_wrap=True, markup=False)
        return
    for found in page.runs:
        out.print(escape(run_summary(found)), soft_wrap=True)
    if not page.runs:
        say("no training run yet: `wideseek train --tasks FILE` starts one")


def _uri(tasks: str) -> str:
    """A local file by its whole path, for the trainer runs in another directory; a URI as it is."""
    if "://" in tasks:
        return tasks
    path = Path(tasks)
    if not path.is_file():
        raise typer.BadParameter(f"--tasks {tasks}: there is no such file")
    return str(path.resolve())
