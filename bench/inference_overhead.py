"""What does the service cost? Tokens a second through gRPC beside AsyncLLM called directly, 16 in flight, one engine.

    python bench/inference_overhead.py [--model DIR]

Without a model, one of the seed policy's size with random weights is made: it never ends a turn early.
The two take turns on the same engine with the same prompts, seeds and sampling; "direct" is vLLM's own stream of the
same tokens and logprobs, once plain (text for every token) and once with all that makes vLLM's front end cheap.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from grpc import aio
from wideseek.inference.v1 import inference_service_pb2 as pb
from wideseek.inference.v1 import inference_service_pb2_grpc as rpc
from wideseek_inference.engine import EngineParts, open_engine
from wideseek_inference.servicer import SERVICE_NAME, InferenceServicer
from wideseek_inference.settings import Settings
from wideseek_inference.testing import random_model, tiny_tokenizer
from wideseek_kit.channels import open_channel
from wideseek_kit.testing import grpc_server

IN_FLIGHT = 16
TOKENS = 256
TARGET = 0.90


def request(number: int) -> pb.GenerateRequest:
    """A turn that is long enough to count."""
    sampling = pb.SamplingParams(temperature=1.0, max_output_tokens=TOKENS, seed=number)
    message = pb.Message(role=pb.ROLE_USER, content=f"Question {number}: " + "which members has the group? " * 4)
    return pb.GenerateRequest(messages=[message], sampling=sampling)


async def through_grpc(channel: aio.Channel, number: int) -> int:
    """One turn by the service; returns its output tokens."""
    events = [event async for event in rpc.InferenceServiceStub(channel).Generate(request(number))]
    return len(events[-1].result.output_token_ids)


async def direct(parts: EngineParts, prompts: dict[int, list[int]], number: int, *, plain: bool) -> int:
    """The same turn by vLLM alone."""
    from vllm import SamplingParams
    from vllm.inputs.engine import tokens_input
    from vllm.sampling_params import RequestOutputKind

    parameters = SamplingParams(
        temperature=1.0,
        max_tokens=TOKENS,
        seed=number,
        logprobs=0,
        output_kind=RequestOutputKind.DELTA,
        detokenize=plain,
        flat_logprobs=not plain,
        stream_interval=None if plain else 16,
    )
    prompt = tokens_input(prompts[number], cache_salt="bench")
    tokens = 0
    async for output in parts.vllm._llm.generate(prompt, parameters, f"direct-{number}-{time.monotonic_ns()}"):
        tokens += len(output.outputs[0].token_ids)
    return tokens


async def rate(one: Callable[[int], Awaitable[int]], rounds: int) -> tuple[float, float]:
    """Tokens a second with `IN_FLIGHT` turns at a time, and this process's CPU milliseconds a thousand tokens."""
    numbers = iter(range(IN_FLIGHT * rounds))

    async def worker() -> int:
        return sum([await one(number) for number in numbers])

    started, used = time.perf_counter(), time.process_time()
    tokens = sum(await asyncio.gather(*(worker() for _ in range(IN_FLIGHT))))
    cost = (time.process_time() - used) * 1e6 / tokens
    return tokens / (time.perf_counter() - started), cost


async def main(model: str, repetitions: int, rounds: int) -> None:
    """Measure in turns and print the table."""
    async with open_engine(Settings(model=model)) as parts:
        inference = InferenceServicer({"policy": parts.route})

        def register(server: aio.Server) -> None:
            rpc.add_InferenceServiceServicer_to_server(inference, server)

        async with grpc_server(register, SERVICE_NAME) as target, open_channel(target) as channel:
            prompts = {}
            for number in range(IN_FLIGHT * rounds):
                asked = request(number)
                asked.sampling.max_output_tokens = 1
                events = [event async for event in rpc.InferenceServiceStub(channel).Generate(asked)]
                prompts[number] = list(events[-1].result.prompt_token_ids)
            ways: dict[str, Callable[[int], Awaitable[int]]] = {
                "gRPC Generate": lambda number: through_grpc(channel, number),
                "AsyncLLM, plain": lambda number: direct(parts, prompts, number, plain=True),
                "AsyncLLM, cheapest": lambda number: direct(parts, prompts, number, plain=False),
            }
            for way in ways.values():
                await rate(way, 1)
            runs: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
            for _ in range(repetitions):
                for name, way in ways.items():
                    runs[name].append(await rate(way, rounds))
    report(runs)


def report(runs: dict[str, list[tuple[float, float]]]) -> None:
    """Print a line a way, and the shares. Runs that stand side by side share the machine's other load."""
    rates = {name: [rate for rate, _ in values] for name, values in runs.items()}
    ours = rates.pop("gRPC Generate")
    print(f"{IN_FLIGHT} in flight, up to {TOKENS} tokens a turn; tokens a second, {len(ours)} runs each")
    print(f"{'way':20}{'median':>9}{'least':>9}{'most':>9}{'front CPU ms/1000 tokens':>28}")
    for name, values in {"gRPC Generate": ours, **rates}.items():
        cost = statistics.median(cost for _, cost in runs[name])
        print(f"{name:20}{statistics.median(values):9.0f}{min(values):9.0f}{max(values):9.0f}{cost:28.0f}")
    for name, theirs in rates.items():
        shares = sorted(mine / other for mine, other in zip(ours, theirs, strict=True))
        low, median, high = shares[len(shares) // 4], statistics.median(shares), shares[-1 - len(shares) // 4]
        print(f"share of {name}: median {median:.3f}, middle half {low:.3f} to {high:.3f}, target {TARGET:.2f}")


def random_policy(directory: Path) -> str:
    """A model of the seed policy's size that never ends a turn."""
    tokenizer = tiny_tokenizer()
    model = random_model(0, 2700, hidden=128, layers=4, context=2048)
    model.config.eos_token_id = model.generation_config.eos_token_id = None
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return str(directory)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="model directory")
    parser.add_argument("--repetitions", type=int, default=11)
    parser.add_argument("--rounds", type=int, default=2, help="turns of each of the 16 callers a run")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="wideseek-bench-") as scratch:
        chosen = asked.model or random_policy(Path(scratch))
        asyncio.run(main(chosen, asked.repetitions, asked.rounds))
