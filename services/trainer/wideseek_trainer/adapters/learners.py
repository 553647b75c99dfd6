"""Learners as Ray actors: one process each, the same update for any number of them.

Invariants: each learner holds the whole model and a share of the micro-batches, and gradients are summed over all, so
N learners make the update of one; Ray is imported when the first run starts, never before; a Ray of the service's own
listens on loopback only and ends with the service, also when that is killed (Linux ends children with their parent).
"""

import asyncio
import contextlib
import logging
import os
import secrets
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wideseek_trainer.core.errors import PolicyUnusableError, TrainerError, UpdateFailedError
from wideseek_trainer.core.learner import Collective, Learner, LearnerSpec
from wideseek_trainer.core.sequences import TrainSequence

# A Unix socket's path may have 107 characters; Ray puts up to 64 behind its directory.
_MOST_PATH = 40
_OBJECT_STORE = 128 << 20
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RayPlace:
    """Where learners run. An empty `address` is a Ray of the service's own with its files below `directory`."""

    count: int
    threads: int
    gpus: float
    address: str
    directory: Path


class LearnerProcess:
    """What runs inside an actor."""

    def __init__(self, spec: LearnerSpec, rank: int, world: int, threads: int) -> None:
        """Prepare; `join` loads the model."""
        import torch
        from transformers.utils import logging as transformers_logging

        transformers_logging.disable_progress_bar()
        torch.set_num_threads(threads)
        self._spec = spec
        self._rank = rank
        self._world = world
        self._learner: Learner | None = None

    def rendezvous(self) -> str:
        """An address at which learners of other processes can meet this one."""
        import socket

        import ray

        with socket.socket() as probe:
            probe.bind(("", 0))
            return f"tcp://{ray.util.get_node_ip_address()}:{probe.getsockname()[1]}"

    def join(self, address: str, resume: str) -> None:
        """Meet the others at `address`, load the model, go on from the checkpoint `resume` unless it is empty."""
        self._learner = Learner(self._spec, self._collective(address) if self._world > 1 else None)
        if resume:
            self._learner.load(Path(resume))

    def _collective(self, address: str) -> Collective:
        import torch
        import torch.distributed as dist

        backend = "nccl" if self._spec.device == "cuda" else "gloo"
        dist.init_process_group(backend, init_method=address, rank=self._rank, world_size=self._world)

        def reduced(value: "torch.Tensor", operation: "dist.ReduceOp.RedOpType") -> "torch.Tensor":
            moved = value.to(self._spec.device)
            dist.all_reduce(moved, operation)
            return moved.to(value.device)

        return Collective(
            self._rank,
            self._world,
            lambda value: reduced(value, dist.ReduceOp.SUM),
            lambda value: reduced(value, dist.ReduceOp.MAX),
        )

    def update(self, sequences: Sequence[TrainSequence]) -> dict[str, float]:
        """Take part in an update."""
        assert self._learner is not None, "join comes first"
        return self._learner.update(sequences)

    def save(self, directory: str) -> None:
        """Write weights and state; all learners hold the same, so one of them does it."""
        assert self._learner is not None, "join comes first"
        self._learner.save(Path(directory))


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Keep the process's signal handlers: Ray puts its own over them, which abort the process 3 s after a SIGTERM."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
            signal.siginterrupt(number, False)


def start_with_patience(start: Callable[[], None], clear: Callable[[], None], attempts: int = 4) -> None:
    """Call `start` until it succeeds, with `clear` after each failure; the last failure is raised.

    Ray gives its own processes 30 s to start, which no option changes; a machine at work can need longer.
    """
    for attempt in range(1, attempts + 1):
        try:
            start()
            return
        except Exception as error:  # Ray raises bare exceptions here
            clear()
            if attempt == attempts:
                raise
            _log.warning("Ray did not start (attempt %d of %d): %s", attempt, attempts, error)


class RayLearners:
    """The learners of a run."""

    def __init__(self, place: RayPlace, spec: LearnerSpec) -> None:
        """Prepare; `start` brings them up."""
        self._place = place
        self._spec = spec
        self._actors: list[Any] = []
        self._scratch: Path | None = None

    async def start(self, base: Path, resume: Path | None) -> None:
        """Start Ray and the actors, and load the model; some ten to twenty seconds."""
        with _own_signals():
            self._actors = await asyncio.to_thread(self._bring_up)
        try:
            address = await self._result(self._actors[0].rendezvous.remote())
            await self._all("join", address, str(resume or ""))
        except UpdateFailedError as error:
            raise PolicyUnusableError(f"{base}: {error.message}", directory=base) from error

    def _bring_up(self) -> list[Any]:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        place = self._place
        if (
            not place.address
        ):  # a cluster of our own has a password of its own, which leaves nothing in the home directory
            os.environ.setdefault("RAY_AUTH_MODE", "token")
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        import ray

        if place.address:
            ray.init(address=place.address, log_to_driver=False, logging_level=logging.WARNING)
        else:
            start_with_patience(self._start_own_ray, ray.shutdown)
        # No runtime_env: with one, Ray would start other processes than those that it has ready.
        actor = ray.remote(num_cpus=1, num_gpus=place.gpus)(LearnerProcess)
        return [actor.remote(self._spec, rank, place.count, place.threads) for rank in range(place.count)]

    def _start_own_ray(self) -> None:
        import ray

        ray.init(
            num_cpus=self._place.count,
            num_gpus=round(self._place.count * self._place.gpus),
            include_dashboard=False,
            object_store_memory=_OBJECT_STORE,
            log_to_driver=False,
            logging_level=logging.WARNING,
            _node_ip_address="127.0.0.1",
            _temp_dir=str(self._directory()),
        )

    def _directory(self) -> Path:
        directory = self._place.directory.absolute()
        if len(str(directory)) > _MOST_PATH:
            directory = Path(tempfile.mkdtemp(prefix="wideseek-ray-"))
            _log.info("%s is too long a path for Ray's sockets; using %s", self._place.directory, directory)
        self._scratch = directory
        return directory

    async def update(self, sequences: Sequence[TrainSequence]) -> dict[str, float]:
        """Make one update with all learners."""
        import ray

        shared = await asyncio.to_thread(ray.put, list(sequences))
        figures: dict[str, float] = (await self._all("update", shared))[0]
        return figures

    async def save(self, directory: Path) -> None:
        """Write weights and state."""
        await self._result(self._actors[0].save.remote(str(directory)))  # learners of another host see the same path

    async def close(self) -> None:
        """End the learners, and Ray if it is the service's own."""
        await asyncio.to_thread(self._tear_down)

    def _tear_down(self) -> None:
        import ray

        for actor in self._actors:
            ray.kill(actor)
        self._actors = []
        if ray.is_initialized():
            ray.shutdown()
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)  # logs of a Ray that has ended

    async def _all(self, method: str, *arguments: object) -> list[Any]:
        calls = [self._result(getattr(actor, method).remote(*arguments)) for actor in self._actors]
        return await asyncio.gather(*calls)

    async def _result(self, reference: Any) -> Any:
        import ray

        try:
            return await asyncio.wrap_future(reference.future())
        except TrainerError:
            raise
        except ray.exceptions.RayError as error:
            cause = getattr(error, "cause", None)
            if isinstance(cause, TrainerError):
                raise cause from error
            raise UpdateFailedError(f"a learner failed: {str(error).strip().splitlines()[-1]}") from error
