"""Where the tests find real inference servers, and trading floors with scripted ones."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from broker.embedded.postgres import EmbeddedPostgres
from broker.embedded.valkey import EmbeddedValkey
from tests.conftest import fresh_database
from tests.e2e.harness import Floor

_REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def demo_environments() -> Path:
    """Where the servers' environments are kept: BROKER_DEMO_ENVS, or the demo's own folder."""
    return Path(os.environ.get("BROKER_DEMO_ENVS") or _REPOSITORY / ".broker" / "demo")


@pytest.fixture
async def floor(
    database_url: str, valkey_server: EmbeddedValkey, tmp_path: Path
) -> AsyncIterator[Floor]:
    """An empty trading floor of the test's own."""
    async with Floor(database_url, valkey_server.url, tmp_path) as floor:
        yield floor


@pytest.fixture(scope="session")
async def common_floor(
    postgres_server: EmbeddedPostgres,
    migrated_template: str,
    database_office: asyncpg.Connection,
    valkey_server: EmbeddedValkey,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Floor]:
    """One floor with one broker for all tests that leave the broker alone; stalls are their own."""
    folder = tmp_path_factory.mktemp("floor")
    async with (
        fresh_database(postgres_server.url, migrated_template, database_office) as url,
        Floor(url, valkey_server.url, folder) as floor,
    ):
        # Slow heartbeats: no agent shall tell of a fault before a caller meets it.
        await floor.open_broker(BROKER_FIRST_BYTE_S="0.5", BROKER_HEARTBEAT_INTERVAL_MS="60000")
        yield floor
