"""The background supervisor: `python -m wideseek_cli.suite HOME MODEL PROMPT_PACK`."""

import sys
from pathlib import Path

from wideseek_cli.home import Home
from wideseek_cli.suite.control import SuiteError
from wideseek_cli.suite.daemon import run
from wideseek_cli.suite.parts import SuiteOptions
from wideseek_cli.suite.supervisor import StartFailedError

if __name__ == "__main__":
    try:
        run(Home(Path(sys.argv[1])), SuiteOptions(*sys.argv[2:4]))
    except (SuiteError, StartFailedError, OSError) as error:
        sys.exit(str(error))
