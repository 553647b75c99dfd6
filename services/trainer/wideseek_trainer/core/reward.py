"""The reward of an episode: named terms with weights, each logged.

Source: WideSeek-R1 (arXiv 2602.04634): item-F1 + 0.1 format + 0.05 access - up to 0.1 for over-long replies; a failed
episode earns 0. Invariant: every term lies in [0, 1] and the reward is their weighted sum, unless the episode failed.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from wideseek_scoring.answers import exact_match, extract_boxed, token_f1
from wideseek_scoring.training import training_item_f1

from wideseek_trainer.core.tasks import Task
from wideseek_trainer.core.trajectory import Episode, Turn

ITEM_F1, FORMAT, ACCESS, LENGTH = "item_f1", "format", "access", "length"
DEFAULT_WEIGHTS: Mapping[str, float] = {ITEM_F1: 1.0, FORMAT: 0.1, ACCESS: 0.05, LENGTH: -0.1}

#: Replies are penalised from this share of the token limit on, in full at the limit.
_SOFT_SHARE = 0.8


@dataclass(frozen=True)
class Reward:
    """The weighted sum and the terms before weighting."""

    total: float
    terms: dict[str, float]


def reward(episode: Episode, task: Task, weights: Mapping[str, float], max_output_tokens: int) -> Reward:
    """The reward of an episode; `max_output_tokens` is the limit of a reply, 0 when there is none."""
    if episode.failed:
        return Reward(0.0, dict.fromkeys(DEFAULT_WEIGHTS, 0.0))
    score, well_formed = _answer_score(episode.answer, task)
    turns = [turn for own in episode.turns.values() for turn in own]
    terms = {
        ITEM_F1: score,
        FORMAT: float(well_formed),
        ACCESS: float(any(turn.pages_read for turn in turns)),
        LENGTH: max((_over_length(turn, max_output_tokens) for turn in turns), default=0.0),
    }
    return Reward(sum(weights.get(name, 0.0) * value for name, value in terms.items()), terms)


def _answer_score(answer: str, task: Task) -> tuple[float, bool]:
    if task.is_markdown:
        score = training_item_f1(answer, task.accepted[0], task.key_columns, task.columns)
        return score.item_f1, score.parsed
    boxed = extract_boxed(answer)
    if boxed is None:
        return 0.0, False
    return (1.0 if exact_match(boxed, task.accepted) else token_f1(boxed, task.accepted)), True


def _over_length(turn: Turn, limit: int) -> float:
    if turn.cut_short:
        return 1.0
    if not limit:
        return 0.0
    return min(1.0, max(0.0, (len(turn.output) / limit - _SOFT_SHARE) / (1 - _SOFT_SHARE)))
