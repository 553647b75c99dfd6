"""Messages into domain objects and back. No decisions in here beyond what a field means.

Invariant: every domain error reaches the caller as one `ServiceError` with its reason and facts.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from wideseek.events.v1 import trajectory_pb2 as events
from wideseek.inference.v1 import inference_service_pb2 as inference
from wideseek.lead.v1 import lead_service_pb2 as lead
from wideseek.trainer.v1 import trainer_service_pb2 as pb
from wideseek_kit.errors import FailedPrecondition, Internal, InvalidArgument, ServiceError

from wideseek_trainer.core.checkpoint import Progress
from wideseek_trainer.core.config import RunConfig
from wideseek_trainer.core.errors import ConfigError, TaskSetError, TrainerError
from wideseek_trainer.core.ports import EpisodeRequest
from wideseek_trainer.core.trajectory import AgentEnd, EpisodeEnd, Event, Place, Span, Stop, Turn

_STOPS = {
    events.STOP_REASON_ANSWERED: Stop.ANSWERED,
    events.STOP_REASON_BUDGET: Stop.BUDGET,
    events.STOP_REASON_DEADLINE: Stop.DEADLINE,
    events.STOP_REASON_CANCELLED: Stop.CANCELLED,
    events.STOP_REASON_FAILED: Stop.FAILED,
    events.STOP_REASON_LEAD_LOST: Stop.LEAD_LOST,
}
_SET_BY_RUN = ("required_columns", "key_columns", "answer_format")


def place(message: events.TrajectoryEvent, run_id: str) -> Place | None:
    """Where an event's episode belongs in the run; None when it is of another run or of none."""
    tag = message.training
    steps = tag.group_id.split("/")
    if tag.run_id != run_id or len(steps) != 3 or not steps[1].isdigit():
        return None
    return Place(tag.group_id, tag.index, tag.group_size)


def event(message: events.TrajectoryEvent, where: Place) -> Event:
    """An event as training sees it."""
    kind = message.WhichOneof("event")
    body: Turn | AgentEnd | EpisodeEnd | None = None
    if kind == "turn":
        body = _turn(message.turn)
    elif kind == "agent_finished":
        body = AgentEnd(message.agent_finished.agent_id, message.agent_finished.error)
    elif kind == "episode_finished":
        end = message.episode_finished
        body = EpisodeEnd(
            _STOPS.get(end.stop_reason, Stop.FAILED), end.answer, {one.agent_id: one.turns for one in end.expected}
        )
    return Event(message.event_id, message.episode_id, message.sequence, where, body, message.traceparent)


def _turn(turn: events.Turn) -> Turn:
    return Turn(
        agent=turn.agent_id,
        number=turn.turn,
        prompt=np.array(turn.prompt_token_ids, np.int32),
        output=np.array(turn.output_token_ids, np.int32),
        logprobs=np.array(turn.output_logprobs, np.float32),
        spans=tuple(Span(span.version, span.start, span.end) for span in turn.version_spans),
        trainable=turn.trainable,
        cut_short=turn.finish_reason == inference.FINISH_REASON_LENGTH,
        pages_read=sum(tool.tool == "access" and not tool.error for tool in turn.tools),
    )


def run_config(config: pb.TrainingConfig) -> RunConfig:
    """The configuration of a run, defaults filled in.

    Raises:
        InvalidArgument: a field cannot be used.
    """
    sampling = config.episode.sampling
    _untruncated(sampling)
    if config.episode.answer_format or config.episode.required_columns or config.episode.key_columns:
        raise InvalidArgument("config.episode", f"{', '.join(_SET_BY_RUN)} come from each task, leave them empty")
    given = {
        name: getattr(config, name)
        for name in (
            "steps",
            "questions_per_step",
            "group_size",
            "learning_rate",
            "kl_coefficient",
            "max_staleness",
            "max_episodes_in_flight",
            "seed",
        )
        if config.HasField(name)
    }
    if sampling.HasField("temperature"):
        given["temperature"] = sampling.temperature
    if config.reward_weights:
        given["reward_weights"] = dict(config.reward_weights)
    with translated():
        return RunConfig(
            task_set_uri=config.task_set_uri,
            shuffle_advantages=config.shuffle_advantages,
            max_output_tokens=sampling.max_output_tokens,
            **given,
        )


