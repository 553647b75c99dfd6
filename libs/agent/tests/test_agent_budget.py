import asyncio
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wideseek_agent.budget import (
    KEPT_SECONDS,
    KEPT_TOKENS,
    LEAST_TURN_TOKENS,
    Budget,
    EpisodeBudget,
    Exhausted,
    Limits,
    kept_tokens,
)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def take_turn(budget: Budget, *, read: int, wrote: int, final: bool = False) -> None:
    with budget.turn(0, final=final) as grant:
        grant.charge(input_tokens=read, output_tokens=wrote)


@pytest.mark.parametrize("name", ["turns", "tool_calls", "output_tokens", "context_tokens"])
def test_a_limit_below_one_is_refused_by_name_and_figure(name: str) -> None:
    values = {"turns": 3} | {name: 0}
    with pytest.raises(ValueError, match=f"{name}: 0 given, at least 1"):
        Limits(**values)


def test_a_quarter_is_kept_back_up_to_a_bound() -> None:
    assert kept_tokens(1000) == 250
    assert kept_tokens(1_000_000) == KEPT_TOKENS


def test_the_last_turn_is_the_final_one() -> None:
    budget = Budget(Limits(turns=3))
    take_turn(budget, read=10, wrote=5)
    assert budget.exhausted() is None
    take_turn(budget, read=20, wrote=5)
    assert budget.exhausted() is Exhausted.TURNS


def test_one_turn_is_final_at_once() -> None:
    assert Budget(Limits(turns=1)).exhausted() is Exhausted.TURNS


def test_an_ordinary_turn_never_gets_the_share_kept_back() -> None:
    budget = Budget(Limits(turns=10, output_tokens=1000))
    assert budget.room(0, final=False) == 750
    take_turn(budget, read=10, wrote=740)
    assert budget.room(0, final=False) == 10 < LEAST_TURN_TOKENS
    assert budget.exhausted() is Exhausted.OUTPUT_TOKENS
    assert budget.room(0, final=True) == 260


def test_context_counts_what_is_about_to_be_appended() -> None:
    budget = Budget(Limits(turns=10, context_tokens=1000))
    take_turn(budget, read=300, wrote=100)
    assert budget.exhausted(pending_tokens=300) is None
    assert budget.room(300, final=False) == 50
    assert budget.exhausted(pending_tokens=340) is Exhausted.CONTEXT_TOKENS
    assert budget.room_for_messages() == 350


def test_the_deadline_comes_early_for_ordinary_turns() -> None:
    clock = Clock()
    budget = Budget(Limits(turns=10, seconds=40.0), clock=clock)
    clock.now += 29.0
    assert budget.seconds_left() == pytest.approx(1.0)
    assert budget.exhausted() is None
    clock.now += 2.0
    assert budget.exhausted() is Exhausted.DEADLINE
    assert budget.seconds_left(final=True) == pytest.approx(9.0)


def test_a_long_deadline_keeps_back_a_bounded_time() -> None:
    budget = Budget(Limits(turns=10, seconds=3600.0), clock=Clock())
    assert budget.seconds_left() == pytest.approx(3600.0 - KEPT_SECONDS)


def test_tool_calls_are_granted_up_to_the_limit() -> None:
    budget = Budget(Limits(turns=10, tool_calls=5))
    assert [budget.take_tool_calls(3), budget.take_tool_calls(3)] == [3, 2]
    assert budget.exhausted() is Exhausted.TOOL_CALLS
    assert budget.take_tool_calls(1) == 0


def test_without_limits_nothing_is_capped() -> None:
    budget = Budget(Limits(turns=10))
    assert budget.room(10**9, final=False) is None
    assert budget.take_tool_calls(10**6) == 10**6
    assert budget.seconds_left() is None


