"""The revision of credit notes, disputes and promises, with offers in the market."""

from __future__ import annotations

from uuid import UUID

import asyncpg
from uuid_utils.compat import uuid7

from tests.integration.migrations.upgrading import DatabaseAt, insert_account


async def insert_offer(driver: asyncpg.Connection, provider: UUID) -> UUID:
    """An endpoint with standing terms; returns its id."""
    deployment, endpoint = uuid7(), uuid7()
    await driver.execute(
        "INSERT INTO deployments (id, provider_id, name, url, kind, capacity, region,"
        " retains_data, trains_on_data, retention_days, proof, nonce, signing_key_sealed, status,"
        " created_at, updated_at) VALUES ($1, $2, 'gpu1', 'http://gpu1.example', 'openai', 4, 'eu',"
        " false, false, 0, 'dns', 'n', '', 'listed', now(), now())",
        *(deployment, provider),
    )
    await driver.execute(
        "INSERT INTO endpoints (id, deployment_id, provider_id, name, model, version,"
        " upstream_model, tasks, created_at)"
        " VALUES ($1, $2, $3, 'law', 'law-7b', '1', 'law-7b', '{chat}', now())",
        *(endpoint, deployment, provider),
    )
    await driver.execute(
        "INSERT INTO offers"
        " VALUES ($1, now(), NULL, '{}', 0.5, NULL, 1000, 1, 2, 3, 1, 2, 3, 0, 0, 0)",
        endpoint,
    )
    return endpoint


async def test_a_standing_offer_promises_nothing_and_is_not_written_anew(
    database_at: DatabaseAt,
) -> None:
    async with database_at("0006") as old:
        provider, _ = await insert_account(old.driver, "provider", "gpus")
        endpoint = await insert_offer(old.driver, provider)
        place = "SELECT pg_relation_filenode('offers')"
        before = await old.driver.fetchval(place)
        terms = await old.driver.fetchrow("SELECT * FROM offers WHERE endpoint_id = $1", endpoint)
        await old.upgrade("0007")
        row = await old.driver.fetchrow("SELECT * FROM offers WHERE endpoint_id = $1", endpoint)
        assert dict(row) == dict(terms) | {"promised_ttft_ms": None, "promised_latency_ms": None}
        assert await old.driver.fetchval(place) == before
