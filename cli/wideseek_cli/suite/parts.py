"""The parts of a local suite: which commands, which environment, which ports.

Invariant: every port is free when it is chosen and stays the same over restarts, so the others find a part again.
"""

import asyncio
import socket
import sys
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import wideseek_atlas
from wideseek_client import Client, Endpoints
from wideseek_kit.nats_server import nats_binary

from wideseek_cli.home import Home
from wideseek_cli.suite.process import Part

#: The prompt pack that a model knows: the seed policy its own, every other the full one.
SEED_PACK, FULL_PACK = "seed", "full"
_LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class SuiteOptions:
    """What a person can choose of a local suite; empty fields mean the seed policy and the pack that fits the model."""

    model: str = ""
    prompt_pack: str = ""

    def resolved(self) -> "SuiteOptions":
        """The same with every default filled in.

        Raises:
            FileNotFoundError: the model looks like a path, and there is no such directory.
        """
        seed = wideseek_atlas.seed_policy_path()
        model = Path(self.model) if self.model else seed
        if not model.is_dir() and (self.model.startswith((".", "/", "~")) or not self.model):
            raise FileNotFoundError(f"no model directory {model}")
        name = str(model.resolve()) if model.is_dir() else self.model
        return SuiteOptions(name, self.prompt_pack or (SEED_PACK if name == str(seed.resolve()) else FULL_PACK))


@dataclass(frozen=True)
class Ports:
    """One free port for each listener."""

    nats: int
    nats_monitor: int
    tools: int
    inference: int
    weights: int
    subagent: int
    lead: int
    trainer: int

    @classmethod
    def free(cls) -> "Ports":
        """Ports that nobody listens on, each another."""
        probes = [socket.socket() for _ in range(8)]
        try:
            for probe in probes:
                probe.bind((_LOOPBACK, 0))
            return cls(*(probe.getsockname()[1] for probe in probes))
        finally:
            for probe in probes:
                probe.close()

    @property
    def endpoints(self) -> Endpoints:
        """Where clients find the services."""
        return Endpoints(
            lead=_address(self.lead),
            trainer=_address(self.trainer),
            tools=_address(self.tools),
            inference=_address(self.inference),
            weights=_address(self.weights),
            subagent=_address(self.subagent),
        )

    @property
    def nats_url(self) -> str:
        """Where clients find NATS."""
        return f"nats://{_address(self.nats)}"


def local_parts(home: Home, ports: Ports, options: SuiteOptions) -> list[Part]:
    """nats-server and the five services, wired to each other. `options` have to be resolved."""
    inference, tools = _address(ports.inference), _address(ports.tools)
    subagent, lead = _address(ports.subagent), _address(ports.lead)
    pack = {"prompt_pack": options.prompt_pack}
    return [
        _nats(home, ports),
        _service("tools", ports.tools, {"data_dir": str(home.data("tools"))}),
        _service(
            "inference",
            ports.inference,
            {"listen_weights": _address(ports.weights), "model": options.model, "nats": ports.nats_url},
            needs=("nats",),
        ),
        _service(
            "subagent",
            ports.subagent,
            {"inference_target": inference, "tools_target": tools, **pack},
            needs=("inference", "tools"),
        ),
        _service(
            "lead",
            ports.lead,
            {"inference": inference, "subagent": subagent, "nats_url": ports.nats_url, **pack},
            needs=("nats", "inference", "subagent"),
        ),
        _service(
            "trainer",
            ports.trainer,
            {
                "lead_address": lead,
                "inference_address": inference,
                "nats_url": ports.nats_url,
                "initial_policy": options.model,
                "state_dir": str(home.data("trainer")),
                "policy_store_uri": str(home.data("policies")),
            },
            needs=("nats", "lead", "inference"),
        ),
    ]


def _address(port: int) -> str:
    return f"{_LOOPBACK}:{port}"


def _nats(home: Home, ports: Ports) -> Part:
    async def ready() -> bool:
        url = f"http://{_address(ports.nats_monitor)}/healthz?js-enabled-only=true"
        await asyncio.to_thread(lambda: urllib.request.urlopen(url, timeout=1).close())
        return True

    listen = ["-a", _LOOPBACK, "-p", str(ports.nats), "-m", str(ports.nats_monitor)]
    return Part("nats", [nats_binary(), "-js", "-sd", str(home.data("nats")), *listen], ready, ports.nats)


def _service(name: str, port: int, settings: Mapping[str, str], needs: tuple[str, ...] = ()) -> Part:
    own = {"listen": _address(port), "drain_grace": "5", **settings}
    environment = {f"WIDESEEK_{name.upper()}_{key.upper()}": value for key, value in own.items()}
    # Small models on a small machine: threads of one process would only get in the way of the others'.
    environment["OMP_NUM_THREADS"] = "1"
    return Part(
        name,
        [sys.executable, "-m", f"wideseek_{name}"],
        lambda: grpc_ready(name, port),
        port,
        environment,
        starts_after=("nats",),
        needs=needs,
    )


async def grpc_ready(service: str, port: int) -> bool:
    """Whether the service at `port` says that it can work.

    Raises:
        OSError: nobody listens there. Asked first, for a gRPC channel that met a closed port waits longer each time.
        ServiceError: it does not answer.
    """
    _, writer = await asyncio.open_connection(_LOOPBACK, port)
    writer.close()
    await writer.wait_closed()
    async with Client(Endpoints(**{service: _address(port)}), patience=0) as client:
        return await client.is_ready(service)
