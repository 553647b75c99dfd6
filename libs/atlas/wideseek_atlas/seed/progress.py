"""Lines of progress, printed at once, so that a long run can be watched through a pipe."""

import sys


def say(line: str) -> None:
    """Print a line."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
