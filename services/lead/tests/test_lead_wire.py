"""The Episode resource there and back, ids, and what watchers are shown."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st
from wideseek.events.v1 import trajectory_pb2 as events
from wideseek.inference.v1 import inference_service_pb2 as inference
from wideseek.lead.v1 import lead_service_pb2 as pb
from wideseek_agent.messages import AnswerFormat
from wideseek_lead import wire, wire_events
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
from wideseek_lead.ids import new_episode_id

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
TEXTS = st.lists(TEXT, max_size=3).map(tuple)
COUNT = st.integers(0, 2**32 - 1)
TIME = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))
SAMPLING = st.builds(
    Sampling,
    temperature=st.none() | st.floats(0, 10),
    top_p=st.none() | st.floats(0.01, 1),
    top_k=st.none() | COUNT,
    max_output_tokens=st.none() | COUNT,
    seed=st.none() | st.integers(0, 2**64 - 1),
)
LIMITS = st.builds(
    EpisodeLimits,
    *[COUNT] * 5,
    st.integers(1, 86_400_000).map(lambda milliseconds: milliseconds / 1000),
)
SPEC = st.builds(
    EpisodeSpec,
    question=TEXT,
    mode=st.sampled_from(Mode),
    answer_format=st.sampled_from(AnswerFormat),
    required_columns=TEXTS,
    key_columns=TEXTS,
    language=TEXT,
    limits=LIMITS,
    sampling=SAMPLING,
    corpus=TEXT,
    model=TEXT,
    prompt_pack=TEXT,
    training=st.none() | st.builds(TrainingTag, TEXT, TEXT, TEXT, COUNT, COUNT),
)
EPISODE = st.builds(
    Episode,
    episode_id=TEXT,
    spec=SPEC,
    create_time=TIME,
    state=st.sampled_from(State),
    stop=st.none() | st.sampled_from(StopReason),
    failure=st.none() | st.builds(Failure, TEXT, TEXT, st.dictionaries(TEXT, TEXT, max_size=2)),
    answer=st.none()
    | st.builds(Answer, TEXT, TEXTS, st.lists(st.builds(AnswerRow, TEXTS, TEXTS), max_size=2).map(tuple), TEXT, TEXTS),
    usage=st.builds(Usage, *[COUNT] * 5),
    end_time=st.none() | TIME,
    last_sequence=COUNT,
)


@given(EPISODE)
def test_an_episode_comes_back_as_it_went(episode: Episode) -> None:
    message = wire.episode_to_wire(episode)
    assert wire.episode_from_wire(pb.Episode.FromString(message.SerializeToString())) == episode


@given(st.integers(0, 10**12), st.integers(1, 10**6))
def test_ids_sort_by_time(milliseconds: int, later: int) -> None:
    start = datetime(2020, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds)
    first, second = new_episode_id(start), new_episode_id(start + timedelta(milliseconds=later))
    assert first < second
    assert len(first) == len(second) == 22
    assert new_episode_id(start) != first


def test_a_watcher_sees_a_turn_without_tokens() -> None:
    turn = events.Turn(
        agent_id="s1",
        turn=2,
        prompt_token_ids=[1],
        output_token_ids=[2, 3],
        output_logprobs=[-1, -1],
        version_spans=[
            inference.VersionSpan(version=4, start=0, end=1),
            inference.VersionSpan(version=3, start=1, end=2),
        ],
        usage=inference.Usage(output_tokens=2),
    )
    shown = wire_events.shown(events.TrajectoryEvent(sequence=9, turn=turn))
    assert shown is not None
    assert (shown.sequence, shown.turn.turn, list(shown.turn.policy_versions)) == (9, 2, [3, 4])
    assert not {"output_token_ids", "prompt_token_ids"} & set(shown.turn.DESCRIPTOR.fields_by_name)
    assert wire_events.shown(events.TrajectoryEvent(episode_started=events.EpisodeStarted())) is None
