"""The in-process GRPO that checks what reinforcement learning can gain."""

import math

import pytest
import torch
import torch.nn.functional as F
from wideseek_agent.messages import AgentRole
from wideseek_atlas import Split
from wideseek_atlas.seed.episodes import Agent, Episode
from wideseek_atlas.seed.evaluate import held_out
from wideseek_atlas.seed.headroom import advantages, surrogate, weigh
from wideseek_atlas.seed.model import SeedModel, Shape
from wideseek_atlas.tasks import markdown_table

WORLD, TASK = held_out(1, Split.VALIDATION)[0]


def agent(ids: list[int], generated: list[bool], reply: str = "") -> Agent:
    return Agent(AgentRole.LEAD, 10, ids, generated, [-1.5 if g else 0.0 for g in generated], reply=reply)


def test_advantages_are_scores_in_units_of_their_groups_spread() -> None:
    got = advantages([0.0, 1.0, 0.5, 0.5, 0.25, 0.75], 2)
    assert got == pytest.approx(
        [-1 / math.sqrt(2), 1 / math.sqrt(2), 0, 0, -1 / math.sqrt(2), 1 / math.sqrt(2)], abs=1e-4
    )


def episodes() -> list[Episode]:
    full = f"```markdown\n{markdown_table(TASK.columns, TASK.rows)}\n```"
    best = Episode(WORLD, TASK, agent([1, 2, 3, 4], [False, True, True, True], full))
    best.subagents = [agent([5, 6, 7], [False, False, True])]
    return [best, Episode(WORLD, TASK, agent([8, 9], [False, True], "nothing"))]


def test_every_agent_of_an_episode_weighs_the_same() -> None:
    rows = weigh(episodes(), 2)
    totals = {tuple(r.agent.ids): r.weight * sum(r.agent.generated) for r in rows}
    assert totals == pytest.approx({(1, 2, 3, 4): 1 / 4, (5, 6, 7): 1 / 4, (8, 9): 1 / 2})


def test_the_loss_is_the_weighted_ratio_written_out() -> None:
    torch.manual_seed(0)
    model = SeedModel(Shape(16, hidden=16, layers=1, heads=2, kv_heads=1, head_size=8, intermediate=16))
    rows = weigh(episodes(), 2)
    expected = 0.0
    for row in rows:
        with torch.no_grad():
            scores = F.log_softmax(model.logits(model(torch.tensor([row.agent.ids])))[0] / 0.7, -1)
        for place, token in enumerate(row.agent.ids):
            if row.agent.generated[place]:
                ratio = math.exp(float(scores[place - 1, token]) - row.agent.logprobs[place])
                expected -= ratio * row.advantage * row.weight
    assert float(surrogate(model, rows, 0.7).detach()) == pytest.approx(expected, rel=1e-4)
