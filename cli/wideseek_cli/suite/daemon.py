"""The supervisor as a process: builds the parts, runs them until SIGTERM, writes the state at every change."""

import asyncio
import logging
import os
import signal
from collections.abc import Callable

from wideseek_cli.home import Home
from wideseek_cli.suite.control import sole_supervisor
from wideseek_cli.suite.parts import Ports, SuiteOptions, local_parts
from wideseek_cli.suite.process import Part
from wideseek_cli.suite.state import PartState, Process, SuiteState
from wideseek_cli.suite.supervisor import Limits, Supervisor


def run(home: Home, options: SuiteOptions, on_change: Callable[[SuiteState], None] = lambda _: None) -> None:
    """Run a suite in this process until SIGTERM or SIGINT.

    Raises:
        SuiteError: another supervisor runs in this home.
        StartFailedError: a part did not start.
        FileNotFoundError: the model or nats-server is missing.
    """
    logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)s supervisor: %(message)s")
    chosen = options.resolved()
    with sole_supervisor(home):
        ports = Ports.free()
        parts = local_parts(home, ports, chosen)
        state = new_state(home, parts, ports, chosen)

        def tell(changed: SuiteState) -> None:
            changed.write(home.state)
            on_change(changed)

        tell(state)
        asyncio.run(_run(Supervisor(parts, state, tell, Limits())))


def new_state(home: Home, parts: list[Part], ports: Ports, options: SuiteOptions) -> SuiteState:
    """The state before anything runs; old logs give way."""
    for part in parts:
        home.log(part.name).unlink(missing_ok=True)
    return SuiteState(
        supervisor=Process.of(os.getpid()),
        model=options.model,
        endpoints=ports.endpoints,
        nats_url=ports.nats_url,
        parts=[PartState(part.name, part.port, str(home.log(part.name))) for part in parts],
    )


async def _run(supervisor: Supervisor) -> None:
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    await supervisor.run(stop)
