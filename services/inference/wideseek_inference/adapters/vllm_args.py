"""How vLLM is started: its environment and engine arguments.

Invariants: the environment is set before vLLM is imported; nothing is sent to anyone (usage statistics, model hub);
training needs logprobs of the processed distribution, so no setting can change that mode.
"""

import json
import os
from pathlib import Path
from typing import Any

from wideseek_kit.entry import StartError

from wideseek_inference.core.layout import Layout
from wideseek_inference.settings import Settings

_WORKER = "wideseek_inference.adapters.vllm_worker.WorkerExtension"
_CPU_KV_CACHE = 256 << 20
_CPU_BLOCK = 32  # the smallest that the CPU's attention takes: only whole blocks are found again in the prefix cache


def set_environment(settings: Settings, *, cpu: bool) -> None:
    """Prepare the environment of this process and of the engine's. Variables that are set already are left alone."""
    values = {
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_DO_NOT_TRACK": "1",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # one engine process beside this one, not two
    }
    if Path(settings.model).is_dir():
        values |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    if cpu:
        values |= {
            "TORCHDYNAMO_DISABLE": "1",  # a stall of seconds at the first request, for nothing in eager mode
            "OMP_NUM_THREADS": str(settings.cpu_threads),
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # several services share the cores
        }
    for name, value in values.items():
        os.environ.setdefault(name, value)


def resolve_model(settings: Settings) -> Path:
    """The local directory of the model, fetched from the hub when it is a name.

    Raises:
        StartError: no model is set, or it cannot be had.
    """
    if not settings.model:
        raise StartError("WIDESEEK_INFERENCE_MODEL is empty: a vllm route needs a model directory or name")
    if Path(settings.model).is_dir():
        return Path(settings.model)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return Path(snapshot_download(settings.model))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise StartError(
            f"WIDESEEK_INFERENCE_MODEL={settings.model!r} is no directory, and the hub says: {error}"
        ) from error


def engine_arguments(settings: Settings, model: Path, layout: Layout, *, cpu: bool) -> dict[str, Any]:
    """The arguments of AsyncEngineArgs for a model whose weights are laid out as `layout`."""
    arguments: dict[str, Any] = {
        "model": str(model),
        "dtype": _own_type(layout) if settings.dtype == "auto" else settings.dtype,
        "max_num_seqs": settings.max_num_seqs,
        "tensor_parallel_size": settings.tensor_parallel_size,
        "disable_log_stats": True,
        "enable_log_requests": False,
        "enable_prefix_caching": True,
    }
    if settings.max_model_len:
        arguments["max_model_len"] = settings.max_model_len
    if settings.kv_cache_bytes or cpu:
        arguments["kv_cache_memory_bytes"] = settings.kv_cache_bytes or _CPU_KV_CACHE
    if cpu:
        length = settings.max_model_len or _declared_length(model)
        # Compiling takes half a minute, and a seeded request in a partial prefill ends the engine.
        arguments |= {
            "enforce_eager": True,
            "enable_chunked_prefill": False,
            "block_size": _CPU_BLOCK,
            "max_num_batched_tokens": max(length, 2048),
        }
    fixed = {"logprobs_mode": "processed_logprobs", "worker_extension_cls": _WORKER}
    return arguments | settings.engine_args | fixed


def _own_type(layout: Layout) -> str:
    """The type on disk: vLLM's own "auto" would make 16 bits of 32, and the learner's logprobs would differ."""
    kinds = {tensor.dtype for tensor in layout.values()}
    return "float32" if kinds == {"F32"} else "auto"


def _declared_length(model: Path) -> int:
    try:
        return int(json.loads((model / "config.json").read_text("utf-8"))["max_position_embeddings"])
    except (OSError, ValueError, KeyError) as error:
        raise StartError(f"{model / 'config.json'} does not say max_position_embeddings: {error!r}") from error
