"""What can be wrong with one item of a batch.

Invariant: a fault carries the variables of its message as facts, so that a machine can read them too.
"""

from enum import Enum, auto


class Kind(Enum):
    """The sort of fault; each has one gRPC status."""

    INVALID = auto()
    NOT_FOUND = auto()
    PAST_END = auto()
    INTERNAL = auto()


class Fault(Exception):
    """An item cannot be answered.

    Attributes:
        kind: its sort.
        reason: UPPER_SNAKE, for machines.
        message: for people.
        facts: the variables of the message.
    """

    def __init__(self, kind: Kind, reason: str, message: str, **facts: object) -> None:
        """Make a fault."""
        super().__init__(message)
        self.kind = kind
        self.reason = reason
        self.message = message
        self.facts = {name: str(value) for name, value in facts.items()}


def invalid(field: str, reason: str, message: str, **facts: object) -> Fault:
    """A field of the item cannot be used."""
    return Fault(Kind.INVALID, reason, f"{field}: {message}", field=field, **facts)


def page_not_found(url: str, corpus: str) -> Fault:
    """No page of the corpus has this address."""
    message = f"corpus {corpus!r} has no page {url!r}"
    return Fault(Kind.NOT_FOUND, "PAGE_NOT_FOUND", message, url=url, corpus=corpus)


def corpus_not_found(corpus: str) -> Fault:
    """No page was ever stored under this corpus."""
    message = f"there is no corpus {corpus!r}; fill it with IngestPages"
    return Fault(Kind.NOT_FOUND, "CORPUS_NOT_FOUND", message, corpus=corpus)


def internal() -> Fault:
    """Something unforeseen; the details are in the service's log, never here."""
    return Fault(Kind.INTERNAL, "INTERNAL", "internal error; the service's log has the details")
