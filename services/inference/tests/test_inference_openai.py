"""The route to an OpenAI-compatible endpoint, against a server of the test's own."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from wideseek_inference.adapters.openai_route import OpenAIRoute, plain, resolve_key
from wideseek_inference.core.turns import (
    Context,
    Delta,
    FinishReason,
    Message,
    RequestError,
    Role,
    Sampling,
    ToolCall,
    ToolSpec,
    Turn,
    TurnRequest,
    Usage,
)
from wideseek_inference.settings import RouteSettings
from wideseek_kit.entry import StartError
from wideseek_kit.errors import FailedPrecondition, InvalidArgument, ResourceExhausted, ServiceError, Unavailable

KEY = "sk-very-secret"


@dataclass
class Endpoint:
    """Answers every request with `answer` and keeps what it was asked."""

    answer: bytes = b""
    status: int = 200
    asked: list[dict[str, Any]] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)
    port: int = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = int(head.lower().partition("content-length:")[2].split("\r\n")[0])
        self.asked.append(json.loads(await reader.readexactly(length)))
        self.heads.append(head)
        writer.write(f"HTTP/1.1 {self.status} x\r\nContent-Length: {len(self.answer)}\r\n\r\n".encode() + self.answer)
        await writer.drain()
        writer.close()

    def reply(self, message: dict[str, Any], finish: str = "stop") -> None:
        usage = {"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 2}}
        choice = {"message": {"role": "assistant"} | message, "finish_reason": finish}
        self.answer = json.dumps({"choices": [choice], "usage": usage}).encode()


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    running = Endpoint()
    server = await asyncio.start_server(running.handle, "127.0.0.1", 0)
    running.port = server.sockets[0].getsockname()[1]
    async with server:
        yield running


@pytest.fixture
async def route(endpoint: Endpoint) -> AsyncIterator[OpenAIRoute]:
    async with httpx.AsyncClient(timeout=5, trust_env=False) as client:
        yield OpenAIRoute(client, f"http://127.0.0.1:{endpoint.port}/v1/", "gpt-x", SecretStr(KEY), 0)


def user(text: str) -> Message:
    return Message(Role.USER, text)


async def events(route: OpenAIRoute, request: TurnRequest) -> list[Delta | Turn]:
    return [event async for event in route.generate(request)]


async def test_a_turn_continues_messages_and_is_not_trainable(route: OpenAIRoute, endpoint: Endpoint) -> None:
    endpoint.reply({"content": "Two."})
    before = (user("Hi"), Message(Role.ASSISTANT, "Hello."))
    request = TurnRequest(Context([], before), (user("How many?"),), (), Sampling(0.5, 0.9, 0, 64, 3))
    delta, turn = await events(route, request)
    assert delta == Delta("Two.", 3)
    assert isinstance(turn, Turn)
    assert turn.context == Context([], (*before, user("How many?"), Message(Role.ASSISTANT, "Two.")))
    assert (turn.finish_reason, turn.usage, turn.trainable) == (FinishReason.STOP, Usage(7, 2, 3), False)
    assert endpoint.asked == [
        {
            "model": "gpt-x",
            "messages": [
                {"role": "user", "content": "Hi"},
                {"role": "assistant", "content": "Hello."},
                {"role": "user", "content": "How many?"},
            ],
            "temperature": 0.5,
            "top_p": 0.9,
            "max_tokens": 64,
            "seed": 3,
        }
    ]
    assert f"authorization: bearer {KEY}" in endpoint.heads[0].lower()
    assert endpoint.heads[0].startswith("POST /v1/chat/completions ")


async def test_tool_calls_are_read_and_malformed_ones_reported(route: OpenAIRoute, endpoint: Endpoint) -> None:
    calls = [
        {"id": "1", "type": "function", "function": {"name": "search", "arguments": '{"q": 1}'}},
        {"id": "2", "type": "function", "function": {"name": "search", "arguments": '{"q": '}},
        {"id": "3", "type": "function", "function": {"name": "search", "arguments": "[]"}},
    ]
    endpoint.reply({"content": None, "reasoning_content": "hm", "tool_calls": calls}, "length")
    tool = ToolSpec("search", "Finds.", {"type": "object"})
    (turn,) = await events(route, TurnRequest(Context(), (user("x"),), (tool,)))
    assert isinstance(turn, Turn)
    assert turn.finish_reason is FinishReason.LENGTH
    assert turn.message.reasoning == "hm"
    good, broken, array = turn.message.tool_calls
    assert good == ToolCall("search", '{"q": 1}', '{"q": 1}')
    assert (broken.name, broken.raw, broken.error.startswith("arguments of search are not JSON")) == (
        "",
        '{"q": ',
        True,
    )
    assert array.error == "arguments of search are no JSON object"
    function = {"name": "search", "description": "Finds.", "parameters": {"type": "object"}}
    assert endpoint.asked[0]["tools"] == [{"type": "function", "function": function}]


async def test_calls_written_as_text_are_parsed(route: OpenAIRoute, endpoint: Endpoint) -> None:
    text = '<think>hm</think>Wait.<tool_call>{"name": "search", "arguments": {}}</tool_call>'
    endpoint.reply({"content": text})
    turn = (await events(route, TurnRequest(Context(), (user("x"),))))[-1]
    assert isinstance(turn, Turn)
    assert (turn.message.reasoning, turn.message.content, turn.message.tool_calls[0].name) == ("hm", "Wait.", "search")


def test_every_call_sent_back_has_one_answer() -> None:
    good, bad = ToolCall("search", "{}", "{}"), ToolCall("", "", "{", "not JSON")
    messages = [
        Message(Role.ASSISTANT, "a", "", (good, bad, good)),
        Message(Role.TOOL, "one"),
        user("stop"),
        Message(Role.ASSISTANT, "b", "", (bad,)),
        Message(Role.TOOL, "that was no JSON"),
    ]
    sent = list(plain(messages))
    assert [(m["role"], m["content"], m.get("tool_call_id")) for m in sent] == [
        ("assistant", "a\n<tool_call>{</tool_call>", None),
        ("tool", "one", "call_0_0"),
        ("tool", "(no result)", "call_0_1"),
        ("user", "stop", None),
        ("assistant", "b\n<tool_call>{</tool_call>", None),
        ("user", "that was no JSON", None),
    ]
    assert [call["id"] for call in sent[0]["tool_calls"]] == ["call_0_0", "call_0_1"]


@pytest.mark.parametrize(
    ("status", "error", "reason"),
    [
        (429, ResourceExhausted, "UPSTREAM_BUSY"),
        (401, FailedPrecondition, "UPSTREAM_REFUSED"),
        (400, InvalidArgument, "UPSTREAM_INVALID"),
        (503, Unavailable, "UPSTREAM_UNAVAILABLE"),
    ],
)
async def test_refusals_keep_their_meaning_and_not_the_key(
    route: OpenAIRoute, endpoint: Endpoint, status: int, error: type[ServiceError], reason: str
) -> None:
    endpoint.status, endpoint.answer = status, f"bad key {KEY}".encode()
    with pytest.raises(error, match=f"answered {status}: bad key \\*\\*\\*") as caught:
        await events(route, TurnRequest(Context(), (user("x"),)))
    assert caught.value.reason == reason
    assert KEY not in str(caught.value.to_status())


@pytest.mark.parametrize("answer", [b"{}", b'{"choices": []}', b'{"choices": [{"message": "x"}]}', b"null"])
async def test_what_is_no_completion_is_said_so(route: OpenAIRoute, endpoint: Endpoint, answer: bytes) -> None:
    endpoint.answer = answer
    with pytest.raises(Unavailable) as caught:
        await events(route, TurnRequest(Context(), (user("x"),)))
    assert caught.value.reason == "UPSTREAM_MALFORMED"


async def test_an_endpoint_that_is_away(endpoint: Endpoint) -> None:
    async with httpx.AsyncClient(timeout=1, trust_env=False) as client:
        route = OpenAIRoute(client, "http://127.0.0.1:1", "m", SecretStr(""), 0)
        with pytest.raises(Unavailable, match="127.0.0.1:1") as caught:
            await events(route, TurnRequest(Context(), (user("x"),)))
    assert caught.value.reason == "UPSTREAM_UNAVAILABLE"


async def test_token_contexts_are_foreign_here(route: OpenAIRoute) -> None:
    with pytest.raises(RequestError) as caught:
        await events(route, TurnRequest(Context([1]), (user("x"),)))
    assert (caught.value.field, caught.value.reason) == ("context.token_ids", "CONTEXT_FOREIGN")


def test_a_key_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = RouteSettings(backend="openai", url="http://x", model="m", api_key_env="SOME_KEY")
    monkeypatch.delenv("SOME_KEY", raising=False)
    with pytest.raises(StartError, match="SOME_KEY, which is not set"):
        resolve_key(settings)
    monkeypatch.setenv("SOME_KEY", KEY)
    assert resolve_key(settings).get_secret_value() == KEY
