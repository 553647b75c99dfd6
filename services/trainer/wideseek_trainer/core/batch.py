"""From whole groups to what the learners get.

Invariants: a batch depends only on its groups, in the order of their questions, never on the order of arrival; weights
of the tokens of a batch add up to 1; every group is accounted for: trained, stale or without signal; an episode that
ended through no doing of the policy (cancelled, its lead lost) is compared with nobody.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from wideseek_trainer.core.advantage import advantages, has_signal, shuffled
from wideseek_trainer.core.config import RunConfig
from wideseek_trainer.core.reward import Reward, reward
from wideseek_trainer.core.sequences import AgentSequence, TrainSequence, agent_sequences, token_weight
from wideseek_trainer.core.staleness import staleness
from wideseek_trainer.core.tasks import Task
from wideseek_trainer.core.trajectory import Episode


@dataclass(frozen=True)
class Group:
    """The episodes of one question of one step, by index; `unreadable` ones hold events of a newer schema."""

    group_id: str
    task: Task
    episodes: tuple[Episode, ...]
    unreadable: int = 0


@dataclass
class Counters:
    """What a run consumed; names are those of trainer.v1.TrainingCounters."""

    groups_trained: int = 0
    groups_stale: int = 0
    groups_without_signal: int = 0
    episodes_failed: int = 0
    events_of_newer_schema: int = 0
    events_duplicate: int = 0

    def plus(self, other: "Counters") -> "Counters":
        """The sums."""
        return Counters(**{name: value + getattr(other, name) for name, value in vars(self).items()})


@dataclass(frozen=True)
class Batch:
    """Sequences to train on, and figures about what they came from."""

    sequences: list[TrainSequence]
    metrics: dict[str, float]
    counters: Counters
    traceparents: list[str] = field(default_factory=list)


@dataclass
class _Kept:
    episode: Episode
    sequences: list[AgentSequence]
    advantage: float


def make_batch(
    groups: Sequence[Group], config: RunConfig, update_of: Mapping[int, int], updates_done: int, seed: str
) -> Batch:
    """Score the groups and turn them into sequences with advantages and token weights."""
    counters = Counters()
    kept: list[_Kept] = []
    rewards: list[Reward] = []
    lags: list[int] = []
    for group in groups:
        judged = [episode for episode in group.episodes if not episode.stop.blameless]
        scored = [reward(episode, group.task, config.reward_weights, config.max_output_tokens) for episode in judged]
        rewards += scored
        counters.episodes_failed += sum(episode.failed for episode in group.episodes)
        if group.unreadable:
            continue  # the driver counted its events
        distances = [staleness(episode, update_of, updates_done) for episode in judged]
        known = [distance for distance in distances if distance is not None]
        totals = [one.total for one in scored]
        if len(known) < len(distances) or max(known, default=0) > config.max_staleness:
            counters.groups_stale += 1
        elif not has_signal(totals):
            counters.groups_without_signal += 1
        else:
            counters.groups_trained += 1
            lags += known
            for episode, value in zip(judged, advantages(totals), strict=True):
                kept.append(_Kept(episode, agent_sequences(episode), value))
    if config.shuffle_advantages:
        for one, value in zip(kept, shuffled([one.advantage for one in kept], seed), strict=True):
            one.advantage = value
    return Batch(
        _weighted(kept), _figures(rewards, kept, lags), counters, [e.traceparent for g in groups for e in g.episodes]
    )


def _weighted(kept: Sequence[_Kept]) -> list[TrainSequence]:
    trained = [one for one in kept if one.sequences]
    return [
        TrainSequence(
            tokens=sequence.tokens,
            mask=sequence.mask,
            logprobs=sequence.logprobs,
            advantage=one.advantage,
            weight=token_weight(len(trained), len(one.sequences), sequence.output_tokens),
        )
        for one in trained
        for sequence in one.sequences
    ]


def _figures(rewards: Sequence[Reward], kept: Sequence[_Kept], lags: Sequence[int]) -> dict[str, float]:
    figures = {
        "reward": _mean([one.total for one in rewards]),
        "staleness_mean": _mean(lags),
        "staleness_max": float(max(lags, default=0)),
        "episodes": float(len(rewards)),
        "episodes_trained": float(sum(1 for one in kept if one.sequences)),
        "sequences": float(sum(len(one.sequences) for one in kept)),
        "tokens": float(sum(len(sequence.tokens) for one in kept for sequence in one.sequences)),
        "output_tokens": float(sum(sequence.output_tokens for one in kept for sequence in one.sequences)),
    }
    for name in rewards[0].terms if rewards else ():
        figures["item_f1" if name == "item_f1" else f"reward_{name}"] = _mean([one.terms[name] for one in rewards])
    return figures


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
