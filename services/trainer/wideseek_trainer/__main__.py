"""`python -m wideseek_trainer`."""

import os

from wideseek_kit.entry import main

from wideseek_trainer.settings import Settings

if __name__ == "__main__":
    # Ray forks; a forked gRPC would only log about it, the children never use it.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    main("trainer", Settings, "wideseek_trainer.wiring:run")
