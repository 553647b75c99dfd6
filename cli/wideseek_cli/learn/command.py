"""`wideseek learn`: runs the phases that are not done yet, then draws and writes what there is."""

import asyncio
import shutil
from pathlib import Path
from typing import Annotated

import typer
from wideseek_client import Client

from wideseek_cli.home import Home
from wideseek_cli.learn.phases import Experiment, Size, TrainingFailedError
from wideseek_cli.learn.store import MissingPhaseError, Phase, Results
from wideseek_cli.running import UsageError, out, run
from wideseek_cli.show.starting import Starting
from wideseek_cli.suite import control
from wideseek_cli.suite.parts import SuiteOptions
from wideseek_cli.suite.state import SuiteState


def learn(
    phase: Annotated[
        list[Phase] | None, typer.Option(help="Only this phase, even if it is done; may be repeated.")
    ] = None,
    report_only: Annotated[bool, typer.Option("--report", help="Only draw and write what there is.")] = False,
    afresh: Annotated[bool, typer.Option(help="Forget what is done.")] = False,
    directory: Annotated[Path, typer.Option("--docs", help="Where learning.md, learning.json and figures/ go.")] = Path(
        "docs"
    ),
    questions: Annotated[int, typer.Option(min=2, help="Held-out questions.")] = 100,
    width_questions: Annotated[int, typer.Option(min=2, help="Held-out questions of widths and modes.")] = 48,
    updates: Annotated[int, typer.Option(min=1, help="Training updates.")] = 27,
    control_updates: Annotated[int, typer.Option(min=1, help="Updates of a control run.")] = 15,
    control_runs: Annotated[int, typer.Option(min=1, help="Control runs, each with other questions.")] = 3,
    kl: Annotated[float, typer.Option(min=0, help="Weight of the KL term against the seed policy.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Of the order of training questions.")] = 0,
) -> None:
    """Train longer; measure learning curve, widths, modes and a control; draw them. Resumes where it was stopped."""
    from wideseek_cli.learn.report import write_report  # matplotlib takes a while to import

    home = Home(Home.here().root / "learn")
    if afresh:
        run(_forget(home))
    results = Results(home.root / "results")
    size = Size(
        questions=questions,
        width_questions=width_questions,
        updates=updates,
        control_updates=control_updates,
        control_runs=control_runs,
        kl_coefficient=kl,
        seed=seed,
    )
    todo = phase or [one for one in Phase if not results.has(one)]
    if todo and not report_only:
        run(_learn(home, results, size, todo))
    write_report(results.all(), directory)
    out.print(f"{directory}/learning.md, {directory}/learning.json and {directory}/figures are written")


async def _forget(home: Home) -> None:
    await asyncio.to_thread(control.down, home)
    shutil.rmtree(home.root, ignore_errors=True)


async def _learn(home: Home, results: Results, size: Size, todo: list[Phase]) -> None:
    try:
        state = await _up(home)
        async with Client(state.endpoints, patience=60) as client:
            experiment = Experiment(client, results, size, home.root / "train", out)
            await experiment.load()
            for one in todo:
                out.rule(f"[bold]{one}", align="left", style="dim")
                await experiment.run(one)
    except (MissingPhaseError, TrainingFailedError) as error:
        raise UsageError(str(error)) from error
    finally:
        for line in await asyncio.to_thread(control.down, home):
            out.print(line)


async def _up(home: Home) -> SuiteState:
    with Starting(out) as starting:
        up = asyncio.ensure_future(asyncio.to_thread(control.up, home, SuiteOptions().resolved(), starting.show))
        try:
            return await asyncio.shield(up)
        except asyncio.CancelledError:
            await asyncio.to_thread(control.down, home)  # makes `up` end too
            await asyncio.wait([up])
            raise
