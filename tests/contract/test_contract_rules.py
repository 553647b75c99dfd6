"""Rules of the contract that buf does not know: callers in other languages rely on them."""

import importlib
import pkgutil
from collections.abc import Iterator

import pytest
from google.protobuf.descriptor import FieldDescriptor, FileDescriptor, MethodDescriptor, ServiceDescriptor

PACKAGES = ["inference", "tools", "subagent", "lead", "trainer", "events"]
METHODS = {
    "wideseek.inference.v1.InferenceService": {"Generate", "GetModel", "ListModels"},
    "wideseek.inference.v1.WeightService": {
        "UpdateWeights",
        "PauseGeneration",
        "ResumeGeneration",
        "GetWeightState",
    },
    "wideseek.tools.v1.ToolsService": {"Search", "FetchPage"},
    "wideseek.tools.v1.CorpusService": {"IngestPages", "ListCorpora"},
    "wideseek.subagent.v1.SubagentService": {"RunSubtask"},
    "wideseek.lead.v1.LeadService": {
        "CreateEpisode",
        "GetEpisode",
        "ListEpisodes",
        "CancelEpisode",
        "WatchEpisode",
    },
    "wideseek.trainer.v1.TrainerService": {
        "CreateTrainingRun",
        "GetTrainingRun",
        "ListTrainingRuns",
        "CancelTrainingRun",
        "WatchTrainingRun",
        "ListPolicies",
        "GetPolicy",
        "PromotePolicy",
    },
}


def files() -> Iterator[FileDescriptor]:
    for name in PACKAGES:
        package = importlib.import_module(f"wideseek.{name}.v1")
        for module in pkgutil.iter_modules(package.__path__):
            if module.name.endswith("_pb2"):
                yield importlib.import_module(f"{package.__name__}.{module.name}").DESCRIPTOR


def services() -> list[ServiceDescriptor]:
    return [service for file in files() for service in file.services_by_name.values()]


def methods() -> list[MethodDescriptor]:
    return [method for service in services() for method in service.methods]


def test_the_path_of_a_file_is_its_package() -> None:
    for file in files():
        assert file.name.startswith(file.package.replace(".", "/") + "/")


def test_services_and_methods_are_those_that_callers_know() -> None:
    assert {service.full_name: {method.name for method in service.methods} for service in services()} == METHODS


@pytest.mark.parametrize("method", methods(), ids=lambda method: method.full_name)
def test_each_method_has_its_own_messages(method: MethodDescriptor) -> None:
    assert method.input_type.name == f"{method.name}Request"
    assert method.output_type.name == f"{method.name}Response"


@pytest.mark.parametrize("method", [m for m in methods() if m.server_streaming], ids=lambda m: m.full_name)
def test_a_stream_has_a_rising_sequence_and_one_event_a_message(method: MethodDescriptor) -> None:
    sequence = method.output_type.fields_by_name["sequence"]
    assert sequence.cpp_type == FieldDescriptor.CPPTYPE_UINT64
    assert [oneof.name for oneof in method.output_type.oneofs] == ["event"]


@pytest.mark.parametrize("method", [m for m in methods() if m.name.startswith("List")], ids=lambda m: m.full_name)
def test_a_list_has_pages(method: MethodDescriptor) -> None:
    assert {"page_size", "page_token"} <= set(method.input_type.fields_by_name)
    assert "next_page_token" in method.output_type.fields_by_name


@pytest.mark.parametrize("method", [m for m in methods() if m.name.startswith("Create")], ids=lambda m: m.full_name)
def test_a_create_can_be_repeated(method: MethodDescriptor) -> None:
    assert "request_id" in method.input_type.fields_by_name
