from typing import Any

import pytest
from wideseek.subagent.v1 import subagent_service_pb2 as pb
from wideseek_agent.budget import Limits
from wideseek_agent.messages import AgentRole, AnswerFormat
from wideseek_kit.errors import InvalidArgument
from wideseek_subagent.settings import Settings
from wideseek_subagent.wire import subtask_of

SETTINGS = Settings()


def request(**fields: Any) -> pb.RunSubtaskRequest:
    return pb.RunSubtaskRequest(**({"episode_id": "e1", "agent_id": "s1", "prompt": "Find it."} | fields))


def test_what_is_empty_is_the_services_own() -> None:
    subtask = subtask_of(request(), SETTINGS, None)
    assert subtask.role is AgentRole.SUBAGENT
    assert (subtask.pack, subtask.language, subtask.answer_format) == ("full", "en", AnswerFormat.TABLE)
    assert subtask.limits == Limits(20, 100, 32_000, 32_000, None)
    single = subtask_of(request(role=pb.SUBTASK_ROLE_SINGLE), SETTINGS, None)
    assert (single.role, single.limits.turns) == (AgentRole.SINGLE, 50)


def test_what_is_given_counts() -> None:
    limits = pb.SubtaskLimits(max_turns=3, max_tool_calls=4, max_output_tokens=500, max_context_tokens=600)
    answer = pb.AnswerSpec(format="boxed", required_columns=["a", "b"], key_columns=["a"])
    subtask = subtask_of(
        request(limits=limits, answer=answer, language="zh", prompt_pack="mine", corpus="c", model="judge"),
        SETTINGS,
        100.0,
    )
    assert subtask.limits == Limits(3, 4, 500, 600, 99.0)
    assert (subtask.answer_format, subtask.columns, subtask.key_columns) == (AnswerFormat.BOXED, ("a", "b"), ("a",))
    assert (subtask.language, subtask.pack, subtask.corpus, subtask.model) == ("zh", "mine", "c", "judge")


def test_time_for_the_report_to_travel_is_left() -> None:
    assert subtask_of(request(), SETTINGS, 2.0).limits.seconds == pytest.approx(1.8)


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"episode_id": ""}, "episode_id", "empty"),
        ({"agent_id": " "}, "agent_id", "empty"),
        ({"agent_id": "a" * 257}, "agent_id", "257 characters given, at most 256"),
        ({"prompt": "\n"}, "prompt", "empty"),
        ({"prompt": "x" * 32_769}, "prompt", "32769 characters given, at most 32768"),
        ({"role": 9}, "role", "9 is not a role"),
        ({"limits": pb.SubtaskLimits(max_turns=1001)}, "limits.max_turns", "1001 given, at most 1000"),
        ({"limits": pb.SubtaskLimits(max_tool_calls=2**32 - 1)}, "limits.max_tool_calls", "4294967295 given"),
        ({"limits": pb.SubtaskLimits(max_output_tokens=10**8)}, "limits.max_output_tokens", "at most 10000000"),
        ({"limits": pb.SubtaskLimits(max_context_tokens=10**8)}, "limits.max_context_tokens", "at most 10000000"),
        ({"answer": pb.AnswerSpec(format="poem")}, "answer.format", "'poem' given, there are: table, boxed"),
    ],
)
def test_what_cannot_be_used_is_refused_with_field_and_figure(fields: dict[str, Any], field: str, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words) as caught:
        subtask_of(request(**fields), SETTINGS, None)
    assert caught.value.facts["field"] == field
