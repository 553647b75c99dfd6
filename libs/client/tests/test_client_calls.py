"""The client against servers of this process that speak the real contract: what arrives, and what is repeated."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from grpc import aio
from wideseek.events.v1.trajectory_pb2 import AgentStarted
from wideseek.lead.v1 import lead_service_pb2 as lead_pb
from wideseek.lead.v1 import lead_service_pb2_grpc as lead_grpc
from wideseek.tools.v1 import corpus_service_pb2 as corpus_pb
from wideseek.tools.v1 import corpus_service_pb2_grpc as corpus_grpc
from wideseek.trainer.v1 import trainer_service_pb2 as trainer_pb
from wideseek.trainer.v1 import trainer_service_pb2_grpc as trainer_grpc
from wideseek_client import Client, Endpoints, SyncClient
from wideseek_kit.errors import InvalidArgument, NotFound, Unavailable
from wideseek_kit.testing import grpc_server

LEAD = "wideseek.lead.v1.LeadService"


class FakeLead(lead_grpc.LeadServiceServicer):
    """A log of five events; breaks a watch off after `breaks` events, as often as told."""

    def __init__(self, breaks: int = 0, away: int = 0, quiet: float = 0.0, progress: bool = True) -> None:
        self.requests: list[Any] = []
        self._quiet = quiet
        self._progress = progress
        self._breaks = breaks
        self._away = away

    async def CreateEpisode(self, request: Any, context: Any) -> lead_pb.CreateEpisodeResponse:
        self.requests.append(request)
        if not request.question:
            raise InvalidArgument("question", "is empty")
        if len(self.requests) <= self._away:
            raise Unavailable("no replica", reason="NATS_UNAVAILABLE")
        return lead_pb.CreateEpisodeResponse(episode=lead_pb.Episode(episode_id="e1", question=request.question))

    async def GetEpisode(self, request: Any, context: Any) -> lead_pb.GetEpisodeResponse:
        raise NotFound(f"no episode {request.episode_id}", reason="EPISODE_NOT_FOUND", episode_id=request.episode_id)

    async def ListEpisodes(self, request: Any, context: Any) -> lead_pb.ListEpisodesResponse:
        return lead_pb.ListEpisodesResponse(next_page_token=f"{request.page_size}/{request.page_token}")

    async def CancelEpisode(self, request: Any, context: Any) -> lead_pb.CancelEpisodeResponse:
        return lead_pb.CancelEpisodeResponse(episode=lead_pb.Episode(state=lead_pb.Episode.STATE_CANCELLED))

    async def WatchEpisode(self, request: Any, context: Any) -> AsyncIterator[lead_pb.WatchEpisodeResponse]:
        self.requests.append(request)
        if not self._progress:
            raise Unavailable("the replica goes")
        yield lead_pb.WatchEpisodeResponse(sequence=request.after_sequence, snapshot=lead_pb.Episode(episode_id="e1"))
        for sequence in range(request.after_sequence + 1, 6):
            yield lead_pb.WatchEpisodeResponse(sequence=sequence, agent_started=AgentStarted(agent_id=f"s{sequence}"))
            if self._breaks:
                self._breaks -= 1
                await asyncio.sleep(self._quiet)
                raise Unavailable("the replica goes")
        yield lead_pb.WatchEpisodeResponse(sequence=5, finished=lead_pb.Episode(episode_id="e1", last_sequence=5))


@contextlib.asynccontextmanager
async def client_of(lead: FakeLead, **options: Any) -> AsyncIterator[Client]:
    def register(server: aio.Server) -> None:
        lead_grpc.add_LeadServiceServicer_to_server(lead, server)

    async with grpc_server(register, LEAD) as target, Client(Endpoints(lead=target), **options) as client:
        yield client


async def test_a_create_carries_one_request_id_through_all_tries() -> None:
    lead = FakeLead(away=6)
    async with client_of(lead) as client:
        assert (await client.create_episode("Which moons?")).question == "Which moons?"
    ids = {request.request_id for request in lead.requests}
    assert len(lead.requests) > 6
    assert len(ids) == 1
    assert ids != {""}


async def test_patience_ends() -> None:
    async with client_of(FakeLead(away=10**6), patience=0.2) as client:
        with pytest.raises(Unavailable) as caught:
            await client.create_episode("Which moons?")
    assert caught.value.reason == "NATS_UNAVAILABLE"


async def test_a_refusal_is_not_repeated_and_keeps_its_facts() -> None:
    lead = FakeLead()
    async with client_of(lead) as client:
        with pytest.raises(InvalidArgument, match="question: is empty"):
            await client.create_episode("")
        with pytest.raises(NotFound) as caught:
            await client.get_episode("e9")
    assert len(lead.requests) == 1
    assert caught.value.facts == {"episode_id": "e9"}


@pytest.mark.parametrize("breaks", [0, 1, 4])
async def test_a_watch_resumes_where_it_broke_off(breaks: int) -> None:
    lead = FakeLead(breaks)
    async with client_of(lead) as client:
        messages = [message async for message in client.watch_episode("e1")]
    assert [message.WhichOneof("event") for message in messages] == ["snapshot", *["agent_started"] * 5, "finished"]
    assert [message.sequence for message in messages] == [0, 1, 2, 3, 4, 5, 5]
    assert [request.after_sequence for request in lead.requests] == list(range(breaks + 1))


async def test_a_stream_that_was_quiet_for_long_is_resumed_all_the_same() -> None:
    lead = FakeLead(breaks=1, quiet=0.6)
    async with client_of(lead, patience=0.5) as client:
        messages = [message async for message in client.watch_episode("e1")]
    assert messages[-1].WhichOneof("event") == "finished"
    assert len(lead.requests) == 2


async def test_a_stream_that_stays_broken_is_given_up() -> None:
    lead = FakeLead(breaks=10**6, progress=False)
    async with client_of(lead, patience=0.3) as client:
        with pytest.raises(Unavailable, match="the replica goes"):
            [message async for message in client.watch_episode("e1")]
    assert len(lead.requests) > 1


async def test_asking_waits_for_the_end() -> None:
    async with client_of(FakeLead(1)) as client:
        assert (await client.ask("Which moons?")).last_sequence == 5


class FakeTrainer(trainer_grpc.TrainerServiceServicer):
    """Three updates; the first watch breaks off after one."""

    def __init__(self) -> None:
        self.watched: list[int] = []

    async def WatchTrainingRun(self, request: Any, context: Any) -> AsyncIterator[trainer_pb.WatchTrainingRunResponse]:
        self.watched.append(request.after_step)
        yield trainer_pb.WatchTrainingRunResponse(snapshot=trainer_pb.TrainingRun(run_id=request.run_id))
        for step in range(request.after_step + 1, 4):
            yield trainer_pb.WatchTrainingRunResponse(step=trainer_pb.TrainingStep(step=step))
            if len(self.watched) == 1:
                raise Unavailable("restarting")
        yield trainer_pb.WatchTrainingRunResponse(finished=trainer_pb.TrainingRun(steps_done=3))

    async def _unused(self, request: Any, context: Any) -> Any:
        raise AssertionError("not called")

    CreateTrainingRun = GetTrainingRun = ListTrainingRuns = CancelTrainingRun = _unused
    ListPolicies = GetPolicy = PromotePolicy = _unused


async def test_a_watched_run_resumes_after_the_last_update_seen() -> None:
    trainer = FakeTrainer()
    register = lambda server: trainer_grpc.add_TrainerServiceServicer_to_server(trainer, server)  # noqa: E731
    async with grpc_server(register) as target, Client(Endpoints(trainer=target)) as client:
        messages = [message async for message in client.watch_training_run("r1")]
    assert [m.step.step for m in messages if m.WhichOneof("event") == "step"] == [1, 2, 3]
    assert messages[-1].finished.steps_done == 3
    assert trainer.watched == [0, 1]


class FakeCorpus(corpus_grpc.CorpusServiceServicer):
    """Refuses pages without an address."""

    def __init__(self) -> None:
        self.urls: list[str] = []
        self.messages = 0

    async def IngestPages(self, request_iterator: Any, context: Any) -> corpus_pb.IngestPagesResponse:
        good = bad = 0
        async for request in request_iterator:
            self.messages += 1
            for page in request.pages:
                if page.url:
                    self.urls.append(page.url)
                    good += 1
                else:
                    bad += 1
        refused = [corpus_pb.RefusedPages(reason="empty url", count=bad)] if bad else []
        return corpus_pb.IngestPagesResponse(stored=good, refused=refused)

    async def ListCorpora(self, request: Any, context: Any) -> corpus_pb.ListCorporaResponse:
        raise AssertionError("not called")


async def test_pages_arrive_once_in_bounded_messages() -> None:
    corpus = FakeCorpus()
    register = lambda server: corpus_grpc.add_CorpusServiceServicer_to_server(corpus, server)  # noqa: E731
    pages = [corpus_pb.Page(url=f"u{i}" if i % 1000 else "", text="x" * 1000) for i in range(7000)]
    told: list[int] = []
    async with grpc_server(register) as target, Client(Endpoints(tools=target)) as client:
        result = await client.ingest_pages(iter(pages), on_progress=lambda so_far: told.append(so_far.sent))
    assert (result.sent, result.stored, result.refused) == (7000, 6993, {"empty url": (7, "")})
    assert corpus.urls == [page.url for page in pages if page.url]
    assert corpus.messages == 7  # 4.8 and 1.9 MiB, a message for each begun MiB
    assert told == [5000, 7000]


async def test_the_blocking_client_does_the_same() -> None:
    lead = FakeLead(1)
    register = lambda server: lead_grpc.add_LeadServiceServicer_to_server(lead, server)  # noqa: E731

    def use(target: str) -> tuple[str, list[int], str, bool]:
        with SyncClient(Endpoints(lead=target)) as client:
            episode = client.create_episode("Which moons?")
            sequences = [message.sequence for message in client.watch_episode(episode.episode_id)]
            next(client.watch_episode(episode.episode_id))  # given up half-way
            with pytest.raises(NotFound):
                client.get_episode("e9")
            return episode.episode_id, sequences, client.list_episodes().next_page_token, client.is_ready("lead")

    async with grpc_server(register, LEAD) as target:
        assert await asyncio.to_thread(use, target) == ("e1", [0, 1, 2, 3, 4, 5, 5], "50/", True)
