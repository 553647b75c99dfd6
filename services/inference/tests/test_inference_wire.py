"""Messages of the contract to values and back."""

import json

import pytest
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Struct
from wideseek.inference.v1 import inference_service_pb2 as pb
from wideseek_inference import wire
from wideseek_inference.core.swap import SwapState
from wideseek_inference.core.turns import RequestError, Sampling
from wideseek_inference.settings import RouteSettings, Settings

SCHEMA = {
    "type": "object",
    "properties": {
        "queries": {
            "type": "array",
            "maxItems": 5,
            "items": {
                "type": "object",
                "properties": {"query": {"type": "string"}, "count": {"type": "integer", "minimum": 1.5}},
                "required": ["query", "count"],
            },
        }
    },
    "required": ["queries"],
}


def test_unset_sampling_means_the_untruncated_distribution() -> None:
    assert wire.request_from(pb.GenerateRequest()).sampling == Sampling(1.0, 1.0, 0, None, None)
    assert Sampling().trainable


def test_a_schema_keeps_numbers_and_a_fixed_order() -> None:
    parameters = ParseDict(SCHEMA, Struct())
    request = pb.GenerateRequest(tools=[pb.ToolSpec(name="search", description="d", parameters=parameters)])
    (tool,) = wire.request_from(request).tools
    assert tool.parameters == SCHEMA
    text = json.dumps(tool.parameters)
    order = ["type", "properties", "queries", "array", "items", "query", "count", "integer", "minimum", "maxItems"]
    places = [text.index(f'"{word}"') for word in order]
    assert places == sorted(places)
    assert '"maxItems": 5}' in text


def test_a_role_that_is_none_is_refused() -> None:
    request = pb.GenerateRequest(messages=[pb.Message(role=pb.ROLE_USER), pb.Message(role=9)])  # type: ignore[arg-type]
    with pytest.raises(RequestError) as error:
        wire.request_from(request)
    assert error.value.field == "messages[1].role"


def test_a_state_on_the_wire() -> None:
    state = wire.state_from(SwapState(3, 4, False, 2, 1, "version 4: no", (0.25, 0.0475)), 5, 6)
    assert (state.served_version, state.announced_version, state.requests_in_flight, state.requests_lost) == (
        3,
        4,
        5,
        6,
    )
    assert state.last_pause.ToTimedelta().total_seconds() == 0.0475
    assert [pause.ToMilliseconds() for pause in state.pauses] == [250, 47]


def test_routes_are_added_to_the_built_in_ones() -> None:
    settings = Settings(routes={"judge": RouteSettings(backend="openai", url="http://x", model="m")})
    assert {name: route.backend for name, route in settings.all_routes.items()} == {
        "judge": "openai",
        "policy": "vllm",
        "summarizer": "vllm",
    }


@pytest.mark.parametrize("route", [{"backend": "openai"}, {"backend": "vllm", "url": "http://x"}, {"backend": "other"}])
def test_a_route_that_is_incomplete_is_refused(route: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="route|Input should be"):
        RouteSettings.model_validate(route)
