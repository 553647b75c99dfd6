"""How long does a weight swap stop generation? Pauses with 16 requests in flight, through gRPC; none may be lost.

    python bench/swap_pause.py --model DIR

Policy versions are published as a trainer does and loaded one after another while 16 callers generate without a break.
"""

import argparse
import asyncio
import contextlib
import statistics
import tempfile
import time
from pathlib import Path

from grpc import aio
from wideseek.inference.v1 import inference_service_pb2 as pb
from wideseek.inference.v1 import inference_service_pb2_grpc as rpc
from wideseek.inference.v1 import weight_service_pb2 as weights_pb
from wideseek.inference.v1 import weight_service_pb2_grpc as weights_rpc
from wideseek_contract.policies import WEIGHTS, publish_directory
from wideseek_inference.engine import open_engine
from wideseek_inference.servicer import SERVICE_NAME, InferenceServicer
from wideseek_inference.settings import Settings
from wideseek_inference.weight_servicer import WeightServicer
from wideseek_kit.channels import open_channel
from wideseek_kit.testing import grpc_server

IN_FLIGHT = 16
TARGET = 0.1


class Load:
    """Sixteen callers that never stop; counts what comes back."""

    def __init__(self, channel: aio.Channel) -> None:
        """Call over `channel`."""
        self._stub = rpc.InferenceServiceStub(channel)
        self.turns = 0
        self.tokens = 0
        self.split = 0
        self.longest_gap = 0.0

    async def caller(self, number: int, stop: asyncio.Event) -> None:
        """Make turns until told to stop."""
        while not stop.is_set():
            message = pb.Message(role=pb.ROLE_USER, content=f"Question {number}.{self.turns}")
            sampling = pb.SamplingParams(temperature=1.0, max_output_tokens=400)
            last = 0.0
            events = []
            async for event in self._stub.Generate(pb.GenerateRequest(messages=[message], sampling=sampling)):
                events.append(event)
                now = time.perf_counter()
                self.longest_gap = max(self.longest_gap, now - last if last else 0.0)
                last = now
            event = events[-1]
            spans = event.result.version_spans
            edges = [0, *(span.end for span in spans)]
            whole = [span.start for span in spans] == edges[:-1] and edges[-1] == len(event.result.output_token_ids)
            if not whole:
                raise AssertionError(f"the spans {spans} do not cover the turn")
            self.turns += 1
            self.tokens += len(event.result.output_token_ids)
            self.split += len(spans) > 1


async def main(model: str, swaps: int) -> None:
    """Swap under load and print the table."""
    data = (Path(model) / WEIGHTS).read_bytes()
    async with contextlib.AsyncExitStack() as stack:
        root = stack.enter_context(tempfile.TemporaryDirectory(prefix="wideseek-bench-"))
        parts = await stack.enter_async_context(open_engine(Settings(model=model)))

        def register(server: aio.Server) -> None:
            rpc.add_InferenceServiceServicer_to_server(InferenceServicer({"policy": parts.route}), server)
            weights_rpc.add_WeightServiceServicer_to_server(WeightServicer(parts.swapper, parts.vllm), server)

        target = await stack.enter_async_context(grpc_server(register, SERVICE_NAME))
        channel = await stack.enter_async_context(open_channel(target))
        weights = weights_rpc.WeightServiceStub(channel)
        load, stop = Load(channel), asyncio.Event()
        callers = [asyncio.create_task(load.caller(number, stop)) for number in range(IN_FLIGHT)]
        await asyncio.sleep(2)
        in_flight = []
        for version in range(1, swaps + 1):
            uri = f"{root}/{version}"
            digest = publish_directory(uri, version, {WEIGHTS: data})
            in_flight.append(parts.vllm.in_flight)
            await weights.UpdateWeights(
                weights_pb.UpdateWeightsRequest(version=version, uri=uri, manifest_sha256=digest)
            )
            await asyncio.sleep(0.3)
        stop.set()
        await asyncio.gather(*callers)
        state = (await weights.GetWeightState(weights_pb.GetWeightStateRequest())).state
    pauses = sorted(pause.ToTimedelta().total_seconds() * 1000 for pause in state.pauses)
    report(pauses, load, state.requests_lost, statistics.mean(in_flight), len(data))


def report(pauses: list[float], load: Load, lost: int, in_flight: float, size: int) -> None:
    """Print the figures."""
    p95 = pauses[min(len(pauses) - 1, round(0.95 * len(pauses)))]
    print(f"{len(pauses)} swaps of {size / 1e6:.1f} MB, {in_flight:.1f} requests in flight on average")
    middle = statistics.median(pauses)
    print(f"pause ms: p50 {middle:.0f}, p95 {p95:.0f}, max {pauses[-1]:.0f}; target p95 {TARGET * 1000:.0f}")
    print(f"turns {load.turns} ({load.split} over several versions), tokens {load.tokens}, requests lost {lost}")
    print(f"longest gap between two messages of a stream: {load.longest_gap * 1000:.0f} ms")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="model directory")
    parser.add_argument("--swaps", type=int, default=40)
    asked = parser.parse_args()
    asyncio.run(main(asked.model, asked.swaps))
