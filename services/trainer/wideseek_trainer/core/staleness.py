"""How far an episode's policy lies behind, in updates of its run.

Invariant: the bound is on the *oldest* version that made a trainable token; a version that the run did not make is
never trained on, for its distance is not known.
"""

from collections.abc import Mapping

from wideseek_trainer.core.trajectory import Episode


def staleness(episode: Episode, update_of: Mapping[int, int], updates_done: int) -> int | None:
    """Updates between the episode's oldest version and now; None when a version is foreign to the run.

    `update_of` maps a policy version to the update that made it, 0 for the policy that the run began with.
    """
    versions = episode.versions
    if not versions:
        return 0
    if any(version not in update_of for version in versions):
        return None
    return max(0, updates_done - min(update_of[version] for version in versions))


def may_start(step: int, served_update: int, max_staleness: int) -> bool:
    """Whether episodes of `step` may start while the weights of `served_update` answer: they will not be too stale."""
    return step - 1 - served_update <= max_staleness
