"""The commands as a person runs them, against services of this process: what is said, what is sent, how it ends."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from wideseek.lead.v1 import lead_service_pb2 as pb

PLAIN = """\
episode e1: Which moons?
lead starts: Which moons?
s1 starts: Find Ada.
s2 starts: Find Bo.
s1 turn 1: searches Ada
s1 is done: Ada: radius 5.
s2 failed: UNAVAILABLE: tools are away
lead turn 1: asks 2 subagents
lead turn 2: answers
lead is done: | name |
episode e1 succeeded: 3 agents, 3 turns, 1 tool call, 30 tokens, policy version 3, 2.5 s
"""
TABLE = """\
| name | radius | sources |
| --- | --- | --- |
| Ada | 5 | https://a.test/Ada |
| Bo | unknown |  |
"""


def test_ask_tells_its_progress_and_answers_with_sources(suite: Any) -> None:
    result = suite.run("ask", "Which moons?", "--columns", "name, radius", "--key", "name", "--max-subagents", "4")
    assert result.stderr == PLAIN
    assert result.stdout == TABLE
    assert result.exit_code == 0
    options = suite.lead.created[0].options
    assert list(options.required_columns) == ["name", "radius"]
    assert list(options.key_columns) == ["name"]
    assert options.limits.max_subagents == 4
    assert not options.limits.HasField("max_turns")
    assert not options.sampling.HasField("temperature")
    assert suite.lead.created[0].request_id


def test_every_option_of_ask_arrives(suite: Any) -> None:
    arguments = ["--corpus", "c", "--mode", "single", "--format", "boxed", "--language", "zh", "--deadline", "1.5"]
    arguments += ["--max-turns", "2", "--max-tool-calls", "3", "--max-tokens", "4", "--temperature", "0", "--seed", "5"]
    assert suite.run("ask", "q", *arguments, "--model", "judge", "--pack", "full").exit_code == 0
    options = suite.lead.created[0].options
    assert options.mode == pb.EPISODE_MODE_SINGLE_AGENT
    assert options.answer_format == pb.ANSWER_FORMAT_BOXED
    assert (options.corpus, options.language, options.model, options.prompt_pack) == ("c", "zh", "judge", "full")
    limits = options.limits
    assert (limits.max_turns, limits.max_tool_calls, limits.max_output_tokens) == (2, 3, 4)
    assert limits.deadline.ToMilliseconds() == 1500
    assert options.sampling.HasField("temperature")
    assert options.sampling.seed == 5


def test_ask_as_json_is_json_and_nothing_else(suite: Any) -> None:
    result = suite.run("ask", "Which moons?", "--json")
    assert json.loads(result.stdout)["answer"]["rows"][0]["cells"] == ["Ada", "5"]
    assert result.stderr == ""


def test_an_episode_without_an_answer_says_why_and_ends_with_status_one(suite: Any) -> None:
    failed = pb.Episode(episode_id="e1", state=pb.Episode.STATE_FAILED)
    failed.error.message = "the lead that ran it died"
    suite.lead.messages[-1].finished.CopyFrom(failed)
    result = suite.run("ask", "Which moons?")
    assert result.exit_code == 1
    assert result.stdout == "no answer: failed: the lead that ran it died\n"


def test_a_refused_question_is_one_line(suite: Any) -> None:
    result = suite.run("ask", "")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "error: question: is empty [INVALID_ARGUMENT]\n"


def test_without_a_suite_a_command_says_how_to_get_one(suite: Any, tmp_path: Path) -> None:
    suite.environment = {"WIDESEEK_HOME": str(tmp_path)}
    for arguments in (["ask", "q"], ["status"], ["episodes"], ["policies", "list"]):
        result = suite.run(*arguments)
        assert result.exit_code == 1
        assert result.stderr.endswith(f"error: no suite is up in {tmp_path}: start one with `wideseek up`\n")
    assert suite.run("down").stdout == f"no suite is up in {tmp_path}\n"


def test_a_service_that_is_not_there_is_one_line(suite: Any) -> None:
    suite.environment["WIDESEEK_LEAD_TARGET"] = "127.0.0.1:1"
    result = suite.run("episodes")
    assert result.exit_code == 1
    assert "[UNAVAILABLE] (is it up? `wideseek status`)" in result.stderr
    assert result.stderr.count("\n") == 1


def hear_interrupts() -> None:
    """Undo what a shell does to the jobs that it starts in the background: ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_an_interrupted_ask_cancels_its_episode(suite: Any) -> None:
    suite.lead.hang_after = 3
    command = [sys.executable, "-c", "from wideseek_cli.main import app; app()", "ask", "Which moons?"]
    environment = {**os.environ, **suite.environment}
    with subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, text=True, preexec_fn=hear_interrupts
    ) as asking:
        assert asking.stderr is not None
        while not asking.stderr.readline().startswith("s1 starts"):
            assert asking.poll() is None
        asking.send_signal(signal.SIGINT)
        said = asking.stderr.read()
        assert asking.wait(20) == 130
    assert said == "episode e1 is cancelled\n"
    assert suite.lead.cancelled == ["e1"]


