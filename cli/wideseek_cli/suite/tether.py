"""Runs a command that ends with its parent: `python -IS tether.py PARENT_PID COMMAND...`.

Invariant: on Linux the kernel sends SIGTERM to the command when the supervisor dies, however it dies; elsewhere the
command simply runs. It keeps the process id, so the supervisor waits on the command itself.
"""

import os
import sys

_PR_SET_PDEATHSIG = 1


def main(parent: int, command: list[str]) -> None:
    """Become `command`."""
    if sys.platform == "linux":
        import ctypes
        import signal

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before the request
            sys.exit(1)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
