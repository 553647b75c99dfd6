"""Settings of the tools service."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict
from wideseek_kit.settings import ServiceSettings


class Settings(ServiceSettings):
    """What the tools service can be told."""

    model_config = SettingsConfigDict(env_prefix="WIDESEEK_TOOLS_", frozen=True, extra="ignore")

    data_dir: str = Field("", description="directory of index and pages; empty: a temporary one, removed at stop")
    default_count: int = Field(3, ge=1, le=50, description="hits a query gets when it asks for none in particular")
    default_max_chars: int = Field(
        20_000, ge=1, le=200_000, description="characters of a page returned when the caller gives no limit"
    )
    max_page_chars: int = Field(
        2_000_000, ge=1, le=20_000_000, description="longest text that ingest takes, in characters; longer is refused"
    )
    search_threads: int = Field(2, ge=1, le=64, description="threads that search and read pages")
