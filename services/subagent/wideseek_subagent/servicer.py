"""The gRPC service: request in, core, stream out."""

from collections.abc import AsyncIterator, Callable
from typing import Any

from grpc import aio
from wideseek.subagent.v1 import subagent_service_pb2 as pb
from wideseek.subagent.v1 import subagent_service_pb2_grpc as pb_grpc
from wideseek_agent.loop import TurnRecord
from wideseek_agent.messages import Message
from wideseek_agent.pack import Pack, PackError, Shelf
from wideseek_kit.errors import InvalidArgument, ResourceExhausted

from wideseek_subagent import wire
from wideseek_subagent.core.desk import Reading
from wideseek_subagent.core.ports import Backends, Subtask
from wideseek_subagent.core.work import work
from wideseek_subagent.settings import Settings
from wideseek_subagent.stream import streamed

Emit = Callable[[pb.RunSubtaskResponse], None]


class SubagentServicer(pb_grpc.SubagentServiceServicer):
    """Runs subtasks, each in its own context."""

    def __init__(self, backends: Backends, shelf: Shelf, settings: Settings) -> None:
        """Agents get their parts from `backends` and their words from `shelf`."""
        self._backends = backends
        self._shelf = shelf
        self._settings = settings
        self._active = 0

    async def RunSubtask(
        self, request: pb.RunSubtaskRequest, context: aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[pb.RunSubtaskResponse]:
        """Run one agent to its end."""
        subtask = wire.subtask_of(request, self._settings, context.time_remaining())
        pack = self._pack(subtask)
        most = self._settings.max_subtasks
        if self._active >= most:
            raise ResourceExhausted(
                f"{most} subtasks are at work, the most here", reason="TOO_MANY_SUBTASKS", most=most
            )

        async def job(emit: Emit) -> None:
            await self._work(subtask, pack, emit)

        self._active += 1
        try:
            sequence = 0
            async for response in streamed(job, context):
                sequence += 1
                response.sequence = sequence
                yield response
        finally:
            self._active -= 1

    async def _work(self, subtask: Subtask, pack: Pack, emit: Emit) -> None:
        async def on_progress(turn: int, reply: Message) -> None:
            emit(wire.progress_of(turn, reply))

        async def on_turn(record: TurnRecord) -> None:
            emit(wire.turn_of(subtask.agent_id, record))

        chosen = self._settings
        reading = Reading(chosen.summarize_over_chars, chosen.page_chars, chosen.summary_tokens)
        report = await work(subtask, pack, self._backends, reading, on_turn=on_turn, on_progress=on_progress)
        emit(wire.report_of(report))

    def _pack(self, subtask: Subtask) -> Pack:
        try:
            return self._shelf.pack(subtask.pack, subtask.language)
        except PackError as error:
            what = f"no pack {subtask.pack!r} in language {subtask.language!r}"
            raise InvalidArgument("prompt_pack", what, pack=subtask.pack, language=subtask.language) from error
