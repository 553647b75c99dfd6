"""Telemetry: JSON logs with trace ids, and OTLP traces when an endpoint is set.

Invariant: without an endpoint nothing is exported and nothing waits; with one, exporting never blocks a call.
"""

import contextlib
import logging
from collections.abc import Iterator

from opentelemetry import propagate, trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from pythonjsonlogger.json import JsonFormatter


class _TraceIds(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        context = trace.get_current_span().get_span_context()
        record.trace_id = f"{context.trace_id:032x}" if context.is_valid else ""
        record.span_id = f"{context.span_id:016x}" if context.is_valid else ""
        return True


class _GivenUpStreams(logging.Filter):
    """Drops OpenTelemetry's error about a stream whose caller went away: the span is ended all the same.

    Its interceptor attaches a context in an async generator; a generator that is closed from outside detaches it in
    another one, which is logged as an error with a traceback for each call that is given up.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        return record.getMessage() != "Failed to detach context"


def set_up_logging(service: str, level: str, *, as_json: bool) -> None:
    """Send the process's logs to standard error, each line with service and trace ids."""
    handler = logging.StreamHandler()
    handler.addFilter(_TraceIds())
    if as_json:
        names = "%(asctime)s %(levelname)s %(name)s %(message)s %(trace_id)s %(span_id)s"
        handler.setFormatter(JsonFormatter(names, static_fields={"service": service}))
    else:
        handler.setFormatter(logging.Formatter(f"%(asctime)s %(levelname)s {service} %(name)s: %(message)s"))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.getLogger("opentelemetry.context").addFilter(_GivenUpStreams())


@contextlib.contextmanager
def tracing(service: str, endpoint: str) -> Iterator[None]:
    """Export spans to `endpoint` while the context lasts, and flush at its end. An empty endpoint exports nothing."""
    if not endpoint:
        yield
        return
    provider = TracerProvider(resource=Resource.create({"service.name": service, "service.namespace": "wideseek"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
    trace.set_tracer_provider(provider)
    try:
        yield
    finally:
        provider.shutdown()


def traceparent() -> str:
    """The current span as a W3C traceparent; empty when there is none."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return carrier.get("traceparent", "")
