"""Requests and the Episode resource on the wire.

Invariants: `episode_from_wire` is the inverse of `episode_to_wire`; a request becomes a spec only with every default
filled in and every field checked, and its fault names the field and the figure.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from google.protobuf import any_pb2, timestamp_pb2
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from wideseek.events.v1 import trajectory_pb2 as events
from wideseek.inference.v1 import inference_service_pb2 as inference
from wideseek.lead.v1 import lead_service_pb2 as pb
from wideseek_agent.messages import AnswerFormat
from wideseek_kit.errors import DOMAIN, InvalidArgument, error_info

from wideseek_lead.core import checks
from wideseek_lead.core.episode import (
    Answer,
    AnswerRow,
    Episode,
    EpisodeLimits,
    EpisodeSpec,
    Failure,
    Mode,
    Sampling,
    State,
    StopReason,
    TrainingTag,
    Usage,
)

_MODES = {Mode.MULTI: pb.EPISODE_MODE_MULTI_AGENT, Mode.SINGLE: pb.EPISODE_MODE_SINGLE_AGENT}
_MODES_BACK = {number: mode for mode, number in _MODES.items()} | {pb.EPISODE_MODE_UNSPECIFIED: Mode.MULTI}
_FORMATS = {AnswerFormat.TABLE: pb.ANSWER_FORMAT_TABLE, AnswerFormat.BOXED: pb.ANSWER_FORMAT_BOXED}
_FORMATS_BACK = {number: form for form, number in _FORMATS.items()} | {pb.ANSWER_FORMAT_UNSPECIFIED: AnswerFormat.TABLE}
STATES = {
    State.RUNNING: pb.Episode.STATE_RUNNING,
    State.SUCCEEDED: pb.Episode.STATE_SUCCEEDED,
    State.FAILED: pb.Episode.STATE_FAILED,
    State.CANCELLED: pb.Episode.STATE_CANCELLED,
}
_STATES_BACK = {number: state for state, number in STATES.items()}
STOPS = {
    StopReason.ANSWERED: events.STOP_REASON_ANSWERED,
    StopReason.BUDGET: events.STOP_REASON_BUDGET,
    StopReason.DEADLINE: events.STOP_REASON_DEADLINE,
    StopReason.CANCELLED: events.STOP_REASON_CANCELLED,
    StopReason.FAILED: events.STOP_REASON_FAILED,
    StopReason.LEAD_LOST: events.STOP_REASON_LEAD_LOST,
}
STOPS_BACK = {number: stop for stop, number in STOPS.items()}
_CODES = {
    "DEADLINE_EXCEEDED": code_pb2.DEADLINE_EXCEEDED,
    "BUDGET_EXHAUSTED": code_pb2.RESOURCE_EXHAUSTED,
    "LEAD_LOST": code_pb2.ABORTED,
    "LEAD_STOPPED": code_pb2.UNAVAILABLE,
    "INTERNAL": code_pb2.INTERNAL,
}
_SAMPLING_FIELDS = ("temperature", "top_p", "top_k", "max_output_tokens", "seed")


@dataclass(frozen=True)
class Defaults:
    """What is taken where a request says nothing."""

    prompt_pack: str
    max_subagents: int
    max_turns: int
    max_single_turns: int
    max_subagent_turns: int
    max_tool_calls: int
    max_output_tokens: int
    deadline: float


@contextmanager
def _faults() -> Iterator[None]:
    try:
        yield
    except checks.FieldError as error:
        facts: dict[str, Any] = dict(error.facts)
        raise InvalidArgument(error.field, str(error), **facts) from error


def spec_from_request(request: pb.CreateEpisodeRequest, defaults: Defaults) -> EpisodeSpec:
    """What a request asks for.

    Raises:
        InvalidArgument: a field cannot be used.
    """
    with _faults():
        checks.identifier("request_id", request.request_id)
        options = request.options
        required, keys = tuple(options.required_columns), tuple(options.key_columns)
        form = _known("options.answer_format", options.answer_format, _FORMATS_BACK)
        if form is AnswerFormat.BOXED and (required or keys):
            raise checks.FieldError("options.required_columns", "a boxed answer has no columns; leave them empty")
        checks.columns(required, keys)
        mode = _known("options.mode", options.mode, _MODES_BACK)
        return EpisodeSpec(
            question=checks.question(request.question),
            mode=mode,
            answer_format=form,
            required_columns=required,
            key_columns=keys,
            language=checks.language(options.language or "en"),
            limits=_limits(options.limits, defaults, mode),
            sampling=_checked_sampling(options.sampling),
            corpus=checks.name("options.corpus", options.corpus or "default"),
            model=checks.name("options.model", options.model or "policy", route=True),
            prompt_pack=checks.name("options.prompt_pack", options.prompt_pack or defaults.prompt_pack),
            training=_checked_training(request.training) if request.HasField("training") else None,
        )


def page_size(request: pb.ListEpisodesRequest) -> int:
    """How many episodes a page holds.

    Raises:
        InvalidArgument: more than 1000 were asked for.
    """
    with _faults():
        checks.within("page_size", request.page_size, (0, 1000))
    return request.page_size or 50


def state_filter(request: pb.ListEpisodesRequest) -> State | None:
    """The state that listed episodes must have; None for all.

    Raises:
        InvalidArgument: the state is not one of the contract's.
    """
    with _faults():
        if request.state == pb.Episode.STATE_UNSPECIFIED:
            return None
        state: State = _known("state", request.state, _STATES_BACK)
        return state


def _known(field: str, number: int, table: dict[Any, Any]) -> Any:
    if number not in table:
        raise checks.FieldError(field, f"{number} is not a value of this version", value=number)
    return table[number]


def _limits(limits: pb.EpisodeLimits, defaults: Defaults, mode: Mode) -> EpisodeLimits:
    def count(name: str, default: int, bounds: tuple[int, int]) -> int:
        if not limits.HasField(name):  # type: ignore[arg-type]  # the stub lists the names as literals
            return default
        value = int(getattr(limits, name))
        checks.within(f"options.limits.{name}", value, bounds)
        return value

    turns = defaults.max_turns if mode is Mode.MULTI else defaults.max_single_turns
    seconds = limits.deadline.seconds + limits.deadline.nanos / 1e9
    return EpisodeLimits(
        max_subagents=count("max_subagents", defaults.max_subagents, checks.SUBAGENTS),
        max_turns=count("max_turns", turns, checks.TURNS),
        max_subagent_turns=count("max_subagent_turns", defaults.max_subagent_turns, checks.TURNS),
        max_tool_calls=count("max_tool_calls", defaults.max_tool_calls, checks.TOOL_CALLS),
        max_output_tokens=count("max_output_tokens", defaults.max_output_tokens, checks.OUTPUT_TOKENS),
        deadline=checks.deadline(seconds) if limits.HasField("deadline") else defaults.deadline,
    )


def _checked_sampling(sampling: inference.SamplingParams) -> Sampling:
    read = sampling_from_wire(sampling)
    if read.temperature is not None:
        checks.within("options.sampling.temperature", read.temperature, checks.TEMPERATURE)
    if read.top_p is not None:
        checks.top_p(read.top_p)
    if read.top_k is not None:
        checks.within("options.sampling.top_k", read.top_k, checks.TOP_K)
    if read.max_output_tokens is not None:
        checks.within("options.sampling.max_output_tokens", read.max_output_tokens, checks.TURN_TOKENS)
    return read


def _checked_training(tag: events.TrainingTag) -> TrainingTag:
    for name in ("run_id", "group_id", "task_id"):
        checks.identifier(f"training.{name}", getattr(tag, name))
    checks.training(tag.group_size, tag.index)
    return _training_from_wire(tag)


def sampling_from_wire(sampling: inference.SamplingParams) -> Sampling:
    """Sampling parameters; unset fields are None."""
    return Sampling(**{name: getattr(sampling, name) for name in _SAMPLING_FIELDS if sampling.HasField(name)})  # type: ignore[arg-type]


def sampling_to_wire(sampling: Sampling) -> inference.SamplingParams:
    """The inverse of `sampling_from_wire`."""
    given: dict[str, Any] = {name: getattr(sampling, name) for name in _SAMPLING_FIELDS}
    return inference.SamplingParams(**{name: value for name, value in given.items() if value is not None})


def training_to_wire(tag: TrainingTag | None) -> events.TrainingTag | None:
    """A training tag, if there is one."""
    if tag is None:
        return None
    return events.TrainingTag(
        run_id=tag.run_id, group_id=tag.group_id, task_id=tag.task_id, group_size=tag.group_size, index=tag.index
    )


def _training_from_wire(tag: events.TrainingTag) -> TrainingTag:
    return TrainingTag(tag.run_id, tag.group_id, tag.task_id, tag.group_size, tag.index)


def timestamp(time: datetime) -> timestamp_pb2.Timestamp:
    """A time of day on the wire."""
    stamp = timestamp_pb2.Timestamp()
    stamp.FromDatetime(time)
    return stamp


def _options(spec: EpisodeSpec) -> pb.EpisodeOptions:
    limits = pb.EpisodeLimits(
        max_subagents=spec.limits.max_subagents,
        max_turns=spec.limits.max_turns,
        max_subagent_turns=spec.limits.max_subagent_turns,
        max_tool_calls=spec.limits.max_tool_calls,
        max_output_tokens=spec.limits.max_output_tokens,
    )
    limits.deadline.FromNanoseconds(round(spec.limits.deadline * 1e9))
    return pb.EpisodeOptions(
        mode=_MODES[spec.mode],
        answer_format=_FORMATS[spec.answer_format],
        required_columns=spec.required_columns,
        key_columns=spec.key_columns,
        language=spec.language,
        limits=limits,
        sampling=sampling_to_wire(spec.sampling),
        corpus=spec.corpus,
        model=spec.model,
        prompt_pack=spec.prompt_pack,
    )


def episode_to_wire(episode: Episode) -> pb.Episode:
    """An episode as the contract has it."""
    usage = episode.usage
    return pb.Episode(
        episode_id=episode.episode_id,
        question=episode.spec.question,
        options=_options(episode.spec),
        state=STATES[episode.state],
        stop_reason=STOPS[episode.stop] if episode.stop else events.STOP_REASON_UNSPECIFIED,
        error=_status(episode.failure) if episode.failure else None,
        answer=_answer_to_wire(episode.answer) if episode.answer else None,
        usage=pb.EpisodeUsage(
            agents=usage.agents,
            turns=usage.turns,
            tool_calls=usage.tool_calls,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
        ),
        create_time=timestamp(episode.create_time),
        end_time=timestamp(episode.end_time) if episode.end_time else None,
        training=training_to_wire(episode.spec.training),
        last_sequence=episode.last_sequence,
    )


def episode_from_wire(message: pb.Episode) -> Episode:
    """The inverse of `episode_to_wire`."""
    options, limits, usage = message.options, message.options.limits, message.usage
    spec = EpisodeSpec(
        question=message.question,
        mode=_MODES_BACK[options.mode],
        answer_format=_FORMATS_BACK[options.answer_format],
        required_columns=tuple(options.required_columns),
        key_columns=tuple(options.key_columns),
        language=options.language,
        limits=EpisodeLimits(
            limits.max_subagents,
            limits.max_turns,
            limits.max_subagent_turns,
            limits.max_tool_calls,
            limits.max_output_tokens,
            limits.deadline.ToNanoseconds() / 1e9,
        ),
        sampling=sampling_from_wire(options.sampling),
        corpus=options.corpus,
        model=options.model,
        prompt_pack=options.prompt_pack,
        training=_training_from_wire(message.training) if message.HasField("training") else None,
    )
    return Episode(
        episode_id=message.episode_id,
        spec=spec,
        create_time=message.create_time.ToDatetime(UTC),
        state=_STATES_BACK[message.state],
        stop=STOPS_BACK.get(message.stop_reason),
        failure=_failure(message.error) if message.HasField("error") else None,
        answer=_answer_from_wire(message.answer) if message.HasField("answer") else None,
        usage=Usage(usage.agents, usage.turns, usage.tool_calls, usage.input_tokens, usage.output_tokens),
        end_time=message.end_time.ToDatetime(UTC) if message.HasField("end_time") else None,
        last_sequence=message.last_sequence,
    )


def without_rows(message: pb.Episode) -> pb.Episode:
    """The episode as lists show it."""
    shown = pb.Episode()
    shown.CopyFrom(message)
    shown.answer.ClearField("rows")
    if not message.HasField("answer"):
        shown.ClearField("answer")
    return shown


def _answer_to_wire(answer: Answer) -> pb.Answer:
    return pb.Answer(
        text=answer.text,
        columns=answer.columns,
        rows=[pb.AnswerRow(cells=row.cells, sources=row.sources) for row in answer.rows],
        boxed=answer.boxed,
        problems=answer.problems,
    )


def _answer_from_wire(answer: pb.Answer) -> Answer:
    rows = tuple(AnswerRow(tuple(row.cells), tuple(row.sources)) for row in answer.rows)
    return Answer(answer.text, tuple(answer.columns), rows, answer.boxed, tuple(answer.problems))


def _status(failure: Failure) -> status_pb2.Status:
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.ErrorInfo(reason=failure.reason, domain=DOMAIN, metadata=failure.facts))
    code = _CODES.get(failure.reason, code_pb2.ABORTED)
    return status_pb2.Status(code=code, message=failure.message, details=[detail])


def _failure(status: status_pb2.Status) -> Failure:
    info = error_info(status)
    return Failure(info.reason if info else "INTERNAL", status.message, dict(info.metadata) if info else {})


def serialised(message: Message) -> bytes:
    """Bytes that are the same for the same contents."""
    return message.SerializeToString(deterministic=True)
