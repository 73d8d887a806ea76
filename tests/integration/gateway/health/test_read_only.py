"""A database that only reads, as one that was demoted to a replica, or whose disk is full."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import httpx
import pytest

from tests.conftest import named
from tests.integration.gateway.house import Consumer, House, Stall
from tests.waiting import until

ASKED: dict[str, Any] = {
    "model": "acme/plain",
    "messages": [{"role": "user", "content": "Hi"}],
    "max_tokens": 8,
}


@pytest.fixture
async def office(house: House) -> AsyncIterator[asyncpg.Connection]:
    """A connection beside the house's database, which takes writes again afterwards."""
    connection = await asyncpg.connect(named(house.database_url, "postgres"))
    yield connection
    await _take_writes(connection, house, "off")
    await connection.close()


async def _take_writes(office: asyncpg.Connection, house: House, reads_only: str) -> None:
    """Have each new session of the house's database only read, or write; and have all be new."""
    name = urlsplit(house.database_url).path.lstrip("/")
    await office.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = {reads_only}")
    await office.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND pid <> $2",
        name,
        house.database.get_server_pid(),
    )


async def test_while_the_database_only_reads_all_are_told_to_come_again(
    house: House, shop: Consumer, office: asyncpg.Connection
) -> None:
    await house.enrol(Stall(name="acme/plain"))

    async def call() -> httpx.Response:
        return await shop.http.post("/v1/chat/completions", json=ASKED)

    assert (await call()).status_code == 200
    await _take_writes(office, house, "on")

    async def unready() -> bool:
        answer = await house.operator.get("/health/ready")
        return answer.status_code == 503 and answer.json()["database"] == "takes no writes"

    await until(unready)
    for _ in range(3):
        refused = await call()
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    opened = await house.operator.post("/api/accounts", json={"name": "new", "role": "consumer"})
    assert (opened.status_code, opened.headers["retry-after"]) == (503, "1")
    assert opened.json()["code"] == "unavailable"
    assert (await house.operator.get("/api/accounts")).status_code == 200, "it can be read"
    await _take_writes(office, house, "off")

    async def serves_again() -> bool:
        return (await call()).status_code == 200

    await until(serves_again)
    opened = await house.operator.post("/api/accounts", json={"name": "new", "role": "consumer"})
    assert opened.status_code == 201
