"""What runs inside vLLM's worker processes, beside its own worker.

Invariants: a load reaches every place that computes with the weights; a load that fails leaves a model that the next
load can fill; no engine outlives its service. vLLM 0.32 by itself does none of it: on a CPU an output head that shares
the embedding's weights goes on with its packed copy of the old ones; after a failed load its tensors stay queued, so
that every later one fails; and an engine whose service was killed waits forever.
"""

import ctypes
import signal
import sys
from typing import Any

from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead
from vllm.model_executor.model_loader.reload.layerwise import finalize_layerwise_reload, get_layerwise_info
from vllm.platforms import current_platform

_PR_SET_PDEATHSIG = 1


class WorkerExtension:
    """Mixed into vLLM's worker (`worker_extension_cls`); its methods are called by name over all workers."""

    model_runner: Any
    reload_weights: Any

    def end_with_parent(self) -> None:
        """Ask the kernel to end this process when the one that started it is gone, killed included. Linux only."""
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    def load_policy(self, directory: str) -> None:
        """Replace the weights by those of `directory`; after a failure the model is of mixed weights, but whole."""
        try:
            self.reload_weights(weights_path=directory)
            self._pack_heads()
        except Exception:
            self._give_layers_back()
            raise

    def _pack_heads(self) -> None:
        if current_platform.is_cpu():
            for layer in self.model_runner.get_model().modules():
                if isinstance(layer, ParallelLMHead):
                    layer.quant_method.process_weights_after_loading(layer)

    def _give_layers_back(self) -> None:
        model = self.model_runner.get_model()
        for layer in model.modules():
            info = get_layerwise_info(layer)
            if info.can_load():  # begun and not ended: forget what was queued, and the old tensors are put back
                info.loaded_weights = []
                info.load_numel = 0
        finalize_layerwise_reload(model, self.model_runner.model_config)
