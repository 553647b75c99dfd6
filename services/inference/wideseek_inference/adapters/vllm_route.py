"""The route to the engine: token contexts in, token-exact turns out.

Invariants: output ids are the engine's, the end of the turn included; there is one logprob a token; the version spans
cover the tokens without gap or overlap, or the turn is not handed out.
"""

import contextlib
from collections.abc import AsyncGenerator, Callable

from wideseek_kit.errors import Internal

from wideseek_inference.adapters.tokenizer import HubTokenizer
from wideseek_inference.adapters.vllm_engine import Chunk, VllmEngine
from wideseek_inference.core.parse import parse
from wideseek_inference.core.template import Renderer
from wideseek_inference.core.turns import (
    Context,
    Delta,
    RequestError,
    RouteInfo,
    Span,
    Turn,
    TurnRequest,
    Usage,
)


class VllmRoute:
    """Implements `core.turns.Route`."""

    def __init__(self, engine: VllmEngine, tokenizer: HubTokenizer, served_version: Callable[[], int]) -> None:
        """Serve `engine`, whose model has `tokenizer`."""
        self._engine = engine
        self._tokenizer = tokenizer
        self._renderer = Renderer(tokenizer)
        self._served_version = served_version

    def info(self, name: str) -> RouteInfo:
        """What the route is."""
        return RouteInfo(
            name=name,
            backend="vllm",
            max_context_tokens=self._engine.max_tokens,
            version=self._served_version(),
            template_hash=self._tokenizer.template_hash,
            trainable=True,
        )

    async def generate(self, request: TurnRequest) -> AsyncGenerator[Delta | Turn, None]:
        """Deltas, then the turn."""
        prompt = self._renderer.appended(request.context, request.messages, request.tools)
        known = request.context.token_ids + prompt
        limit = self._room(len(known), request)
        chunks: list[Chunk] = []
        text = self._tokenizer.stream()
        async with contextlib.aclosing(self._engine.generate(known, request.sampling, limit)) as stream:
            async for chunk in stream:
                chunks.append(chunk)
                if chunk.token_ids:
                    yield Delta(text.step(chunk.token_ids), len(chunk.token_ids))
        yield self._turn(request, prompt, known, chunks)

    def _room(self, used: int, request: TurnRequest) -> int:
        most = self._engine.max_tokens
        if used >= most:
            raise RequestError(
                "context",
                f"{used} tokens with the new messages leave no room in the model's {most}",
                "CONTEXT_TOO_LONG",
                tokens=used,
                limit=most,
            )
        wanted = request.sampling.max_output_tokens
        return min(most - used, wanted or most)

    def _turn(self, request: TurnRequest, prompt: list[int], known: list[int], chunks: list[Chunk]) -> Turn:
        output = [token for chunk in chunks for token in chunk.token_ids]
        logprobs = [logprob for chunk in chunks for logprob in chunk.logprobs]
        last = chunks[-1]
        _check_cover(last.spans, len(output), len(logprobs))
        if last.finish_reason is None:
            raise Internal("the engine ended a request without a reason", reason="GENERATION_LOST")
        thinking = self._tokenizer.decode(prompt[-8:]).rstrip().endswith("<think>")
        return Turn(
            context=Context(known + output, (), self._tokenizer.template_hash),
            message=parse(self._tokenizer.decode(output), thinking=thinking),
            finish_reason=last.finish_reason,
            usage=Usage(len(known), last.cached_tokens, len(output)),
            prompt_token_ids=prompt,
            output_token_ids=output,
            output_logprobs=logprobs,
            spans=last.spans,
            trainable=request.sampling.trainable,
        )


def _check_cover(spans: tuple[Span, ...], tokens: int, logprobs: int) -> None:
    edges = [0, *(span.end for span in spans)]
    if tokens != logprobs or edges[-1] != tokens or [span.start for span in spans] != edges[:-1]:
        raise Internal(f"{tokens} tokens, {logprobs} logprobs and the spans {spans} do not fit", reason="SPANS_BROKEN")
