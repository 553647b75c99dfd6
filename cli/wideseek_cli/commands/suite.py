"""`up`, `down` and `status`."""

import asyncio
from pathlib import Path
from typing import Annotated

import psutil
import typer
from rich.markup import escape
from rich.table import Table
from wideseek_client import Client
from wideseek_kit.errors import ServiceError, Unavailable

from wideseek_cli.home import Home
from wideseek_cli.running import out, reporting, run, say
from wideseek_cli.show.starting import Starting
from wideseek_cli.suite import control, daemon
from wideseek_cli.suite.logs import unmet_conditions
from wideseek_cli.suite.parts import SuiteOptions
from wideseek_cli.suite.process import family
from wideseek_cli.suite.state import PartPhase, PartState, Phase, SuiteState, read_state


def up(
    model: Annotated[str, typer.Option(help="Model directory or name; empty: the seed policy.")] = "",
    pack: Annotated[str, typer.Option(help="Prompt pack; empty: the one that fits the model.")] = "",
    foreground: Annotated[bool, typer.Option(help="Stay until Ctrl-C instead of going to the background.")] = False,
) -> None:
    """Start NATS and the five services on this machine, and wait until they are ready."""
    home = Home.here()
    with reporting():
        options = SuiteOptions(model, pack).resolved()
        starting = Starting(out)
        try:
            for line in control.clear_stale(home):
                say(line)
            if foreground:
                daemon.run(home, options, starting.show)
                return
            with starting:
                state = control.up(home, options, starting.show)
        except control.AlreadyUpError as error:
            say(f"{error}; `wideseek status` shows it, `wideseek down` stops it")
            return
        out.print(
            f"ready: {escape(str(home.state))} has the addresses, {escape(str(home.logs))} the logs", soft_wrap=True
        )
        out.print(f"lead listens on {state.endpoints.lead}; the model is {escape(state.model)}", soft_wrap=True)


def down() -> None:
    """Stop the suite. Nothing of it runs afterwards; episodes, pages and policies stay in its home."""
    home = Home.here()
    with reporting():
        done = control.down(home)
        for line in done or [f"no suite is up in {home.root}"]:
            out.print(escape(line), soft_wrap=True)


def status() -> None:
    """Show the parts of the suite: ready or why not, memory, policy version."""
    home = Home.here()
    with reporting():
        state = read_state(home.state)
        if state is None or not state.running():
            stale = "" if state is None else " (what was left of an earlier one goes with the next `up` or `down`)"
            raise control.SuiteError(f"no suite is up in {home.root}{stale}: start one with `wideseek up`")
        served = run(_served(state))
        probed = {part.name: run(_health(state, part)) for part in state.parts}
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for column in ("part", "pid", "port", "state"):
        table.add_column(column, no_wrap=True)
    for column in ("restarts", "memory"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("")
    total = 0
    for part in state.parts:
        memory = _memory(part)
        total += memory
        ready = probed[part.name]
        table.add_row(
            part.name,
            str(part.process.pid) if part.process else "",
            str(part.port),
            _state(part, ready),
            str(part.restarts),
            f"{memory / 2**20:.0f} MiB",
            escape(served if part.name == "inference" and not ready else ready),
        )
    out.print(table)
    out.print(
        f"the suite in {escape(str(home.root))} is {state.phase}; {total / 2**30:.2f} GiB of memory", soft_wrap=True
    )
    if state.phase is not Phase.READY or any(probed.values()):
        raise typer.Exit(1)


def _state(part: PartState, fault: str) -> str:
    if part.phase is PartPhase.READY:
        return "[yellow]not ready[/]" if fault else "[green]ready[/]"
    return f"[{'red' if part.phase is PartPhase.DEAD else 'yellow'}]{part.phase}[/]"


async def _health(state: SuiteState, part: PartState) -> str:
    """Why a part is not ready; empty when it is."""
    if part.phase is not PartPhase.READY:
        return part.fault or str(part.phase)
    if part.name == "nats":
        return "" if part.process is not None and part.process.alive() else "its process is gone"
    try:
        async with Client(state.endpoints, patience=0) as caller:
            if await caller.is_ready(part.name):
                return ""
    except ServiceError as error:
        return f"does not answer: {error.message}"
    return "; ".join(unmet_conditions(Path(part.log))) or "says that it is not ready"


async def _served(state: SuiteState) -> str:
    try:
        async with Client(state.endpoints, patience=0) as caller:
            weights = await asyncio.wait_for(caller.get_weight_state(), 3)
    except (Unavailable, TimeoutError):
        return "its weight service does not answer"
    behind = f", announced {weights.announced_version}" if weights.announced_version != weights.served_version else ""
    swaps = f", {weights.swaps} swaps" if weights.swaps else ""
    fault = f", last swap failed: {weights.last_error}" if weights.last_error else ""
    return f"serves policy version {weights.served_version}{behind}{swaps}{fault}"


def _memory(part: PartState) -> int:
    """Bytes of a part with all it started: its own pages, and its share of those it shares."""
    if part.process is None or not part.process.alive():
        return 0
    total = 0
    for process in [psutil.Process(part.process.pid), *family(part.process.pid)]:
        try:
            memory = process.memory_full_info()
            total += getattr(memory, "pss", memory.rss)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue  # it has ended meanwhile, or it is not ours to look into
    return total
