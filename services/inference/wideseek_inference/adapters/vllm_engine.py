"""The vLLM engine, as the swap and the routes need it.

Invariants: a request that starts while the engine is paused waits outside it, so that it begins under the weights that
it is labelled with; KV of older weights is never served to a request that starts after a swap (the prefix cache is
salted with the count of loads; requests in flight keep theirs); a request whose caller is gone leaves the engine.
"""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vllm import SamplingParams
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.exceptions import VLLMClientError
from vllm.inputs.engine import tokens_input
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError
from wideseek_kit.errors import InvalidArgument, Unavailable

from wideseek_inference.core.turns import FinishReason, Sampling, Span

#: Tokens between two deltas of a stream: each costs a message here, and no reader sees more than some a second.
STREAM_INTERVAL = 16


_SHUTDOWN = 10.0


@dataclass(frozen=True)
class Chunk:
    """New tokens of a turn; the last chunk has the finish reason and the spans over all of them."""

    token_ids: list[int]
    logprobs: list[float]
    finish_reason: FinishReason | None = None
    spans: tuple[Span, ...] = ()
    cached_tokens: int = 0


class VllmEngine:
    """Implements `core.swap.Engine`, and generates."""

    def __init__(self, arguments: dict[str, Any]) -> None:
        """Start the engine's process; blocks for some seconds. To be called inside the event loop."""
        self._llm = AsyncLLM.from_engine_args(AsyncEngineArgs(**arguments))
        self.max_tokens = int(self._llm.model_config.max_model_len)
        self._open = asyncio.Event()
        self._open.set()
        self._loads = 0
        self._numbers = itertools.count(1)
        self.in_flight = 0
        self.lost = 0

    @property
    def dead(self) -> bool:
        """Whether the engine's process has ended."""
        return bool(self._llm.errored)

    @property
    def unfinished(self) -> int:
        """Requests that vLLM itself works on or holds back."""
        return int(self._llm.get_num_unfinished_requests())

    async def generate(self, token_ids: list[int], sampling: Sampling, limit: int) -> AsyncGenerator[Chunk, None]:
        """Generate up to `limit` tokens after `token_ids`.

        Raises:
            Unavailable: the engine is dead (ENGINE_DEAD) or dropped the request (GENERATION_LOST).
            InvalidArgument: vLLM refuses the request.
        """
        await self._open.wait()
        if self.dead:
            raise _gone()
        prompt = tokens_input(token_ids, cache_salt=str(self._loads))
        self.in_flight += 1
        try:
            parameters = _parameters(sampling, limit)
            async with contextlib.aclosing(self._llm.generate(prompt, parameters, str(next(self._numbers)))) as outputs:
                async for output in outputs:
                    yield _chunk(output)
        except EngineDeadError as error:
            self.lost += 1
            raise _gone() from error
        except (EngineGenerateError, _DroppedError) as error:
            self.lost += 1
            raise Unavailable(f"the engine dropped the request: {error}", reason="GENERATION_LOST") from error
        except (VLLMClientError, ValueError) as error:
            raise InvalidArgument("sampling", str(error)) from error
        finally:
            self.in_flight -= 1

    async def guard(self) -> None:
        """Let the engine's process end with this one, however this one ends."""
        await self._llm.collective_rpc("end_with_parent")

    async def pause(self) -> None:
        """Stop between two steps; requests in flight are kept with their KV."""
        self._open.clear()
        await self._llm.pause_generation(mode="keep", clear_cache=False)

    async def resume(self) -> None:
        """Go on."""
        await self._llm.resume_generation()
        self._open.set()

    async def load(self, directory: Path) -> None:
        """Replace the weights by those of a directory."""
        self._loads += 1
        await self._llm.collective_rpc("load_policy", kwargs={"directory": str(directory)})

    async def label(self, version: int) -> None:
        """Name the weights that make tokens from now on."""
        await self._llm.update_weight_version(str(version))

    def shutdown(self) -> None:
        """End the engine's process."""
        self._llm.shutdown(timeout=_SHUTDOWN)
        del self._llm  # its finalizer needs modules that are gone at the interpreter's end


class _DroppedError(Exception):
    pass


def _gone() -> Unavailable:
    return Unavailable("the engine's process has ended", reason="ENGINE_DEAD")


def _parameters(sampling: Sampling, limit: int) -> SamplingParams:
    return SamplingParams(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        seed=sampling.seed,
        max_tokens=limit,
        logprobs=0,  # the drawn token's own, no others
        flat_logprobs=True,
        detokenize=False,
        output_kind=RequestOutputKind.DELTA,
        stream_interval=STREAM_INTERVAL,
    )


def _chunk(output: Any) -> Chunk:
    completion = output.outputs[0]
    token_ids = list(completion.token_ids)
    flat = completion.logprobs
    logprobs = [flat.logprobs[start] for start in flat.start_indices] if token_ids else []
    if not completion.finish_reason:
        return Chunk(token_ids, logprobs)
    if completion.finish_reason not in (FinishReason.STOP, FinishReason.LENGTH):
        raise _DroppedError(f"it ended with {completion.finish_reason!r}")
    spans = tuple(Span(int(s.version), s.start, s.end) for s in completion.weight_versions or ())
    return Chunk(token_ids, logprobs, FinishReason(completion.finish_reason), spans, int(output.num_cached_tokens or 0))
