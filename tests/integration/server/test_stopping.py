"""A broker that is told to stop while its database hangs."""

from __future__ import annotations

import asyncio

from broker.app import serve
from broker.embedded.valkey import EmbeddedValkey
from broker.flows.process.leave import LEAVE_S
from broker.settings import Settings
from tests.integration.ledger.way import Way


async def test_a_broker_whose_database_hangs_stops_within_its_limit(
    database_url: str, valkey_server: EmbeddedValkey
) -> None:
    async with Way(database_url) as way:
        settings = Settings(way.url, valkey_server.url, secret_key="ab" * 32)
        started: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        serving = asyncio.create_task(serve(("127.0.0.1", 0), settings, started))
        await started
        way.freeze()
        serving.cancel()
        done, _ = await asyncio.wait([serving], timeout=LEAVE_S)
        assert done, "nothing waits for an answer any more"
        await serving
