"""For tests: the far side of an agent as real servicers, so that what is tested is the agent and its wire.

Invariants: `ScriptedInference` is append-only like the real one and refuses a context that it did not return; both
servicers record what arrived and which calls were cancelled.
"""

import asyncio
import inspect
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf import duration_pb2
from grpc import aio
from wideseek.inference.v1 import inference_service_pb2 as pb
from wideseek.inference.v1 import inference_service_pb2_grpc as pb_grpc
from wideseek.tools.v1 import tools_service_pb2 as tools_pb
from wideseek.tools.v1 import tools_service_pb2_grpc as tools_grpc
from wideseek_kit.errors import InvalidArgument, NotFound, ServiceError

from wideseek_agent.messages import Message, Role, ToolCall
from wideseek_agent.remote import message_from_wire, message_to_wire

INFERENCE = "wideseek.inference.v1.InferenceService"
TOOLS = "wideseek.tools.v1.ToolsService"
TEMPLATE_HASH = "scripted"

Script = Callable[[Sequence[Message]], str | Awaitable[str]]

_CALL = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)
_THINK = re.compile(r"<think>(.*?)</think>", re.DOTALL)


def call_text(name: str, text: str = "", **arguments: Any) -> str:
    """A reply that calls one tool, after `text` if there is any."""
    body = json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)
    return f"{text}<tool_call>\n{body}\n</tool_call>"


def parse_reply(text: str) -> Message:
    """What a reply says, as the inference service parses it."""
    calls = tuple(_tool_call(raw.strip()) for raw in _CALL.findall(text))
    thought = _THINK.search(text)
    content = _CALL.sub("", _THINK.sub("", text)).strip()
    return Message(Role.ASSISTANT, content, thought.group(1).strip() if thought else "", calls)


def _tool_call(raw: str) -> ToolCall:
    try:
        body = json.loads(raw)
        return ToolCall(str(body["name"]), dict(body["arguments"]), raw)
    except (ValueError, KeyError, TypeError) as error:
        return ToolCall("", {}, raw, f"not a tool call: {error}")


