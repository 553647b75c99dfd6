"""The scripted expert: faultless without habits, worse with each."""

import random
from dataclasses import replace
from statistics import fmean

import pytest
from wideseek_agent.messages import AgentRole, Role
from wideseek_agent.pack import Pack
from wideseek_atlas import Split, Task, World, draw_tasks
from wideseek_atlas.expert import CALL_LIMIT, UNKNOWN, Demonstration, Expert
from wideseek_atlas.expert_single import MAX_MEMBERS, SingleExpert
from wideseek_atlas.habits import SEED_MIXTURE, Mixture
from wideseek_atlas.scoring import item_f1, table_items

PACK = Pack.load("seed", "en")


def drawn(worlds: int = 15, per_world: int = 8) -> list[tuple[World, Task]]:
    pairs = (draw_tasks(Split.VALIDATION, index, per_world) for index in range(worlds))
    return [(world, task) for world, tasks in pairs for task in tasks]


TASKS = drawn()


def play(mixture: Mixture, *, steady: bool = False) -> list[tuple[Task, Demonstration]]:
    rng = random.Random(5)
    return [(t, Expert(w, PACK, rng, mixture, steady=steady).demonstrate(t)) for w, t in TASKS]


def mean_score(mixture: Mixture) -> float:
    return fmean(item_f1(shown.answer, task) for task, shown in play(mixture))


def test_without_habits_every_answer_is_whole() -> None:
    assert mean_score(Mixture()) == 1.0


@pytest.mark.parametrize("habit", ["cut", "few", "cram", "snippet", "drop"])
def test_each_habit_costs(habit: str) -> None:
    assert mean_score(Mixture(**{habit: 1.0})) < 0.9


@pytest.mark.parametrize("habit", ["cut", "few", "cram", "snippet", "drop"])
def test_leaving_one_habit_off_pays_in_the_midst_of_the_others(habit: str) -> None:
    mixed = replace(SEED_MIXTURE, mishap=0.0)
    assert mean_score(replace(mixed, **{habit: 0.0})) > mean_score(mixed)


def test_the_seed_mixture_leaves_room_above_and_below() -> None:
    assert 0.3 < mean_score(SEED_MIXTURE) < 0.5


def test_no_call_asks_for_more_subagents_than_the_protocol_allows() -> None:
    for task, shown in play(Mixture()):
        lead = shown.transcripts[-1]
        sizes = [len(c.arguments["sub_agents"]) for m in lead.messages for c in m.tool_calls]
        assert max(sizes) <= CALL_LIMIT
        assert sum(sizes) == 1 + len(task.rows)
        assert len(sizes) == (3 if len(task.rows) > CALL_LIMIT else 2)


def test_an_agent_says_only_values_it_was_told() -> None:
    for _, shown in play(SEED_MIXTURE):
        for transcript in shown.transcripts:
            *told, said = transcript.messages
            if transcript.role is AgentRole.LEAD:
                heard = " ".join(m.content for m in told)
                assert all(cell in heard or cell == UNKNOWN for _, _, cell in table_items(said.content))


def test_a_budget_cut_short_lists_every_known_member() -> None:
    found = 0
    for task, shown in play(Mixture(mishap=1.0)):
        lead = shown.transcripts[-1]
        if lead.messages[-2].role is Role.USER and len(lead.messages) > 3:
            found += 1
            assert {row[0] for row in task.rows} == {key for key, _, _ in table_items(shown.answer)}
    assert found > 10


def test_the_search_order_does_not_change_the_answer() -> None:
    assert all(item_f1(shown.answer, task) == 1.0 for task, shown in play(Mixture(), steady=True))


def test_the_single_agent_reads_a_page_a_member() -> None:
    rng = random.Random(1)
    for world, task in TASKS:
        if len(task.rows) <= MAX_MEMBERS:
            shown = SingleExpert(world, PACK, rng, Mixture()).demonstrate(task)
            calls = [c for m in shown.transcripts[0].messages for c in m.tool_calls]
            assert item_f1(shown.answer, task) == 1.0
            assert [c.name for c in calls] == ["search", *["access"] * (1 + len(task.rows))]
