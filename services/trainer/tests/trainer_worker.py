"""A trainer that dies where it is told to: run as a script, it forks a trainer for each line of its standard input.

A line is JSON: {"settings": {...}, "tasks": path, "log": path, "kill": {"port", "method", "call", "when"} or null}. The
answer is the trainer's exit status. Forking from a process that has imported everything saves the imports.
"""

import asyncio
import json
import os
import signal
import sys
import threading
import time
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from wideseek.trainer.v1 import trainer_service_pb2 as pb
from wideseek_kit.testing import eventually
from wideseek_trainer.core.ports import Ports
from wideseek_trainer.settings import Settings
from wideseek_trainer.testing import local_learners
from wideseek_trainer.wiring import building


class Deadly:
    """A port that kills the process around one call, and logs all."""

    def __init__(self, name: str, inner: Any, log: Path, kill: dict[str, Any] | None) -> None:
        self._name, self._inner, self._log, self._kill = name, inner, log, kill
        self._calls: dict[str, int] = {}

    def __getattr__(self, method: str) -> Any:
        inner = getattr(self._inner, method)

        async def call(*arguments: Any) -> Any:
            self._calls[method] = self._calls.get(method, 0) + 1
            kill = self._kill or {}
            here = kill.get("method") == method and kill.get("call") == self._calls[method]
            with self._log.open("a") as log:
                log.write(f"{self._name}.{method}\n")
            if here and kill["when"] == "before":
                die()
            if here and kill["when"] == "during":
                threading.Timer(0.004, die).start()
            result = await inner(*arguments)
            if here:
                die()
            return result

        return call


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(10)


async def train(order: dict[str, Any]) -> None:
    kill = order["kill"]

    def around(ports: Ports) -> Ports:
        watched = {"learners", "policies", "journal", "events"}
        return replace(
            ports,
            **{
                field.name: Deadly(
                    field.name,
                    getattr(ports, field.name),
                    Path(order["log"]),
                    kill if kill and kill["port"] == field.name else None,
                )
                for field in fields(ports)
                if field.name in watched
            },
        )

    config = pb.TrainingConfig(
        task_set_uri=order["tasks"], steps=3, questions_per_step=2, group_size=2, max_staleness=9, seed=4
    )
    async with building(Settings(**order["settings"]), local_learners, around) as (servicer, _, readiness):
        await eventually(lambda: not readiness.faults, 20)
        request = pb.CreateTrainingRunRequest(request_id="the-run", config=config)
        run = (await servicer.CreateTrainingRun(request, None)).run
        async for message in servicer.WatchTrainingRun(pb.WatchTrainingRunRequest(run_id=run.run_id), None):
            if message.WhichOneof("event") == "finished":
                assert message.finished.state == pb.TrainingRun.STATE_SUCCEEDED, message


def main() -> None:
    torch.set_num_threads(1)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            try:
                asyncio.run(train(json.loads(line)))
            except BaseException:
                import traceback

                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
