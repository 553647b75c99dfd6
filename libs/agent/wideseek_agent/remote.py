"""The inference service as an agent's model, and the protocol's messages on the wire. Lead and subagent share it.

Invariants: the context goes back exactly as it came; cancelling `generate` cancels the call under it; a failure is a
`ServiceError` with the server's reason, except that a full context is the loop's `ContextFullError`.
"""

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf import duration_pb2, json_format, struct_pb2
from wideseek.events.v1 import trajectory_pb2 as events
from wideseek.inference.v1 import inference_service_pb2 as pb
from wideseek.inference.v1 import inference_service_pb2_grpc as pb_grpc
from wideseek_kit.channels import calling
from wideseek_kit.errors import ServiceError, Unavailable

from wideseek_agent.loop import ContextFullError, Generated, TurnRecord
from wideseek_agent.messages import Message, Role, ToolCall, ToolSpec
from wideseek_agent.toolset import Evidence

CONTEXT_TOO_LONG = "CONTEXT_TOO_LONG"

_ROLES = {
    Role.SYSTEM: pb.ROLE_SYSTEM,
    Role.USER: pb.ROLE_USER,
    Role.ASSISTANT: pb.ROLE_ASSISTANT,
    Role.TOOL: pb.ROLE_TOOL,
}
_ROLES_BACK = {number: role for role, number in _ROLES.items()}


def message_to_wire(message: Message) -> pb.Message:
    """A message as the contract has it."""
    return pb.Message(
        role=_ROLES[message.role],
        content=message.content,
        reasoning_content=message.reasoning,
        tool_calls=[
            pb.ToolCall(
                name=call.name,
                arguments_json="" if call.error else json.dumps(call.arguments, ensure_ascii=False),
                raw=call.raw,
                error=call.error,
            )
            for call in message.tool_calls
        ],
    )


def message_from_wire(message: pb.Message) -> Message:
    """The inverse of `message_to_wire`; arguments that are no JSON object make the call malformed.

    Raises:
        ValueError: the role is not set.
    """
    if message.role not in _ROLES_BACK:
        raise ValueError(f"message.role: {message.role} is not a role")
    calls = tuple(_call_from_wire(call) for call in message.tool_calls)
    return Message(_ROLES_BACK[message.role], message.content, message.reasoning_content, calls)


def _call_from_wire(call: pb.ToolCall) -> ToolCall:
    if call.error:
        return ToolCall(call.name, {}, call.raw, call.error)
    try:
        arguments = json.loads(call.arguments_json or "{}")
    except ValueError as error:
        return ToolCall("", {}, call.raw or call.arguments_json, f"arguments are not JSON: {error}")
    if not isinstance(arguments, dict):
        return ToolCall("", {}, call.raw or call.arguments_json, "arguments are not a JSON object")
    return ToolCall(call.name, arguments, call.raw)


def spec_to_wire(spec: ToolSpec) -> pb.ToolSpec:
    """A tool spec as the contract has it."""
    parameters = json_format.ParseDict(spec.parameters, struct_pb2.Struct())
    return pb.ToolSpec(name=spec.name, description=spec.description, parameters=parameters)


@dataclass(frozen=True)
class RemoteTurn:
    """What `Generated.record` holds: the result as it came, and the seconds it took."""

    result: pb.GenerateResult
    seconds: float