def _untruncated(sampling: inference.SamplingParams) -> None:
    field = "config.episode.sampling"
    if sampling.HasField("top_p") and sampling.top_p != 1:
        raise InvalidArgument(f"{field}.top_p", f"{sampling.top_p} truncates; training needs 1", value=sampling.top_p)
    if sampling.top_k:
        raise InvalidArgument(f"{field}.top_k", f"{sampling.top_k} truncates; training needs 0", value=sampling.top_k)
    if sampling.HasField("seed"):
        raise InvalidArgument(f"{field}.seed", "a seed makes the episodes of a group alike", value=sampling.seed)


def filled(config: pb.TrainingConfig, used: RunConfig) -> pb.TrainingConfig:
    """The configuration with every default filled in."""
    answer = pb.TrainingConfig()
    answer.CopyFrom(config)
    for name in ("steps", "questions_per_step", "group_size", "learning_rate", "kl_coefficient", "max_staleness"):
        setattr(answer, name, getattr(used, name))
    answer.max_episodes_in_flight = used.max_episodes_in_flight
    answer.seed = used.seed
    answer.episode.sampling.temperature = used.temperature
    for term, weight in used.reward_weights.items():
        answer.reward_weights[term] = weight
    return answer


def episode_request(request: EpisodeRequest, run_id: str, options: lead.EpisodeOptions) -> lead.CreateEpisodeRequest:
    """The lead's request for an episode of a run."""
    task, where = request.task, request.place
    answer = lead.CreateEpisodeRequest(
        request_id=request.request_id,
        question=task.question,
        options=options,
        training=events.TrainingTag(
            run_id=run_id, group_id=where.group, task_id=task.task_id, group_size=where.size, index=where.index
        ),
    )
    answer.options.answer_format = lead.ANSWER_FORMAT_TABLE if task.is_markdown else lead.ANSWER_FORMAT_BOXED
    answer.options.required_columns.extend(task.columns)
    answer.options.key_columns.extend(task.key_columns)
    answer.options.language = task.language or options.language
    answer.options.corpus = task.corpus or options.corpus
    return answer


def training_step(progress: Progress, previous_time: float) -> pb.TrainingStep:
    """An update for those who watch; `previous_time` is that of the update before, or of the run's start."""
    step = pb.TrainingStep(
        step=progress.step, policy_version=progress.version, metrics=progress.metrics, seconds=progress.seconds
    )
    step.time.FromMilliseconds(round(progress.time * 1000))
    step.duration.FromMilliseconds(max(0, round((progress.time - previous_time) * 1000)))
    return step


def counters(progress: Progress) -> pb.TrainingCounters:
    """What a run consumed."""
    return pb.TrainingCounters(**vars(progress.counters))


def service_error(error: TrainerError) -> ServiceError:
    """The error that a caller sees."""
    facts: dict[str, Any] = error.facts
    if isinstance(error, ConfigError):
        rest = {name: value for name, value in facts.items() if name != "field"}
        return InvalidArgument(error.field, error.message.removeprefix(f"{error.field}: "), **rest)
    if isinstance(error, TaskSetError):
        return InvalidArgument("config.task_set_uri", error.message, reason=error.reason, **facts)
    if error.reason == "INTERNAL":
        return Internal(error.message, **facts)
    return FailedPrecondition(error.message, reason=error.reason, **facts)


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """A context in which domain errors leave as the `ServiceError` that they stand for."""
    try:
        yield
    except TrainerError as error:
        raise service_error(error) from error
