"""The committed seed policy: small enough, playable, faulty in strategy and not in copying."""

from statistics import fmean

import pytest
from wideseek_atlas import Split, seed_policy_path
from wideseek_atlas.seed.checkpoint import load_policy
from wideseek_atlas.seed.episodes import Budget, Episode
from wideseek_atlas.seed.evaluate import evaluate, held_out, summary, traits

MODEL, TOKENIZER = load_policy(seed_policy_path())
TASKS = held_out(24, Split.VALIDATION, first=500)


@pytest.fixture(scope="module")
def greedy() -> list[Episode]:
    return evaluate(MODEL, TOKENIZER, TASKS, temperature=0.0)


def test_it_is_small_and_complete() -> None:
    files = {file.name: file.stat().st_size for file in seed_policy_path().iterdir()}
    assert sum(files.values()) < 8_000_000
    needed = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "README.md"}
    assert needed <= set(files)


def test_it_plays_the_protocol_and_copies(greedy: list[Episode]) -> None:
    seen = summary(greedy, TOKENIZER)
    assert seen["table"] > 0.9
    assert seen["wrong"] < 0.15
    assert 0.3 < seen["score"] < 0.75


def test_its_strategy_has_faults_and_their_remedies() -> None:
    episodes = evaluate(MODEL, TOKENIZER, TASKS * 2, temperature=0.7)
    seen = summary(episodes, TOKENIZER)
    assert all(0.08 < seen[habit] < 0.75 for habit in ("cut", "few", "cram", "drop"))
    assert 0.15 < seen["read"] < 0.75


def test_the_subagent_budget_holds_and_still_gives_an_answer() -> None:
    episodes = evaluate(MODEL, TOKENIZER, TASKS, temperature=0.0, budget=Budget(subagents=2))
    assert all(len(episode.subagents) <= 2 for episode in episodes)
    assert fmean(traits(episode, TOKENIZER).table for episode in episodes) > 0.8


def test_it_plays_alone() -> None:
    episodes = evaluate(MODEL, TOKENIZER, TASKS, temperature=0.0, single=True)
    assert all(not episode.subagents for episode in episodes)
    assert fmean(float(episode.lead.pages_read > 1) for episode in episodes) > 0.8