class ScriptedInference(pb_grpc.InferenceServiceServicer):
    """An inference service whose model is a function of the conversation.

    A token is a byte of the text, each with logprob -0.5 and made by `version`. The script may raise a `ServiceError`,
    and may be a coroutine function that waits.

    Attributes:
        requests: the Generate requests, in order of arrival.
        active: Generate calls under way.
        cancelled: Generate calls that the caller gave up.
    """

    def __init__(self, script: Script, *, version: int = 1, max_context_tokens: int = 0) -> None:
        """`script` gets all messages of the conversation and gives the reply's text."""
        self.requests: list[pb.GenerateRequest] = []
        self.active = 0
        self.cancelled = 0
        self._script = script
        self._version = version
        self._max_context_tokens = max_context_tokens
        self._conversations: dict[tuple[int, ...], tuple[Message, ...]] = {(): ()}

    async def Generate(
        self, request: pb.GenerateRequest, context: aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[pb.GenerateResponse]:
        """Play the script for one turn."""
        self.requests.append(request)
        self.active += 1
        try:
            result = await self._result(request)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.active -= 1
        delta = pb.GenerateDelta(text=result.message.content, tokens=len(result.output_token_ids))
        yield pb.GenerateResponse(sequence=1, delta=delta)
        yield pb.GenerateResponse(sequence=2, result=result)

    async def GetModel(
        self, request: pb.GetModelRequest, context: aio.ServicerContext[Any, Any]
    ) -> pb.GetModelResponse:
        """Describe the one model, under whatever name; "missing" is unknown."""
        if request.model == "missing":
            raise NotFound("no model 'missing'", reason="MODEL_NOT_FOUND", model="missing")
        return pb.GetModelResponse(model=self._model(request.model or "policy"))

    async def ListModels(
        self, request: pb.ListModelsRequest, context: aio.ServicerContext[Any, Any]
    ) -> pb.ListModelsResponse:
        """List the one model."""
        return pb.ListModelsResponse(models=[self._model("policy")])

    def _model(self, name: str) -> pb.Model:
        return pb.Model(
            name=name,
            backend="vllm",
            max_context_tokens=self._max_context_tokens,
            version=self._version,
            template_hash=TEMPLATE_HASH,
            trainable=True,
        )

    async def _result(self, request: pb.GenerateRequest) -> pb.GenerateResult:
        before = tuple(request.context.token_ids)
        if before not in self._conversations:
            raise InvalidArgument("context", f"{len(before)} tokens that this service did not return")
        told = tuple(message_from_wire(message) for message in request.messages)
        messages = self._conversations[before] + told
        prompt = _tokens("".join(f"[{m.role}]{m.content}" for m in told) + "[assistant]")
        self._check_context(len(before) + len(prompt))
        said = self._script(messages)
        text = await said if inspect.isawaitable(said) else said
        sampling = request.sampling
        output = _tokens(text)
        most = sampling.max_output_tokens if sampling.HasField("max_output_tokens") else len(output)
        if self._max_context_tokens:
            most = min(most, self._max_context_tokens - len(before) - len(prompt))
        cut = most < len(output)
        output = output[:most]
        reply = parse_reply(bytes(output).decode(errors="ignore"))
        after = (*before, *prompt, *output)
        self._conversations[after] = (*messages, reply)
        return pb.GenerateResult(
            context=pb.TokenContext(token_ids=after, template_hash=TEMPLATE_HASH),
            prompt_token_ids=prompt,
            output_token_ids=output,
            output_logprobs=[-0.5] * len(output),
            version_spans=[pb.VersionSpan(version=self._version, start=0, end=len(output))],
            message=message_to_wire(reply),
            finish_reason=pb.FINISH_REASON_LENGTH if cut else pb.FINISH_REASON_STOP,
            usage=pb.Usage(input_tokens=len(before) + len(prompt), output_tokens=len(output)),
            trainable=not sampling.HasField("temperature") or sampling.temperature > 0,
        )

    def _check_context(self, tokens: int) -> None:
        most = self._max_context_tokens
        if most and tokens >= most:
            raise InvalidArgument("messages", f"{tokens} tokens, the context holds {most}", reason="CONTEXT_TOO_LONG")


def _tokens(text: str) -> list[int]:
    return list(text.encode())


@dataclass(frozen=True)
class FakePage:
    """A page of `FakeTools`; its snippet is the text's start unless given."""

    title: str
    text: str
    snippet: str = ""


class FakeTools(tools_grpc.ToolsServiceServicer):
    """A tools service over a few pages: a page matches a query when they share a word.

    Attributes:
        searches: the Search requests, in order of arrival.
        fetches: the FetchPage requests, in order of arrival.
        failure: raised by every call while set.
        hold: calls wait for it while set.
        cancelled: calls that the caller gave up.
    """

    def __init__(self, pages: Mapping[str, FakePage]) -> None:
        """Serve `pages`, address to page; other addresses are not found."""
        self.searches: list[tools_pb.SearchRequest] = []
        self.fetches: list[tools_pb.FetchPageRequest] = []
        self.failure: ServiceError | None = None
        self.hold: asyncio.Event | None = None
        self.cancelled = 0
        self._pages = dict(pages)

    async def Search(
        self, request: tools_pb.SearchRequest, context: aio.ServicerContext[Any, Any]
    ) -> tools_pb.SearchResponse:
        """Answer each query; one with the word "broken" fails."""
        self.searches.append(request)
        await self._pass()
        return tools_pb.SearchResponse(results=[self._search(query) for query in request.queries])

    async def FetchPage(
        self, request: tools_pb.FetchPageRequest, context: aio.ServicerContext[Any, Any]
    ) -> tools_pb.FetchPageResponse:
        """Answer each address."""
        self.fetches.append(request)
        await self._pass()
        return tools_pb.FetchPageResponse(results=[self._fetch(page) for page in request.pages])

    async def _pass(self) -> None:
        if self.failure is not None:
            raise self.failure
        if self.hold is not None:
            try:
                await self.hold.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise

    def _search(self, query: tools_pb.SearchQuery) -> tools_pb.SearchResult:
        words = set(query.query.lower().split())
        if "broken" in words:
            error = ServiceError("the index is broken", reason="INDEX_BROKEN")
            return tools_pb.SearchResult(query=query.query, error=error.to_status())
        hits = [
            tools_pb.SearchHit(title=page.title, url=url, snippet=page.snippet or page.text[:80], score=1.0)
            for url, page in self._pages.items()
            if words & set(f"{page.title} {page.text}".lower().replace(".", " ").split())
        ]
        return tools_pb.SearchResult(
            query=query.query, hits=hits[: query.count or 3], evidence=_evidence(sum(len(h.snippet) for h in hits))
        )

    def _fetch(self, asked: tools_pb.PageRequest) -> tools_pb.PageResult:
        page = self._pages.get(asked.url)
        if page is None:
            missing = NotFound("page not found", reason="PAGE_NOT_FOUND", url=asked.url)
            return tools_pb.PageResult(url=asked.url, error=missing.to_status(), evidence=_evidence(0))
        text = page.text[asked.offset :][: asked.max_chars or None]
        return tools_pb.PageResult(
            url=asked.url,
            title=page.title,
            text=text,
            total_chars=len(page.text),
            evidence=_evidence(len(text.encode()), cached=True),
        )


def _evidence(size: int, *, cached: bool = False) -> tools_pb.Evidence:
    cache = tools_pb.CACHE_STATE_HIT if cached else tools_pb.CACHE_STATE_MISS
    return tools_pb.Evidence(backend="fake", latency=duration_pb2.Duration(nanos=2_000_000), bytes=size, cache=cache)
