"""Starts the run of one episode: prompt pack, model and subagents put together.

Invariant: what an episode cannot run with (an unknown route, a pack that is not there) is refused before it exists.
"""

from dataclasses import dataclass, replace

from grpc import aio
from wideseek.inference.v1 import inference_service_pb2_grpc as inference_grpc
from wideseek_agent.pack import Pack, PackError, Shelf
from wideseek_agent.remote import RemoteModel
from wideseek_kit.errors import InvalidArgument, NotFound

from wideseek_lead.core.delegation import Width
from wideseek_lead.core.episode import Episode, EpisodeSpec, Mode
from wideseek_lead.core.ports import LEAD, Journal, SubtaskRunner
from wideseek_lead.core.run import Outcome, run_multi, run_single
from wideseek_lead.wire import sampling_to_wire

_ASK_TIMEOUT = 5.0


@dataclass(frozen=True)
class Plan:
    """What `check` found out about an episode that is to run."""

    pack: Pack
    width: Width


class Launcher:
    """Runs episodes against the inference and the subagent service."""

    def __init__(
        self, inference: aio.Channel, runner: SubtaskRunner, width: Width, *, shelf: Shelf, turn_timeout: float
    ) -> None:
        """`width.context_tokens` is cut to what the model holds; a turn may take `turn_timeout` seconds."""
        self._stub = inference_grpc.InferenceServiceStub(inference)
        self._runner = runner
        self._width = width
        self._shelf = shelf
        self._turn_timeout = turn_timeout

    async def check(self, spec: EpisodeSpec) -> Plan:
        """What `spec` needs is there.

        Raises:
            InvalidArgument: the prompt pack or the model route is unknown.
            ServiceError: the inference service is out of reach.
        """
        pack = self._pack(spec.prompt_pack, spec.language)
        model = RemoteModel(self._stub, model=spec.model, timeout=_ASK_TIMEOUT)
        try:
            most = await model.context_limit()
        except NotFound as error:
            facts = {name: value for name, value in error.facts.items() if name != "field"}
            raise InvalidArgument("options.model", error.message, reason=error.reason, **facts) from error
        own = self._width.context_tokens
        return Plan(pack, replace(self._width, context_tokens=min(own, most or own)))

    async def run(self, episode: Episode, plan: Plan, journal: Journal) -> Outcome:
        """Run an episode to its answer.

        Raises:
            ServiceError: the model failed.
            SubtaskFailedError: the single agent failed.
        """
        spec, episode_id = episode.spec, episode.episode_id
        if spec.mode is Mode.SINGLE:
            return await run_single(episode_id, spec, plan.width, runner=self._runner, journal=journal)
        model = RemoteModel(
            self._stub,
            model=spec.model,
            sampling=sampling_to_wire(spec.sampling),
            affinity_key=f"{episode_id}/{LEAD}",
            timeout=self._turn_timeout,
        )
        return await run_multi(
            episode_id, spec, plan.width, model=model, pack=plan.pack, runner=self._runner, journal=journal
        )

    def _pack(self, name: str, language: str) -> Pack:
        try:
            return self._shelf.pack(name, language)
        except PackError as error:
            raise InvalidArgument(
                "options.prompt_pack", f"no pack {name!r} in language {language!r}", pack=name, language=language
            ) from error
