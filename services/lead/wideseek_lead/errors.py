"""The errors that a caller of the lead may see, beyond those of the kit."""

from wideseek_kit.errors import AlreadyExists, NotFound, OutOfRange, ResourceExhausted, Unavailable


class EpisodeNotFound(NotFound):
    """There is no such episode, or it was kept longer than the retention."""

    reason = "EPISODE_NOT_FOUND"

    def __init__(self, episode_id: str) -> None:
        """Name the episode."""
        super().__init__(f"no episode {episode_id!r}", episode_id=episode_id)


class RequestIdReused(AlreadyExists):
    """A request_id came again with other contents."""

    reason = "REQUEST_ID_REUSED"

    def __init__(self, request_id: str, episode_id: str) -> None:
        """Name the request and the episode that it made."""
        super().__init__(
            f"request_id {request_id!r} made episode {episode_id!r} with other contents",
            request_id=request_id,
            episode_id=episode_id,
        )


class TooManyEpisodes(ResourceExhausted):
    """This replica is full."""

    reason = "TOO_MANY_EPISODES"

    def __init__(self, running: int, limit: int) -> None:
        """Give the figures."""
        super().__init__(
            f"{running} episodes at work in this replica, at most {limit}; try again later",
            running=running,
            limit=limit,
        )


class LeadDraining(Unavailable):
    """This replica is about to stop; another one, or this one once restarted, will take the call."""

    reason = "LEAD_DRAINING"

    def __init__(self) -> None:
        """Say so."""
        super().__init__("this lead is draining and takes no new episodes; try again")


class OwnerUnreachable(Unavailable):
    """The lead that runs the episode does not answer."""

    reason = "OWNER_UNREACHABLE"

    def __init__(self, episode_id: str, seconds: float) -> None:
        """Name the episode and how long was waited."""
        super().__init__(
            f"the lead that runs episode {episode_id!r} has not answered for {seconds:g} s; "
            "if it is gone, the episode is closed once its lease expires",
            episode_id=episode_id,
            seconds=f"{seconds:g}",
        )


class PastTheEnd(OutOfRange):
    """A watch was to start after the last event of an ended episode."""

    reason = "AFTER_SEQUENCE_PAST_END"

    def __init__(self, episode_id: str, after: int, last: int) -> None:
        """Give both sequences."""
        super().__init__(
            f"after_sequence: {after} given, episode {episode_id!r} ended with sequence {last}",
            field="after_sequence",
            after_sequence=after,
            last_sequence=last,
        )
