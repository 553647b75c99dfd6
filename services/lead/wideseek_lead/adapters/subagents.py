"""Subtasks over gRPC: the subagent service as the episode's runner.

Invariants: leaving the stream cancels the call, and with it everything under it; a failure is a `SubtaskFailedError`
with the server's reason.
"""

from collections.abc import AsyncGenerator

from wideseek.subagent.v1 import subagent_service_pb2 as pb
from wideseek.subagent.v1 import subagent_service_pb2_grpc as pb_grpc
from wideseek_agent.messages import AgentRole
from wideseek_kit.channels import calling
from wideseek_kit.errors import ServiceError

from wideseek_lead.core.ports import Subtask, SubtaskFailedError, SubtaskReport, SubtaskTurn
from wideseek_lead.wire import sampling_to_wire
from wideseek_lead.wire_events import evidence_from_wire

_ROLES = {AgentRole.SUBAGENT: pb.SUBTASK_ROLE_SUBAGENT, AgentRole.SINGLE: pb.SUBTASK_ROLE_SINGLE}


class RemoteSubagents:
    """The subagent service."""

    def __init__(self, stub: pb_grpc.SubagentServiceStub) -> None:
        """Call through `stub`."""
        self._stub = stub

    async def run(self, task: Subtask) -> AsyncGenerator[SubtaskTurn | SubtaskReport, None]:
        """Run one subtask: its turns in order, then its report.

        Raises:
            SubtaskFailedError: the call failed.
        """
        try:
            with calling():
                call = self._stub.RunSubtask(_request(task), timeout=task.limits.seconds)
                try:
                    async for response in call:
                        kind = response.WhichOneof("event")
                        if kind == "turn":
                            yield _turn(task.agent_id, response)
                        elif kind == "report":
                            yield _report(response.report)
                            return
                finally:
                    call.cancel()  # nothing when it has ended; else the agent is stopped
        except ServiceError as error:
            raise SubtaskFailedError(error.reason, error.message) from error


def _request(task: Subtask) -> pb.RunSubtaskRequest:
    spec, limits = task.spec, task.limits
    request = pb.RunSubtaskRequest(
        episode_id=task.episode_id,
        agent_id=task.agent_id,
        role=_ROLES[task.role],
        prompt=task.prompt,
        model=spec.model,
        sampling=sampling_to_wire(spec.sampling),
        corpus=spec.corpus,
        language=spec.language,
        limits=pb.SubtaskLimits(
            max_turns=limits.turns,
            max_tool_calls=limits.tool_calls,
            max_output_tokens=limits.output_tokens,
            max_context_tokens=limits.context_tokens,
        ),
        prompt_pack=spec.prompt_pack,
    )
    if task.role is AgentRole.SINGLE:
        request.answer.format = spec.answer_format.value
        request.answer.required_columns.extend(spec.required_columns)
        request.answer.key_columns.extend(spec.key_columns)
    return request


def _turn(agent_id: str, response: pb.RunSubtaskResponse) -> SubtaskTurn:
    turn = response.turn
    turn.agent_id = agent_id  # the log's writer names its agents
    return SubtaskTurn(
        agent_id=agent_id,
        turn=turn.turn,
        input_tokens=turn.usage.input_tokens,
        output_tokens=turn.usage.output_tokens,
        evidence=evidence_from_wire(turn.tools),
        payload=turn,
    )


def _report(report: pb.SubtaskReport) -> SubtaskReport:
    return SubtaskReport(
        text=report.text,
        turns=report.turns,
        error=report.error,
        error_message=report.error_message,
        budget_exhausted=report.budget_exhausted,
    )