def test_an_interrupted_watch_leaves_the_episode_alone(suite: Any) -> None:
    suite.lead.hang_after = 3
    command = [sys.executable, "-c", "from wideseek_cli.main import app; app()", "watch", "e1"]
    environment = {**os.environ, **suite.environment}
    with subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, text=True, preexec_fn=hear_interrupts
    ) as watching:
        assert watching.stderr is not None
        while not watching.stderr.readline().startswith("s1 starts"):
            assert watching.poll() is None
        watching.send_signal(signal.SIGINT)
        said = watching.stderr.read()
        assert watching.wait(20) == 130
    assert said == "episode e1 goes on\n"
    assert suite.lead.cancelled == []


def test_watch_shows_episodes_and_runs(suite: Any) -> None:
    assert suite.run("watch", "e1").stdout == TABLE
    run = suite.run("watch", "r1")
    figures = ["1", "1", "0.250", "0.300", "-0.0100", "1", "1.0", "s", "2.0", "s", "3.0", "s"]
    assert run.stdout.split("\n")[1].split() == figures
    missing = suite.run("watch", "x9")
    assert missing.stderr == "error: no episode x9 [EPISODE_NOT_FOUND]\n"


def test_episodes_are_listed(suite: Any) -> None:
    result = suite.run("episodes")
    assert result.stdout.split("\n")[1].split()[:3] == ["e1", "succeeded", "Which"]
    assert "2.5 s" in result.stdout
    assert result.stderr == "only the newest 20 are shown: --limit shows more\n"
    assert suite.run("episodes", "--state", "odd").stderr.startswith("error: --state odd: one of running")
    assert json.loads(suite.run("episodes", "--json").stdout)["next_page_token"] == "more"


def test_train_sends_what_it_is_told_and_shows_each_update(suite: Any, tmp_path: Path) -> None:
    tasks = tmp_path / "tasks.jsonl"
    tasks.touch()
    result = suite.run(
        "train", "--tasks", str(tasks), "--steps", "2", "--learning-rate", "1e-4", "--temperature", "0.7"
    )
    assert result.exit_code == 0, result.stderr
    config = suite.trainer.created[0]
    assert (config.task_set_uri, config.steps, config.learning_rate) == (str(tasks), 2, 1e-4)
    assert config.episode.sampling.temperature == pytest.approx(0.7)
    assert not config.HasField("group_size")
    assert len(result.stdout.strip().split("\n")) == 4
    assert "run r1: succeeded, 2 of 2 updates, policy version 2" in result.stdout
    assert suite.run("train", "--tasks", str(tmp_path / "none")).exit_code == 2


def test_policies_are_listed_and_promoted(suite: Any) -> None:
    assert suite.run("policies", "list").stdout.split("\n")[1].split()[:5] == ["→", "2", "r1", "2", "0.500"]
    assert suite.run("policies", "promote", "1").stdout.startswith("policy version 1 is announced")
    assert suite.trainer.promoted == [1]


def test_runs_are_listed_and_cancelled(suite: Any) -> None:
    assert suite.run("runs").stdout.startswith("run r1: succeeded, 2 of 2 updates")
    assert suite.run("runs", "--cancel", "r1").exit_code == 0


def test_ingest_reads_pages_of_both_forms(suite: Any, tmp_path: Path) -> None:
    file = tmp_path / "pages.jsonl"
    ours = {"url": "u1", "text": "t1", "title": "T", "snippet": "s", "corpus": "own"}
    file.write_text(json.dumps(ours) + "\n\n" + json.dumps({"url": "u2", "contents": "t2"}) + "\n")
    result = suite.run("ingest", str(file), "--corpus", "given")
    assert (result.stdout, result.exit_code) == ("2 pages stored\n", 0)
    one, other = suite.corpus.pages
    assert (one.url, one.text, one.title, one.snippet, one.corpus) == ("u1", "t1", "T", "s", "own")
    assert (other.url, other.text, other.corpus) == ("u2", "t2", "given")
    assert suite.run("corpora").stdout == "moons: 2 pages\n"


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("{", "not JSON: "),
        ("[]", "a page is an object, this is a list"),
        ('{"text": "t"}', "url: is missing"),
        ('{"url": "u", "text": ""}', "text: is empty"),
        ('{"url": "u", "text": "t", "title": 5}', "title: 5 is not a string"),
    ],
)
def test_a_page_that_cannot_be_used_is_named(suite: Any, tmp_path: Path, line: str, fault: str) -> None:
    file = tmp_path / "pages.jsonl"
    file.write_text('{"url": "u", "text": "t"}\n' + line + "\n")
    result = suite.run("ingest", str(file))
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: {file}:2: {fault}")
    assert suite.corpus.pages == []


def test_atlas_files_can_be_ingested_and_trained_on(suite: Any, tmp_path: Path) -> None:
    made = suite.run("atlas", str(tmp_path), "--worlds", "2", "--per-world", "2", "--split", "heldout")
    assert made.exit_code == 0
    assert suite.run("ingest", str(tmp_path / "pages.jsonl")).exit_code == 0
    assert {page.corpus for page in suite.corpus.pages} == {"atlas-heldout-000000", "atlas-heldout-000001"}
    task = json.loads((tmp_path / "tasks.jsonl").read_text().split("\n")[0])
    assert {"question", "answer", "unique_columns", "instance_id", "corpus"} <= task.keys()
