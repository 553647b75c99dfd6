"""Settings of the subagent service."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict
from wideseek_kit.settings import ServiceSettings


class Settings(ServiceSettings):
    """What the subagent service can be told."""

    model_config = SettingsConfigDict(env_prefix="WIDESEEK_SUBAGENT_", frozen=True, extra="ignore")

    inference_target: str = Field("127.0.0.1:50051", description="address of the inference service")
    tools_target: str = Field("127.0.0.1:50052", description="address of the tools service")
    prompt_pack: str = Field("full", description="prompt pack when a request names none")
    prompt_packs_dir: str = Field("", description="directory of prompt packs; empty: the built-in ones")
    max_subtasks: int = Field(1000, ge=1, description="subtasks at work at the same time; more are refused")
    subagent_turns: int = Field(20, ge=1, le=1000, description="turns of a subagent when the request sets none")
    single_turns: int = Field(50, ge=1, le=1000, description="turns of a single agent when the request sets none")
    tool_calls: int = Field(
        100, ge=1, le=100_000, description="queries and pages an agent may ask for when the request sets no number"
    )
    output_tokens: int = Field(
        32_000, ge=1, le=10_000_000, description="tokens an agent may generate when the request sets no number"
    )
    context_tokens: int = Field(
        32_000, ge=1, le=10_000_000, description="tokens of a conversation when the request sets no number"
    )
    summarize_over_chars: int = Field(
        4000,
        ge=1,
        description="pages longer than this are summarised, or cut there if the prompt pack does not summarise",
    )
    page_chars: int = Field(32_000, ge=1, le=200_000, description="characters of a page that the summariser reads")
    summarizer_model: str = Field("summarizer", description="model route that summarises pages")
    summary_tokens: int = Field(1024, ge=1, description="most tokens of a page's summary")
    tool_timeout: float = Field(60.0, gt=0, description="seconds that a search or a page fetch may take")
    turn_timeout: float = Field(600.0, gt=0, description="seconds that a turn or a summary may take")
