import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from wideseek.inference.v1 import inference_service_pb2_grpc as inference_grpc
from wideseek.subagent.v1 import subagent_service_pb2 as pb
from wideseek.subagent.v1 import subagent_service_pb2_grpc as pb_grpc
from wideseek_agent.messages import Message
from wideseek_agent.testing import INFERENCE, ScriptedInference
from wideseek_kit.channels import open_channel
from wideseek_kit.testing import eventually, grpc_server

COMMAND = [sys.executable, "-m", "wideseek_subagent"]


@pytest.fixture
def service(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    process = start(tmp_path)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def start(folder: Path) -> subprocess.Popen[bytes]:
    variables = {
        "LISTEN": f"unix:{folder}/s",
        "PORT_FILE": f"{folder}/port",
        "INFERENCE_TARGET": f"unix:{folder}/inference",
        "DRAIN_GRACE": "20",
    }
    environment = os.environ | {f"WIDESEEK_SUBAGENT_{name}": value for name, value in variables.items()}
    return subprocess.Popen(COMMAND, env=environment, stderr=subprocess.PIPE)


async def test_a_signal_in_mid_stream_lets_the_subtask_end(service: subprocess.Popen[bytes], tmp_path: Path) -> None:
    go = asyncio.Event()

    async def script(_: Sequence[Message]) -> str:
        await go.wait()
        return "Zark: moon Ono."

    inference = ScriptedInference(script)
    async with grpc_server(
        lambda server: inference_grpc.add_InferenceServiceServicer_to_server(inference, server), INFERENCE
    ) as target:
        (tmp_path / "inference").symlink_to(target.removeprefix("unix:"))
        await eventually(lambda: (tmp_path / "port").exists(), 60)
        async with open_channel(f"unix:{tmp_path}/s") as channel:
            request = pb.RunSubtaskRequest(episode_id="e", agent_id="s1", prompt="Find it.", prompt_pack="seed")
            call = pb_grpc.SubagentServiceStub(channel).RunSubtask(request)
            await eventually(lambda: inference.active == 1)
            service.send_signal(signal.SIGTERM)
            await asyncio.sleep(0.3)
            go.set()
            responses = [response async for response in call]
        assert responses[-1].report.text == "Zark: moon Ono."
        _, log = await asyncio.to_thread(service.communicate, timeout=30)
    assert service.returncode == 0, log.decode()


def test_help_names_every_setting_without_loading_the_service() -> None:
    shown = subprocess.run([*COMMAND, "--help"], capture_output=True, text=True, check=True, timeout=60)
    assert "WIDESEEK_SUBAGENT_INFERENCE_TARGET" in shown.stdout
    assert "WIDESEEK_SUBAGENT_SUMMARIZE_OVER_CHARS  (default 4000)" in shown.stdout


def test_a_wrong_setting_is_one_line() -> None:
    environment = os.environ | {"WIDESEEK_SUBAGENT_MAX_SUBTASKS": "0"}
    ended = subprocess.run(COMMAND, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 2
    assert ended.stderr.startswith("python -m wideseek_subagent: WIDESEEK_SUBAGENT_MAX_SUBTASKS='0': ")
    assert len(ended.stderr.splitlines()) == 1


def test_a_missing_prompt_pack_ends_the_start() -> None:
    environment = os.environ | {"WIDESEEK_SUBAGENT_PROMPT_PACK": "none"}
    ended = subprocess.run(COMMAND, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 1
    assert "WIDESEEK_SUBAGENT_PROMPT_PACK: prompt pack 'none' has no language 'en'" in ended.stderr


def test_the_service_loads_no_engine() -> None:
    code = (
        "import sys, wideseek_subagent.wiring\n"
        "print(sorted({'torch', 'vllm', 'ray', 'transformers', 'tantivy'} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert shown.stdout.strip() == "[]"