def test_a_failed_turn_is_not_charged_and_gives_its_reservation_back() -> None:
    pool = EpisodeBudget(output_tokens=1000)
    budget = Budget(Limits(turns=10), pool=pool)

    def fail() -> None:
        with budget.turn(0, final=False):
            assert pool.free_output_tokens() == 0
            raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        fail()
    assert (budget.turns, pool.output_tokens, pool.free_output_tokens()) == (0, 0, 750)


def test_an_agent_within_an_episode_is_ended_by_the_episode() -> None:
    pool = EpisodeBudget(tool_calls=4, output_tokens=1000, kept_back=100)
    lead = Budget(Limits(turns=10), pool=pool)
    subagent = pool.reserve(tool_calls=3, output_tokens=850)
    take_turn(lead, read=10, wrote=40)
    assert lead.exhausted() is Exhausted.OUTPUT_TOKENS
    assert lead.room(0, final=True) == 110
    pool.settle(subagent, tool_calls=1, output_tokens=100)
    assert lead.exhausted() is None
    assert lead.take_tool_calls(9) == 3
    assert lead.exhausted() is Exhausted.TOOL_CALLS


def test_an_allotment_is_settled_once() -> None:
    pool = EpisodeBudget(tool_calls=4)
    allotment = pool.reserve(tool_calls=2)
    pool.settle(allotment, tool_calls=1)
    with pytest.raises(ValueError, match="not open"):
        pool.settle(allotment)
    with pytest.raises(ValueError, match="not open"):
        pool.settle(EpisodeBudget().reserve())


def test_without_an_episode_limit_an_allotment_says_so() -> None:
    allotment = EpisodeBudget().reserve(tool_calls=5, output_tokens=5)
    assert (allotment.tool_calls, allotment.output_tokens) == (None, None)


def test_tokens_spent_beside_the_turns_count() -> None:
    pool = EpisodeBudget(output_tokens=1000)
    budget = Budget(Limits(turns=9, output_tokens=500), pool=pool)
    budget.spend_tokens(120)
    assert (budget.output_tokens, pool.output_tokens) == (120, 120)


@given(
    calls=st.integers(1, 60),
    tokens=st.integers(1, 5000),
    agents=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 3000)), min_size=1, max_size=12),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=80, deadline=None)
def test_concurrent_agents_never_overspend_an_episode(
    calls: int, tokens: int, agents: list[tuple[int, int]], seed: int
) -> None:
    pool = EpisodeBudget(tool_calls=calls, output_tokens=tokens)
    chance = random.Random(seed)

    async def pause() -> None:
        for _ in range(chance.randrange(4)):
            await asyncio.sleep(0)

    async def agent(wanted_calls: int, wanted_tokens: int) -> None:
        await pause()
        allotment = pool.reserve(tool_calls=wanted_calls, output_tokens=wanted_tokens)
        assert allotment.tool_calls is not None
        assert allotment.output_tokens is not None
        assert allotment.tool_calls <= wanted_calls
        await pause()
        used = (chance.randint(0, allotment.tool_calls), chance.randint(0, allotment.output_tokens))
        pool.settle(allotment, tool_calls=used[0], output_tokens=used[1])
        free = pool.free_output_tokens()
        assert free is not None
        assert free >= 0

    async def lead() -> None:
        budget = Budget(Limits(turns=100), pool=pool)
        for _ in range(4):
            await pause()
            with budget.turn(0, final=False) as grant:
                await pause()
                assert grant.max_output_tokens is not None
                grant.charge(input_tokens=0, output_tokens=chance.randint(0, grant.max_output_tokens))
            budget.take_tool_calls(chance.randrange(5))
        assert budget.output_tokens <= tokens - kept_tokens(tokens)

    async def episode() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(lead())
            for wanted in agents:
                group.create_task(agent(*wanted))

    asyncio.run(episode())
    assert pool.tool_calls <= calls
    assert pool.output_tokens <= tokens - kept_tokens(tokens)
    free = pool.free_output_tokens(final=True)
    assert free == tokens - pool.output_tokens
