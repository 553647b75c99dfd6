"""The lead's settings, from `WIDESEEK_LEAD_*`.

Invariant: nothing heavy is imported here, so that `--help` answers at once.
"""

from pydantic import Field
from pydantic_settings import SettingsConfigDict
from wideseek_kit.settings import ServiceSettings


class LeadSettings(ServiceSettings):
    """What the lead can be told."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_prefix="WIDESEEK_LEAD_")

    nats_url: str = Field("nats://127.0.0.1:4222", description="NATS server with JetStream")
    inference: str = Field("127.0.0.1:50051", description="address of the inference service")
    subagent: str = Field("127.0.0.1:50053", description="address of the subagent service")
    prompt_pack: str = Field("full", description="prompt pack of episodes that name none")
    prompt_packs_dir: str = Field("", description="directory of prompt packs; empty: the built-in ones")
    max_episodes: int = Field(1000, ge=1, description="episodes at work at the same time in this process")

    max_subagents: int = Field(32, ge=1, description="default: subagents of an episode")
    max_turns: int = Field(10, ge=1, description="default: turns of a lead")
    max_single_turns: int = Field(50, ge=1, description="default: turns of a single agent")
    max_subagent_turns: int = Field(20, ge=1, description="default: turns of a subagent")
    max_tool_calls: int = Field(640, ge=1, description="default: queries and pages of an episode")
    max_output_tokens: int = Field(400_000, ge=1, description="default: tokens that an episode may generate")
    deadline: float = Field(1800.0, gt=0, le=86_400, description="default: seconds that an episode may take")

    max_parallel_subagents: int = Field(32, ge=1, description="subagents of one episode at work at the same time")
    max_context_tokens: int = Field(32_000, ge=1, description="tokens of a conversation, if the model holds so many")
    subagent_tool_calls: int = Field(100, ge=1, description="queries and pages that one subagent gets at most")
    subagent_output_tokens: int = Field(32_000, ge=1, description="tokens that one subagent may generate at most")
    turn_timeout: float = Field(600.0, gt=0, description="seconds that one turn of the lead may take")

    lease_ttl: float = Field(10.0, gt=0.2, description="seconds after which an episode of a dead lead is closed")
    snapshot_interval: float = Field(2.0, gt=0, description="seconds between stored snapshots of a running episode")
    retention: float = Field(7 * 86_400.0, gt=0, description="seconds that ended episodes and their logs are kept")
    log_bytes: int = Field(20 << 30, ge=1 << 20, description="bytes of all episode logs; the oldest go first")
    backlog_bytes: int = Field(64 << 20, ge=1 << 16, description="bytes of events that may wait for NATS")
    cancel_wait: float = Field(5.0, gt=0, description="seconds that CancelEpisode waits for the end of the episode")
