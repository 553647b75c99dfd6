"""The route to an OpenAI-compatible chat endpoint.

Invariants: contexts are messages, as the endpoint gives no token ids; its turns are never trainable; the key is sent to
the configured URL only and stands in no error. Every tool call that is sent back has exactly one answer behind it, as
such endpoints demand.
"""

import json
import os
from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import Any

import httpx
from pydantic import SecretStr
from wideseek_kit.entry import StartError
from wideseek_kit.errors import (
    FailedPrecondition,
    InvalidArgument,
    ResourceExhausted,
    ServiceError,
    Unavailable,
)

from wideseek_inference.core.parse import parse
from wideseek_inference.core.turns import (
    Context,
    Delta,
    FinishReason,
    Message,
    RequestError,
    Role,
    RouteInfo,
    ToolCall,
    ToolSpec,
    Turn,
    TurnRequest,
    Usage,
)
from wideseek_inference.settings import RouteSettings

_NO_RESULT = "(no result)"


def resolve_key(route: RouteSettings) -> SecretStr:
    """The key of a route, from the environment variable that the route names; empty when it names none.

    Raises:
        StartError: that variable is not set.
    """
    if not route.api_key_env:
        return SecretStr("")
    key = os.environ.get(route.api_key_env)
    if not key:
        raise StartError(f"the route to {route.url} reads its key from {route.api_key_env}, which is not set")
    return SecretStr(key)


class OpenAIRoute:
    """Implements `core.turns.Route`."""

    def __init__(
        self, client: httpx.AsyncClient, url: str, model: str, key: SecretStr, max_context_tokens: int
    ) -> None:
        """Ask `url` (its part before /chat/completions) for `model`."""
        self._client = client
        self._url = url.rstrip("/") + "/chat/completions"
        self._model = model
        self._key = key
        self._max_context_tokens = max_context_tokens

    def info(self, name: str) -> RouteInfo:
        """What the route is."""
        return RouteInfo(name=name, backend="openai", max_context_tokens=self._max_context_tokens)

    async def generate(self, request: TurnRequest) -> AsyncGenerator[Delta | Turn, None]:
        """One delta with the text, then the turn."""
        if request.context.token_ids:
            raise RequestError(
                "context.token_ids", "this route continues messages, the context holds token ids", "CONTEXT_FOREIGN"
            )
        known = (*request.context.messages, *request.messages)
        answer = await self._ask(_body(self._model, known, request))
        try:
            message, finish, usage = _read(answer)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise Unavailable(f"{self._url}: no chat completion: {error!r}", reason="UPSTREAM_MALFORMED") from error
        if message.content:
            yield Delta(message.content, usage.output_tokens)
        yield Turn(Context([], (*known, message)), message, finish, usage)

    async def _ask(self, body: dict[str, Any]) -> Any:
        key = self._key.get_secret_value()
        try:
            response = await self._client.post(
                self._url, json=body, headers={"Authorization": f"Bearer {key}"} if key else {}
            )
            if response.is_success:
                return response.json()
        except (httpx.HTTPError, ValueError) as error:
            raise Unavailable(f"{self._url}: {error!r}", reason="UPSTREAM_UNAVAILABLE") from error
        raise _refusal(self._url, response.status_code, response.text[:500].replace(key or "\0", "***"))


def _refusal(url: str, status: int, text: str) -> ServiceError:
    message = f"{url} answered {status}: {text}"
    if status == 429:
        return ResourceExhausted(message, reason="UPSTREAM_BUSY", status=status)
    if status in (401, 403, 404):
        return FailedPrecondition(message, reason="UPSTREAM_REFUSED", status=status)
    if 400 <= status < 500:
        return InvalidArgument("messages", message, reason="UPSTREAM_INVALID", status=status)
    return Unavailable(message, reason="UPSTREAM_UNAVAILABLE", status=status)


def _body(model: str, messages: Sequence[Message], request: TurnRequest) -> dict[str, Any]:
    sampling = request.sampling
    body: dict[str, Any] = {
        "model": model,
        "messages": list(plain(messages)),
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
    }
    if sampling.max_output_tokens is not None:
        body["max_tokens"] = sampling.max_output_tokens
    if sampling.seed is not None:
        body["seed"] = sampling.seed
    if sampling.top_k:
        body["top_k"] = sampling.top_k
    if request.tools:
        body["tools"] = [_function(tool) for tool in request.tools]
    return body


def _function(tool: ToolSpec) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", "function": function}


def plain(messages: Sequence[Message]) -> Iterator[dict[str, Any]]:
    """Messages as such endpoints take them; tool results are matched to the calls before them by order."""
    open_calls: list[str] = []
    for index, message in enumerate(messages):
        if message.role is Role.TOOL:
            if open_calls:
                yield {"role": "tool", "tool_call_id": open_calls.pop(0), "content": message.content}
            else:  # the answer to a malformed call, which is not sent back as one
                yield {"role": "user", "content": message.content}
            continue
        yield from _unanswered(open_calls)
        open_calls = []
        if message.role is not Role.ASSISTANT:
            yield {"role": str(message.role), "content": message.content}
            continue
        calls = [call for call in message.tool_calls if not call.error]
        open_calls = [f"call_{index}_{number}" for number in range(len(calls))]
        yield _assistant(message, calls, open_calls)
    yield from _unanswered(open_calls)


def _unanswered(calls: list[str]) -> Iterator[dict[str, Any]]:
    for call in calls:
        yield {"role": "tool", "tool_call_id": call, "content": _NO_RESULT}


def _assistant(message: Message, calls: list[ToolCall], ids: list[str]) -> dict[str, Any]:
    written = "".join(f"\n<tool_call>{call.raw}</tool_call>" for call in message.tool_calls if call.error)
    entry: dict[str, Any] = {"role": "assistant", "content": message.content + written}
    if calls:
        entry["tool_calls"] = [
            {"id": identity, "type": "function", "function": {"name": call.name, "arguments": call.arguments_json}}
            for identity, call in zip(ids, calls, strict=True)
        ]
    return entry


def _read(answer: Any) -> tuple[Message, FinishReason, Usage]:
    choice = answer["choices"][0]
    given = choice["message"]
    text = given.get("content") or ""
    message = parse(text)
    calls = tuple(_call(call["function"]) for call in given.get("tool_calls") or ())
    reasoning = given.get("reasoning_content") or given.get("reasoning") or message.reasoning
    message = Message(Role.ASSISTANT, message.content, reasoning, calls or message.tool_calls)
    finish = FinishReason.LENGTH if choice.get("finish_reason") == "length" else FinishReason.STOP
    usage = answer.get("usage") or {}
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    return message, finish, Usage(usage.get("prompt_tokens") or 0, cached, usage.get("completion_tokens") or 0)


def _call(function: dict[str, Any]) -> ToolCall:
    name, arguments = function["name"], function["arguments"]
    if not isinstance(name, str) or not isinstance(arguments, str):
        raise TypeError(f"name and arguments of a tool call must be strings: {function!r}"[:200])
    try:
        if isinstance(json.loads(arguments), dict):
            return ToolCall(name, arguments, arguments)
        return ToolCall("", "", arguments, f"arguments of {name} are no JSON object")
    except (ValueError, RecursionError) as error:
        return ToolCall("", "", arguments, f"arguments of {name} are not JSON: {error}")
