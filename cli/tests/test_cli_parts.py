"""The local suite's parts: settings that the services really have, ports that are free, logs that can be read."""

import importlib
import inspect
import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import wideseek_atlas
from wideseek_cli.home import Home
from wideseek_cli.suite.logs import tail, unmet_conditions
from wideseek_cli.suite.parts import Ports, SuiteOptions, local_parts
from wideseek_kit.settings import ServiceSettings

SERVICES = ("tools", "inference", "subagent", "lead", "trainer")


def settings_of(service: str) -> type[ServiceSettings]:
    module = importlib.import_module(f"wideseek_{service}.settings")
    (found,) = (
        kind
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, ServiceSettings) and kind is not ServiceSettings
    )
    return found


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_knows_every_variable_that_it_is_given(service: str, tmp_path: Path) -> None:
    parts = {part.name: part for part in local_parts(Home(tmp_path), Ports.free(), SuiteOptions().resolved())}
    kind = settings_of(service)
    prefix = str(kind.model_config.get("env_prefix"))
    given = {name for name in parts[service].environment if name.startswith("WIDESEEK_")}
    known = {f"{prefix}{name.upper()}" for name in kind.model_fields}
    assert given <= known
    assert f"{prefix}LISTEN" in given


def test_parts_stop_before_those_they_need(tmp_path: Path) -> None:
    parts = local_parts(Home(tmp_path), Ports.free(), SuiteOptions().resolved())
    names = [part.name for part in parts]
    assert names == ["nats", *SERVICES]
    for part in parts:
        assert all(names.index(other) < names.index(part.name) for other in (*part.needs, *part.starts_after))


def test_ports_are_free_and_differ() -> None:
    ports = Ports.free()
    numbers = list(vars(ports).values())
    assert len(set(numbers)) == 8
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", ports.lead))


def test_the_seed_policy_gets_its_own_prompt_pack(tmp_path: Path) -> None:
    seed = str(wideseek_atlas.seed_policy_path().resolve())
    assert SuiteOptions().resolved() == SuiteOptions(seed, "seed")
    assert SuiteOptions(str(tmp_path)).resolved() == SuiteOptions(str(tmp_path), "full")
    assert SuiteOptions("Qwen/Qwen3-4B").resolved() == SuiteOptions("Qwen/Qwen3-4B", "full")
    assert SuiteOptions(str(tmp_path), "seed").resolved().prompt_pack == "seed"
    with pytest.raises(FileNotFoundError, match="no model directory"):
        SuiteOptions(str(tmp_path / "none")).resolved()


def test_the_end_of_a_log_is_readable(tmp_path: Path) -> None:
    log = tmp_path / "log"
    entries = [
        {"levelname": "INFO", "name": "a", "message": "loading"},
        {"levelname": "ERROR", "name": "a", "message": "it broke", "exc_info": "Traceback\n  x\nValueError: 3 > 2"},
    ]
    log.write_text("plain\n" + "".join(json.dumps(entry) + "\n" for entry in entries) + "{half")
    assert tail(log) == ["plain", "INFO loading", "ERROR it broke: ValueError: 3 > 2", "{half"]
    assert tail(log, 1) == ["{half"]
    assert tail(tmp_path / "none") == []


def test_the_last_word_on_each_condition_counts(tmp_path: Path) -> None:
    log = tmp_path / "log"
    said = ["nats: refused", "policy: behind", "nats: ok", "policy: version 3 is damaged: x"]
    lines = [json.dumps({"name": "wideseek_kit.serve", "message": text}) for text in said]
    log.write_text("\n".join([*lines, json.dumps({"name": "other", "message": "nats: gone"})]) + "\n")
    assert unmet_conditions(log) == ["policy: version 3 is damaged: x"]


def test_help_needs_neither_matplotlib_nor_torch() -> None:
    code = (
        "import sys, wideseek_cli.main; print([m for m in ('matplotlib', 'torch', 'ray', 'vllm') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
