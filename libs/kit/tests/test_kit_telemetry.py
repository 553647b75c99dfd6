"""Logs carry trace ids, and spans reach a real OTLP collector with one trace over client and server."""

import asyncio
import json
import sys
import textwrap
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from grpc import aio
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as otlp
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as otlp_grpc

#: Calls a server of its own twice, once in vain, under one span; logs and prints the traceparent inside it.
PROGRAM = textwrap.dedent("""
    import asyncio, logging, sys
    import grpc
    from opentelemetry import trace
    from wideseek_kit import telemetry
    from wideseek_kit.channels import calling, open_channel
    from wideseek_kit.errors import NotFound
    from wideseek_kit.testing import grpc_server

    async def good(request, context):
        logging.getLogger("inside").info("at work")
        return telemetry.traceparent().encode()

    async def bad(request, context):
        raise NotFound("nothing")

    def register(server):
        methods = {"Good": grpc.unary_unary_rpc_method_handler(good), "Bad": grpc.unary_unary_rpc_method_handler(bad)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.T", methods),))

    async def main():
        async with grpc_server(register, "t.T") as target, open_channel(target) as channel:
            with trace.get_tracer("test").start_as_current_span("root"):
                print((await channel.unary_unary("/t.T/Good")(b"")).decode())
                try:
                    with calling():
                        await channel.unary_unary("/t.T/Bad")(b"")
                except NotFound:
                    pass

    telemetry.set_up_logging("kittest", "INFO", as_json=True)
    with telemetry.tracing("kittest", sys.argv[1]):
        asyncio.run(main())
""")


class Collector(otlp_grpc.TraceServiceServicer):
    def __init__(self) -> None:
        self.spans: dict[str, Any] = {}
        self.services: set[str] = set()

    async def Export(self, request: Any, context: Any) -> Any:
        for resource in request.resource_spans:
            names = {a.key: a.value.string_value for a in resource.resource.attributes}
            self.services.add(names["service.name"])
            for scope in resource.scope_spans:
                self.spans.update({f"{span.name}/{span.kind}": span for span in scope.spans})
        return otlp.ExportTraceServiceResponse()


@pytest.fixture
async def collector() -> AsyncIterator[tuple[Collector, str]]:
    server = aio.server()
    servicer = Collector()
    otlp_grpc.add_TraceServiceServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield servicer, f"http://127.0.0.1:{port}"
    await server.stop(0)


async def run(endpoint: str) -> tuple[str, list[dict[str, str]]]:
    """The traceparent inside the server, and its log lines."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, endpoint, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, log = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, log.decode()
    return out.decode().strip(), [json.loads(line) for line in log.splitlines() if line.startswith(b"{")]


async def test_one_trace_over_client_server_and_log(collector: tuple[Collector, str]) -> None:
    servicer, endpoint = collector
    traceparent, lines = await run(endpoint)
    spans = servicer.spans
    root = spans["root/1"]
    _, trace_id, span_id, _ = traceparent.split("-")
    assert {span.trace_id.hex() for span in spans.values()} == {trace_id}
    server_span, client_span = (next(s for n, s in spans.items() if n.endswith(f"T/Good/{kind}")) for kind in (2, 3))
    assert (client_span.parent_span_id, server_span.parent_span_id) == (root.span_id, client_span.span_id)
    assert server_span.span_id.hex() == span_id
    (line,) = [line for line in lines if line["message"] == "at work"]
    assert (line["trace_id"], line["span_id"], line["service"]) == (trace_id, span_id, "kittest")
    failed = next(s for n, s in spans.items() if n.endswith("T/Bad/2"))
    codes = {a.key: a.value.int_value for a in failed.attributes}
    assert codes["rpc.grpc.status_code"] == grpc.StatusCode.NOT_FOUND.value[0]
    assert servicer.services == {"kittest"}


async def test_without_an_endpoint_nothing_is_traced() -> None:
    traceparent, lines = await run("")
    assert traceparent == ""
    assert [(line["message"], line["trace_id"]) for line in lines if line["name"] == "inside"] == [("at work", "")]


async def test_a_stream_given_up_is_no_error_in_the_log() -> None:
    program = textwrap.dedent("""
        import logging
        from contextvars import Token, copy_context
        from opentelemetry import context
        from wideseek_kit import telemetry

        telemetry.set_up_logging("s", "INFO", as_json=False)
        token = copy_context().run(context.attach, {})
        context.detach(token)
        logging.getLogger("opentelemetry.context").error("something else")
    """)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    _, log = await process.communicate()
    assert process.returncode == 0
    assert "something else" in log.decode()
    assert "Failed to detach" not in log.decode()
