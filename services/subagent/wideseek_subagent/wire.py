"""Requests to subtasks, and what happens to them back to responses.

Invariant: a field that cannot be used is refused with its path and the figure; 0 and empty mean the service's own.
"""

from wideseek.subagent.v1 import subagent_service_pb2 as pb
from wideseek_agent.budget import Limits
from wideseek_agent.loop import TurnRecord
from wideseek_agent.messages import AgentRole, AnswerFormat, Message
from wideseek_agent.remote import turn_to_wire
from wideseek_agent.tools import MAX_TEXT, activity
from wideseek_kit.errors import InvalidArgument

from wideseek_subagent.core.ports import Subtask
from wideseek_subagent.core.work import Report
from wideseek_subagent.settings import Settings

MAX_TURNS = 1000
MAX_TOOL_CALLS = 100_000
MAX_TOKENS = 10_000_000
_MAX_ID = 256
_REPORTING_SHARE = 0.1
_REPORTING_SECONDS = 1.0
_ROLES = {
    pb.SUBTASK_ROLE_UNSPECIFIED: AgentRole.SUBAGENT,
    pb.SUBTASK_ROLE_SUBAGENT: AgentRole.SUBAGENT,
    pb.SUBTASK_ROLE_SINGLE: AgentRole.SINGLE,
}


def subtask_of(request: pb.RunSubtaskRequest, settings: Settings, seconds: float | None) -> Subtask:
    """The subtask that a request asks for; `seconds` is the time until the caller's deadline, if there is one.

    Raises:
        InvalidArgument: a field cannot be used.
    """
    if request.role not in _ROLES:
        raise InvalidArgument("role", f"{request.role} is not a role", given=request.role)
    role = _ROLES[request.role]
    answer = request.answer
    return Subtask(
        episode_id=_text("episode_id", request.episode_id, _MAX_ID),
        agent_id=_text("agent_id", request.agent_id, _MAX_ID),
        role=role,
        prompt=_text("prompt", request.prompt, MAX_TEXT),
        limits=_limits(request.limits, settings, role, seconds),
        pack=request.prompt_pack or settings.prompt_pack,
        language=request.language or "en",
        model=request.model,
        corpus=request.corpus,
        sampling=request.sampling,
        answer_format=_answer_format(answer.format),
        columns=tuple(answer.required_columns),
        key_columns=tuple(answer.key_columns),
    )


def progress_of(turn: int, reply: Message) -> pb.RunSubtaskResponse:
    """A turn under way."""
    return pb.RunSubtaskResponse(progress=pb.TurnProgress(turn=turn, activity=activity(reply)))


def turn_of(agent_id: str, record: TurnRecord) -> pb.RunSubtaskResponse:
    """A finished turn."""
    return pb.RunSubtaskResponse(turn=turn_to_wire(agent_id, record))


def report_of(report: Report) -> pb.RunSubtaskResponse:
    """The end."""
    return pb.RunSubtaskResponse(
        report=pb.SubtaskReport(
            text=report.text,
            turns=report.turns,
            error=report.error,
            error_message=report.error_message,
            budget_exhausted=report.budget_exhausted,
        )
    )


def _text(field: str, value: str, most: int) -> str:
    if not value.strip():
        raise InvalidArgument(field, "empty")
    if len(value) > most:
        raise InvalidArgument(field, f"{len(value)} characters given, at most {most}", given=len(value), most=most)
    return value


def _limits(limits: pb.SubtaskLimits, settings: Settings, role: AgentRole, seconds: float | None) -> Limits:
    turns = settings.single_turns if role is AgentRole.SINGLE else settings.subagent_turns
    return Limits(
        turns=_figure("max_turns", limits.max_turns, MAX_TURNS) or turns,
        tool_calls=_figure("max_tool_calls", limits.max_tool_calls, MAX_TOOL_CALLS) or settings.tool_calls,
        output_tokens=_figure("max_output_tokens", limits.max_output_tokens, MAX_TOKENS) or settings.output_tokens,
        context_tokens=_figure("max_context_tokens", limits.max_context_tokens, MAX_TOKENS) or settings.context_tokens,
        # A little is left for the report to travel.
        seconds=None if seconds is None else seconds - min(_REPORTING_SECONDS, seconds * _REPORTING_SHARE),
    )


def _figure(name: str, value: int, most: int) -> int:
    if value > most:
        raise InvalidArgument(f"limits.{name}", f"{value} given, at most {most}", given=value, most=most)
    return value


def _answer_format(value: str) -> AnswerFormat:
    try:
        return AnswerFormat(value or "table")
    except ValueError:
        raise InvalidArgument("answer.format", f"{value!r} given, there are: table, boxed", given=value) from None
