"""Where the NATS server's program is: whoever starts one, a local suite or a test, asks here."""

import shutil
import sys
from pathlib import Path


def nats_binary() -> str:
    """The path of nats-server: beside the interpreter, or on the PATH.

    Raises:
        FileNotFoundError: it is in neither place; whoever needs it does not go on without it.
    """
    beside = Path(sys.executable).parent / "nats-server"
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if not found:
        raise FileNotFoundError(f"nats-server is neither beside {sys.executable} nor on the PATH: run `make setup`")
    return found
