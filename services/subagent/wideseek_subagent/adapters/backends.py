"""The inference and the tools service behind every agent of this process: two channels, shared."""

import logging
from collections.abc import Sequence

from grpc import aio
from wideseek.inference.v1 import inference_service_pb2 as pb
from wideseek.inference.v1 import inference_service_pb2_grpc as inference_grpc
from wideseek.tools.v1 import tools_service_pb2_grpc as tools_grpc
from wideseek_agent.loop import ContextFullError
from wideseek_agent.messages import Message
from wideseek_agent.remote import RemoteModel
from wideseek_kit.errors import ServiceError

from wideseek_subagent.adapters.research import RemoteResearch
from wideseek_subagent.core.ports import Subtask, Summary

_log = logging.getLogger(__name__)


class RemoteSummariser:
    """A model route that summarises pages, greedily."""

    def __init__(self, model: RemoteModel) -> None:
        """Each summary is a conversation of its own with `model`."""
        self._model = model

    async def summarise(self, messages: Sequence[Message], *, max_output_tokens: int) -> Summary | None:
        """Answer the messages; None, with a line in the log, when the route fails."""
        try:
            generated = await self._model.generate(None, messages, (), max_output_tokens=max_output_tokens)
        except (ServiceError, ContextFullError) as error:
            _log.warning("the page is cut, its summary failed: %s", error)
            return None
        return Summary(generated.message.content, generated.output_tokens)


class RemoteBackends:
    """Makes an agent's parts."""

    def __init__(
        self,
        inference: aio.Channel,
        tools: aio.Channel,
        *,
        summarizer_model: str,
        tool_timeout: float,
        turn_timeout: float,
    ) -> None:
        """Speak through the two channels; timeouts are in seconds."""
        self._inference = inference_grpc.InferenceServiceStub(inference)
        self._tools = tools_grpc.ToolsServiceStub(tools)
        self._summarizer_model = summarizer_model
        self._tool_timeout = tool_timeout
        self._turn_timeout = turn_timeout

    def policy(self, subtask: Subtask) -> RemoteModel:
        """The model of the subtask's agent; its turns keep to one replica."""
        return RemoteModel(
            self._inference,
            model=subtask.model,
            sampling=subtask.sampling,
            affinity_key=f"{subtask.episode_id}/{subtask.agent_id}",
            timeout=self._turn_timeout,
        )

    def research(self, subtask: Subtask) -> RemoteResearch:
        """The tools of the subtask's agent."""
        return RemoteResearch(self._tools, subtask.corpus, self._tool_timeout)

    def summariser(self, subtask: Subtask) -> RemoteSummariser:
        """The summariser, the same for all."""
        greedy = pb.SamplingParams(temperature=0)
        return RemoteSummariser(
            RemoteModel(self._inference, model=self._summarizer_model, sampling=greedy, timeout=self._turn_timeout)
        )
