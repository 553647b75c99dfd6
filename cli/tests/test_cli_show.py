"""What is drawn on a terminal."""

from typing import Any

import pytest
from rich.console import Console
from wideseek.lead.v1 import lead_service_pb2 as pb
from wideseek.trainer.v1 import trainer_service_pb2 as trainer_pb
from wideseek_cli.show.answer import show_answer
from wideseek_cli.show.progress import EpisodeView
from wideseek_cli.show.training import header, step_line
from wideseek_cli.show.tree import EpisodeTree

TREE = """\
agent      works on                     last step                    turns tools tokens time
✓ lead     Which moons?                 answers                          2     0     20 1.6 s
├─ ✓ s1    Find Ada.                    reports Ada: radius 5.            1     1     10 0.6 s
└─ ✗ s2    Find Bo.                     UNAVAILABLE: tools are away      0     0      0 0.6 s
succeeded · 3 agents, 3 turns, 1 tool call, 30 tokens, policy version 3 · 2.5 s
"""


def drawn(thing: Any, width: int = 92) -> str:
    console = Console(width=width, force_terminal=True, color_system=None, record=True, highlight=False)
    with console.capture() as captured:
        console.print(thing)
    return "\n".join(line.rstrip() for line in captured.get().split("\n"))


def squeezed(text: str) -> list[list[str]]:
    return [line.split() for line in text.strip().split("\n")]


def test_the_tree_tells_who_works_on_what(script: list[pb.WatchEpisodeResponse]) -> None:
    view = EpisodeView()
    for message in script:
        view.add(message)
    assert squeezed(drawn(EpisodeTree(view))) == squeezed(TREE)


def test_an_agent_at_work_has_a_running_clock(script: list[pb.WatchEpisodeResponse]) -> None:
    view = EpisodeView()
    for message in script[:4]:
        view.add(message)
    lines = drawn(EpisodeTree(view)).split("\n")
    assert len(lines) == 6
    assert lines[4].startswith("running · 3 agents, 0 turns")


def test_agents_at_work_when_the_episode_ends_are_shown_as_stopped(script: list[pb.WatchEpisodeResponse]) -> None:
    view = EpisodeView()
    for message in [*script[:4], script[-1]]:
        view.add(message)
    assert drawn(EpisodeTree(view)).count("■") == 3


def test_a_watch_that_began_later_shows_the_same_totals(script: list[pb.WatchEpisodeResponse]) -> None:
    view = EpisodeView()
    for message in [script[0], *script[4:]]:
        view.add(message)
    assert view.totals.startswith("3 agents, 3 turns, 1 tool call")


def test_an_answer_has_numbered_sources() -> None:
    rows = [
        pb.AnswerRow(cells=["A[1]", "5"], sources=["https://a.test/x"]),
        pb.AnswerRow(cells=["B", "6"], sources=["https://a.test/y", "https://a.test/x"]),
    ]
    episode = pb.Episode(answer=pb.Answer(columns=["name", "radius"], rows=rows, problems=["column mass is missing"]))
    console = Console(width=80, force_terminal=True, color_system=None)
    with console.capture() as captured:
        show_answer(console, episode)
    lines = [" ".join(line.replace("│", "").split()) for line in captured.get().split("\n")]
    assert "A[1] 5 [1]" in lines
    assert "B 6 [2] [1]" in lines
    assert lines[-4:] == ["[1] https://a.test/x", "[2] https://a.test/y", "note: column mass is missing", ""]


@pytest.mark.parametrize(("boxed", "text", "shown"), [("42", "so 42", "42\n"), ("", "plain", "plain\n")])
def test_other_answers_are_text(boxed: str, text: str, shown: str) -> None:
    console = Console(width=80, force_terminal=True, color_system=None)
    with console.capture() as captured:
        show_answer(console, pb.Episode(answer=pb.Answer(boxed=boxed, text=text)))
    assert captured.get() == shown


def test_an_update_stands_below_its_header() -> None:
    step = trainer_pb.TrainingStep(step=7, policy_version=12, metrics={"item_f1": 0.5}, seconds={"learn": 2.5})
    assert len(step_line(step)) == len(header())
    assert step_line(step).split() == ["7", "12", "0.500", "-", "-", "-", "-", "2.5", "s", "2.5", "s"]
