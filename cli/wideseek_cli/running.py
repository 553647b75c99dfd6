"""What all commands share: where the services are, how errors end a command, how a coroutine is run.

Invariant: a command that fails says why in one line on standard error and ends with status 1; Ctrl-C ends with 130.
"""

import asyncio
import sys
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import typer
from rich.console import Console
from rich.markup import escape
from wideseek_atlas import seed_policy_path
from wideseek_client import Client, Endpoints, MissingEndpointError
from wideseek_kit.errors import ServiceError, Unavailable

from wideseek_cli.home import Home
from wideseek_cli.suite.control import SuiteError, current, required
from wideseek_cli.suite.supervisor import StartFailedError

T = TypeVar("T")
INTERRUPTED = 130

#: In a file or a pipe nobody is helped by columns cut to the width of an unknown terminal.
_FILE_WIDTH = 160


def _console(*, stderr: bool) -> Console:
    is_terminal = (sys.stderr if stderr else sys.stdout).isatty()
    return Console(stderr=stderr, highlight=False, width=None if is_terminal else _FILE_WIDTH)


out = _console(stderr=False)
err = _console(stderr=True)


class UsageError(Exception):
    """What the person gave cannot be used; the message names it."""


def endpoints() -> Endpoints:
    """The services' addresses: from WIDESEEK_LEAD_TARGET and so on if any is set, else the suite of the home.

    Raises:
        SuiteError: no address is set, and no suite is up.
    """
    told = Endpoints.from_environment()
    return told if told != Endpoints() else required(Home.here()).endpoints


def client() -> Client:
    """A client of these services; it waits little, for a person does."""
    return Client(endpoints(), patience=5.0)


def uses_seed_policy() -> bool:
    """Whether the services are those of a local suite that runs the seed policy, which is at its best when greedy."""
    state = current(Home.here())
    own = state is not None and Endpoints.from_environment() == Endpoints()
    return own and state is not None and Path(state.model) == seed_policy_path().resolve()


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a command's coroutine to its end; Ctrl-C cancels it and ends the command once it has cleaned up."""
    with reporting():
        return asyncio.run(work)


@contextmanager
def reporting() -> Iterator[None]:
    """Turn errors into one line and an exit status."""
    try:
        yield
    except (KeyboardInterrupt, asyncio.CancelledError):
        raise typer.Exit(INTERRUPTED) from None
    except ServiceError as error:
        hint = " (is it up? `wideseek status`)" if isinstance(error, Unavailable) else ""
        fail(f"{error.message} [{error.reason}]{hint}")
    except (SuiteError, StartFailedError, UsageError, MissingEndpointError, OSError) as error:
        fail(str(error))


def fail(message: str) -> None:
    """Say what went wrong and end with status 1.

    Raises:
        typer.Exit: always.
    """
    err.print(f"[bold red]error:[/] {escape(message)}", soft_wrap=True)
    raise typer.Exit(1)


def say(message: str) -> None:
    """A line about how it goes, on standard error, so that standard output holds results only."""
    err.print(escape(message), soft_wrap=True)
