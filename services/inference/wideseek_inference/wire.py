"""Between the contract's messages and the core's values.

Invariant: JSON schemas reach the template in one order, whatever order a protobuf map gives its keys: the usual order
of schema keywords, and properties in the order of `required`, then by name.
"""

from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict
from wideseek.inference.v1 import inference_service_pb2 as pb
from wideseek.inference.v1 import weight_service_pb2 as weights_pb

from wideseek_inference.core.swap import SwapState, Wanted
from wideseek_inference.core.turns import (
    Context,
    Delta,
    FinishReason,
    Message,
    RequestError,
    Role,
    RouteInfo,
    Sampling,
    ToolCall,
    ToolSpec,
    Turn,
    TurnRequest,
)

_ROLES = {
    pb.ROLE_SYSTEM: Role.SYSTEM,
    pb.ROLE_USER: Role.USER,
    pb.ROLE_ASSISTANT: Role.ASSISTANT,
    pb.ROLE_TOOL: Role.TOOL,
}
_WIRE_ROLES = {role: number for number, role in _ROLES.items()}
_FINISH = {FinishReason.STOP: pb.FINISH_REASON_STOP, FinishReason.LENGTH: pb.FINISH_REASON_LENGTH}
_SCHEMA_ORDER = ("type", "description", "properties", "items", "required")


def request_from(message: pb.GenerateRequest) -> TurnRequest:
    """The turn that a request asks for."""
    sampling = message.sampling
    return TurnRequest(
        context=Context(
            list(message.context.token_ids),
            _messages(message.context.messages, "context.messages"),
            message.context.template_hash,
        ),
        messages=_messages(message.messages, "messages"),
        tools=tuple(ToolSpec(t.name, t.description, _schema(MessageToDict(t.parameters))) for t in message.tools),
        sampling=Sampling(
            temperature=sampling.temperature if sampling.HasField("temperature") else 1.0,
            top_p=sampling.top_p if sampling.HasField("top_p") else 1.0,
            top_k=sampling.top_k,
            max_output_tokens=sampling.max_output_tokens if sampling.HasField("max_output_tokens") else None,
            seed=sampling.seed if sampling.HasField("seed") else None,
        ),
    )


def _messages(messages: Any, field: str) -> tuple[Message, ...]:
    for index, message in enumerate(messages):
        if message.role not in _ROLES:
            raise RequestError(f"{field}[{index}].role", f"{message.role} is no role of a message")
    return tuple(
        Message(
            _ROLES[m.role],
            m.content,
            m.reasoning_content,
            tuple(ToolCall(c.name, c.arguments_json, c.raw, c.error) for c in m.tool_calls),
        )
        for m in messages
    )


def _schema(value: Any, order: tuple[str, ...] = _SCHEMA_ORDER) -> Any:
    if isinstance(value, list):
        return [_schema(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)  # a Struct knows only doubles
    if not isinstance(value, dict):
        return value
    ordered = sorted(value, key=lambda key: (order.index(key) if key in order else len(order), key))
    required = value.get("required")
    names = tuple(required) if isinstance(required, list) else ()
    return {key: _schema(value[key], names if key == "properties" else _SCHEMA_ORDER) for key in ordered}


def response_from(event: Delta | Turn, sequence: int) -> pb.GenerateResponse:
    """The stream message of a piece or of the end of a turn."""
    if isinstance(event, Delta):
        return pb.GenerateResponse(sequence=sequence, delta=pb.GenerateDelta(text=event.text, tokens=event.tokens))
    return pb.GenerateResponse(sequence=sequence, result=_result(event))


def _result(turn: Turn) -> pb.GenerateResult:
    return pb.GenerateResult(
        context=pb.TokenContext(
            token_ids=turn.context.token_ids,
            messages=[_message(message) for message in turn.context.messages],
            template_hash=turn.context.template_hash,
        ),
        prompt_token_ids=turn.prompt_token_ids,
        output_token_ids=turn.output_token_ids,
        output_logprobs=turn.output_logprobs,
        version_spans=[pb.VersionSpan(version=s.version, start=s.start, end=s.end) for s in turn.spans],
        message=_message(turn.message),
        finish_reason=_FINISH[turn.finish_reason],
        usage=pb.Usage(
            input_tokens=turn.usage.input_tokens,
            cached_tokens=turn.usage.cached_tokens,
            output_tokens=turn.usage.output_tokens,
        ),
        trainable=turn.trainable,
    )


def _message(message: Message) -> pb.Message:
    calls = [
        pb.ToolCall(name=c.name, arguments_json=c.arguments_json, raw=c.raw, error=c.error) for c in message.tool_calls
    ]
    return pb.Message(
        role=_WIRE_ROLES[message.role], content=message.content, reasoning_content=message.reasoning, tool_calls=calls
    )


def model_from(info: RouteInfo) -> pb.Model:
    """A route on the wire."""
    return pb.Model(
        name=info.name,
        backend=info.backend,
        max_context_tokens=info.max_context_tokens,
        version=info.version,
        template_hash=info.template_hash,
        trainable=info.trainable,
    )


def wanted_from(message: weights_pb.UpdateWeightsRequest) -> Wanted:
    """The version that a request names."""
    if not message.uri:
        raise RequestError("uri", "is empty; name the directory of the version's files")
    return Wanted(message.version, message.uri, message.manifest_sha256)


def state_from(state: SwapState, in_flight: int, lost: int) -> weights_pb.WeightState:
    """The state on the wire."""
    pauses = [_duration(seconds) for seconds in state.pauses]
    return weights_pb.WeightState(
        served_version=state.served_version,
        announced_version=state.announced_version,
        paused=state.paused,
        swaps=state.swaps,
        failed_swaps=state.failed_swaps,
        last_error=state.last_error,
        last_pause=pauses[-1] if pauses else None,
        pauses=pauses,
        requests_lost=lost,
        requests_in_flight=in_flight,
    )


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromNanoseconds(round(seconds * 1e9))
    return duration
