"""How an episode ends: state, stop reason, answer, failure.

Invariant: an episode that ended with a text of its main agent has succeeded, whatever the form of the text; one
without has failed, with a reason and words, unless a caller ended it.
"""

from dataclasses import replace
from datetime import datetime

from wideseek_lead.core.answer import read_answer
from wideseek_lead.core.episode import Episode, Failure, State, StopReason
from wideseek_lead.core.run import BUDGET_EXHAUSTED, DEADLINE_EXCEEDED, Outcome
from wideseek_lead.core.tally import Tally

LEAD_LOST = "LEAD_LOST"
LEAD_STOPPED = "LEAD_STOPPED"


def answered(episode: Episode, outcome: Outcome, tally: Tally, now: datetime) -> Episode:
    """The episode after its run came to an end by itself."""
    text, stop = outcome.text, outcome.stop
    if not text.strip() and stop in (StopReason.DEADLINE, StopReason.BUDGET):
        return _ended(episode, State.FAILED, stop, tally, now, failure=_without_answer(episode, stop))
    answer = read_answer(text, episode.spec, tally.pages)
    return replace(_ended(episode, State.SUCCEEDED, stop, tally, now), answer=answer)


def failed(
    episode: Episode, failure: Failure, tally: Tally, now: datetime, stop: StopReason = StopReason.FAILED
) -> Episode:
    """The episode after its run failed."""
    return _ended(episode, State.FAILED, stop, tally, now, failure=failure)


def cancelled(episode: Episode, tally: Tally, now: datetime) -> Episode:
    """The episode after a caller stopped it."""
    return _ended(episode, State.CANCELLED, StopReason.CANCELLED, tally, now)


def _ended(
    episode: Episode, state: State, stop: StopReason, tally: Tally, now: datetime, *, failure: Failure | None = None
) -> Episode:
    return replace(episode, state=state, stop=stop, failure=failure, usage=tally.usage, end_time=now)


def _without_answer(episode: Episode, stop: StopReason) -> Failure:
    if stop is StopReason.DEADLINE:
        seconds = f"{episode.spec.limits.deadline:g}"
        return Failure(DEADLINE_EXCEEDED, f"no answer within {seconds} s", {"deadline_seconds": seconds})
    return Failure(BUDGET_EXHAUSTED, "a limit was reached before there was an answer, and none was left to give one")
