"""Spans of updates, linked to the episodes they train on."""

import contextlib
from collections.abc import Iterator, Sequence

from opentelemetry import propagate, trace
from opentelemetry.trace import Link

_MOST_LINKS = 128  # what a span keeps by default


class UpdateTracer:
    """One span an update."""

    def __init__(self, run_id: str) -> None:
        """Trace the updates of a run."""
        self._run_id = run_id

    @contextlib.contextmanager
    def update(self, step: int, traceparents: Sequence[str]) -> Iterator[None]:
        """A span named `trainer.update`, with a link to each traced episode."""
        links = []
        for traceparent in [one for one in traceparents if one][:_MOST_LINKS]:
            context = propagate.extract({"traceparent": traceparent})
            links.append(Link(trace.get_current_span(context).get_span_context()))
        attributes: dict[str, str | int] = {"wideseek.run_id": self._run_id, "wideseek.step": step}
        with trace.get_tracer("wideseek_trainer").start_as_current_span(
            "trainer.update", links=links, attributes=attributes
        ):
            yield
