"""What can be wrong with a run, as plain exceptions that carry facts; `wire` turns them into gRPC errors."""


class TrainerError(Exception):
    """Base: `reason` is UPPER_SNAKE for machines, `facts` the variables of the message."""

    reason = "INTERNAL"

    def __init__(self, message: str, **facts: object) -> None:
        """Make an error."""
        super().__init__(message)
        self.message = message
        self.facts = facts


class ConfigError(TrainerError):
    """A field of a run's configuration cannot be used."""

    reason = "INVALID_ARGUMENT"

    def __init__(self, field: str, message: str, **facts: object) -> None:
        """Make an error about `field`, a path in the configuration."""
        super().__init__(f"{field}: {message}", field=field, **facts)
        self.field = field


class TaskSetError(TrainerError):
    """A task set cannot be read; the message names file, line and field."""

    reason = "TASK_SET_UNREADABLE"


class TaskSetChangedError(TrainerError):
    """The task set is not the one that the run began with, so its episodes cannot be made again."""

    reason = "TASK_SET_CHANGED"


class CheckpointError(TrainerError):
    """A checkpoint is missing or damaged, so a run cannot go on without training something twice."""

    reason = "CHECKPOINT_LOST"


class PolicyUnusableError(TrainerError):
    """The policy that a run would begin with is not there, or learners cannot load it."""

    reason = "NO_POLICY"


class ServingBehindError(TrainerError):
    """Inference does not serve a version that the run needs, within the time allowed."""

    reason = "SERVING_BEHIND"


class EpisodeRefusedError(TrainerError):
    """The lead refuses an episode of the run, and asking again would not help."""

    reason = "EPISODE_REFUSED"


class UpdateFailedError(TrainerError):
    """An update could not be made, for instance because the loss is not finite."""

    reason = "UPDATE_FAILED"
