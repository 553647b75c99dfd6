"""The public face: a name that goes or changes its parameters breaks users, so it changes here first."""

import inspect

import pytest
import wideseek_client
from wideseek_client import Client, Endpoints, MissingEndpointError, SyncClient

FACE = """
ask(question, options=None)
cancel_episode(episode_id)
cancel_training_run(run_id)
channel(service)
close()
create_episode(question, options=None, *, request_id='', training=None)
create_training_run(config, *, request_id='')
get_episode(episode_id)
get_model(model='')
get_policy(version)
get_training_run(run_id)
get_weight_state()
ingest_pages(pages, *, on_progress=...)
is_ready(service, *, timeout=2.0)
list_corpora(*, page_size=100, page_token='')
list_episodes(*, page_size=50, page_token='', state=0)
list_models()
list_policies(*, page_size=50, page_token='')
list_training_runs(*, page_size=50, page_token='')
promote_policy(version)
wait_episode(episode_id)
watch_episode(episode_id, *, after_sequence=0)
watch_training_run(run_id, *, after_step=0)
"""


def _line(name: str, method: object) -> str:
    assert callable(method)
    parameters = []
    for parameter in inspect.signature(method).parameters.values():
        if callable(parameter.default) and parameter.default is not inspect.Parameter.empty:
            parameter = parameter.replace(default=...)
        parameters.append(parameter.replace(annotation=inspect.Parameter.empty))
    signature = inspect.Signature(parameters[1:])
    return f"{name}{signature}".replace("Ellipsis", "...")


def test_the_clients_methods_are_these() -> None:
    methods = inspect.getmembers(Client, inspect.isfunction)
    assert [_line(name, method) for name, method in methods if not name.startswith("_")] == FACE.split("\n")[1:-1]


def test_the_packages_names_are_these() -> None:
    assert wideseek_client.__all__ == ["Client", "Endpoints", "IngestResult", "MissingEndpointError", "SyncClient"]


def test_the_blocking_client_has_the_same_methods() -> None:
    def public(kind: type) -> set[str]:
        return {name for name, _ in inspect.getmembers(kind, inspect.isfunction) if not name.startswith("_")}

    assert public(SyncClient) == public(Client) - {"channel"}


def test_endpoints_come_from_the_environment() -> None:
    endpoints = Endpoints.from_environment({"WIDESEEK_LEAD_TARGET": "a:1", "WIDESEEK_WEIGHTS_TARGET": "b:2"})
    assert endpoints == Endpoints(lead="a:1", weights="b:2")


def test_a_missing_endpoint_is_named() -> None:
    with pytest.raises(MissingEndpointError, match="no address of trainer was given: set WIDESEEK_TRAINER_TARGET"):
        Endpoints(lead="a:1").of("trainer")
