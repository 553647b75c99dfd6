"""What the trainer can be told. Light to import: `--help` answers from here."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict
from wideseek_kit.settings import Seconds, ServiceSettings


class Settings(ServiceSettings):
    """Settings of the trainer, read once from `WIDESEEK_TRAINER_*`."""

    model_config = SettingsConfigDict(env_prefix="WIDESEEK_TRAINER_", frozen=True, extra="ignore")

    nats_url: str = Field("nats://127.0.0.1:4222", description="NATS with JetStream")
    lead_address: str = Field("127.0.0.1:7001", description="the lead service: host:port or dns:///name:port")
    inference_address: str = Field(
        "",
        description="the inference service, asked which version it serves before episodes start; "
        "empty: a published version counts as served",
    )
    state_dir: str = Field(description="directory of checkpoints; learners must see it under the same path")
    policy_store_uri: str = Field(description="fsspec URI below which policy versions are published")
    initial_policy: str = Field(
        "", description="directory of the policy that inference starts with, version 0; empty: none is registered"
    )
    keep_versions: int = Field(
        50, ge=2, description="policy versions to keep in the store, version 0 and the current one aside"
    )
    learners: int = Field(1, ge=1, le=1024, description="learners that share each update")
    learner_threads: int = Field(1, ge=1, description="CPU threads of each learner")
    learner_gpus: float = Field(0, ge=0, description="GPUs of each learner; 0: they learn on the CPU")
    ray_address: str = Field(
        "", description="Ray cluster for the learners; empty: one of the service's own, on this machine"
    )
    tokens_per_microbatch: int = Field(8192, ge=1, description="most tokens, padding included, of one forward pass")
    episode_timeout: Seconds = Field(
        3600.0, description="seconds to wait for an episode's whole log before it counts as failed"
    )
    serving_timeout: Seconds = Field(300.0, description="seconds to wait for inference to serve a published version")
