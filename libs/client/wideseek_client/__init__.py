"""Typed Python client of wideseek: `Client` for asyncio, `SyncClient` for everything else.

Answers are the contract's own messages. Failures are the `ServiceError`s of `wideseek_kit.errors`.
"""

from wideseek_client.client import Client
from wideseek_client.endpoints import Endpoints, MissingEndpointError
from wideseek_client.ingest import IngestResult
from wideseek_client.sync import SyncClient

__all__ = ["Client", "Endpoints", "IngestResult", "MissingEndpointError", "SyncClient"]
