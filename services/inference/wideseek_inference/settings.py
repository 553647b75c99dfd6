"""What the inference service can be told.

Invariant: nothing heavy is imported here, so `--help` and a wrong value are answered at once.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_settings import SettingsConfigDict
from wideseek_kit.settings import Seconds, ServiceSettings

POLICY = "policy"


class RouteSettings(BaseModel):
    """Where one model route leads."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    backend: Literal["vllm", "openai"] = "vllm"
    url: str = ""
    model: str = ""
    api_key_env: str = ""
    max_context_tokens: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _complete(self) -> "RouteSettings":
        if self.backend == "openai" and not (self.url and self.model):
            raise ValueError("a route with backend openai needs url and model")
        if self.backend == "vllm" and (self.url or self.model):
            raise ValueError("a route with backend vllm takes neither url nor model: it is the engine's one model")
        return self


class Settings(ServiceSettings):
    """Settings of the inference service; environment variables are `WIDESEEK_INFERENCE_<NAME>`."""

    model_config = SettingsConfigDict(
        env_prefix="WIDESEEK_INFERENCE_", frozen=True, extra="ignore", protected_namespaces=()
    )

    listen_weights: str = Field(
        "127.0.0.1:0", description="address of WeightService, apart so that it can be fenced off"
    )
    weights_port_file: str = Field("", description="file to write the bound port of WeightService to; empty: none")
    routes: dict[str, RouteSettings] = Field(
        {},
        description="JSON, route name to {backend: vllm|openai, url, model, api_key_env, max_context_tokens}; added to "
        "the built-in policy, summarizer and judge, which all lead to the engine",
    )
    model: str = Field("", description="model directory or Hugging Face name of the engine; needed by every vllm route")
    dtype: str = Field("auto", description="type of the weights: float32, bfloat16, float16; auto: as on disk")
    max_model_len: int = Field(0, ge=0, description="most tokens of a conversation; 0: what the model was made for")
    max_num_seqs: int = Field(64, ge=1, description="requests that the engine works on at a time; more wait")
    tensor_parallel_size: int = Field(1, ge=1, description="GPUs that share the model")
    kv_cache_bytes: int = Field(0, ge=0, description="size of the KV cache; 0: 256 MiB on CPU, vLLM's choice on GPU")
    cpu_threads: int = Field(1, ge=1, description="threads of the engine on CPU")
    engine_args: dict[str, Any] = Field({}, description="JSON, further arguments of vLLM's AsyncEngineArgs")
    template_args: dict[str, Any] = Field(
        {}, description='JSON, variables of the chat template, {"enable_thinking": false}'
    )
    nats: str = Field("", description="NATS server whose KV bucket `policy` names the version to serve; empty: none")
    weights_dir: str = Field(
        "", description="directory for fetched versions; empty: a temporary one, in memory if it can be"
    )
    swap_timeout: Seconds = Field(120.0, description="seconds that each step of a weight swap may take")
    upstream_timeout: Seconds = Field(300.0, description="seconds that an OpenAI-compatible server may take for a turn")

    @property
    def all_routes(self) -> dict[str, RouteSettings]:
        """The built-in routes, overlaid with the configured ones, by name."""
        built_in = {name: RouteSettings() for name in (POLICY, "summarizer", "judge")}
        return dict(sorted({**built_in, **self.routes}.items()))