class RemoteModel:
    """One agent's way to one model route."""

    def __init__(
        self,
        stub: pb_grpc.InferenceServiceStub,
        *,
        model: str = "",
        sampling: pb.SamplingParams | None = None,
        affinity_key: str = "",
        timeout: float | None = None,
    ) -> None:
        """Speak to `model` through `stub`; a turn may take `timeout` seconds. `affinity_key` is "<episode>/<agent>"."""
        self._stub = stub
        self._model = model
        self._sampling = sampling or pb.SamplingParams()
        self._affinity_key = affinity_key
        self._timeout = timeout

    async def context_limit(self) -> int:
        """The most tokens that a conversation with the model may have; 0 when the backend does not say.

        Raises:
            ServiceError: the route is unknown (MODEL_NOT_FOUND), or the service out of reach.
        """
        with calling():
            answer = await self._stub.GetModel(pb.GetModelRequest(model=self._model), timeout=self._timeout)
        return answer.model.max_context_tokens

    async def generate(
        self, context: Any, messages: Sequence[Message], tools: Sequence[ToolSpec], *, max_output_tokens: int | None
    ) -> Generated:
        """Generate one turn (see `wideseek_agent.loop.Model`).

        Raises:
            ServiceError: the service refused, failed, or is out of reach.
        """
        request = pb.GenerateRequest(
            model=self._model,
            context=context,
            messages=[message_to_wire(message) for message in messages],
            tools=[spec_to_wire(tool) for tool in tools] if context is None else [],
            sampling=self._sampling_with(max_output_tokens),
            affinity_key=self._affinity_key,
        )
        started = time.monotonic()
        try:
            result = await self._last(request)
        except ServiceError as error:
            if error.reason == CONTEXT_TOO_LONG:
                raise ContextFullError(error.message) from error
            raise
        return Generated(
            context=result.context,
            message=message_from_wire(result.message),
            finish_reason="length" if result.finish_reason == pb.FINISH_REASON_LENGTH else "stop",
            input_tokens=result.usage.input_tokens,
            output_tokens=result.usage.output_tokens,
            record=RemoteTurn(result, time.monotonic() - started),
        )

    async def _last(self, request: pb.GenerateRequest) -> pb.GenerateResult:
        result = None
        with calling():
            call = self._stub.Generate(request, timeout=self._timeout)
            try:
                async for response in call:  # to its end, or the service would count the call as given up
                    if response.WhichOneof("event") == "result":
                        result = response.result
            finally:
                call.cancel()  # nothing when it has ended; else the engine's slot is freed
        if result is None:
            raise Unavailable("the inference service ended the stream without a result", reason="GENERATE_CUT_SHORT")
        return result

    def _sampling_with(self, max_output_tokens: int | None) -> pb.SamplingParams:
        sampling = pb.SamplingParams()
        sampling.CopyFrom(self._sampling)
        own = sampling.max_output_tokens if sampling.HasField("max_output_tokens") else None
        caps = [cap for cap in (own, max_output_tokens) if cap is not None]
        if caps:
            sampling.max_output_tokens = min(caps)
        return sampling


def evidence_to_wire(items: Iterable[Evidence]) -> list[events.ToolEvidence]:
    """Evidence as the trajectory events have it."""
    return [
        events.ToolEvidence(
            tool=item.tool,
            input=item.input,
            error=item.error,
            bytes=item.bytes,
            latency=_duration(item.latency_seconds),
            cache_hit=item.cache_hit,
            found=item.found,
            excerpt=item.excerpt,
        )
        for item in items
    ]


def turn_to_wire(agent_id: str, record: TurnRecord) -> events.Turn:
    """A turn that a `RemoteModel` generated, as the trajectory events have it."""
    remote: RemoteTurn = record.generated.record
    result = remote.result
    return events.Turn(
        agent_id=agent_id,
        turn=record.turn,
        prompt_token_ids=result.prompt_token_ids,
        output_token_ids=result.output_token_ids,
        output_logprobs=result.output_logprobs,
        version_spans=result.version_spans,
        message=result.message,
        finish_reason=result.finish_reason,
        usage=result.usage,
        trainable=result.trainable,
        tools=evidence_to_wire(record.evidence),
        generation_time=_duration(remote.seconds),
        template_hash=result.context.template_hash,
    )


def _duration(seconds: float) -> duration_pb2.Duration:
    duration = duration_pb2.Duration()
    duration.FromNanoseconds(int(seconds * 1e9))
    return duration
