"""Operators see deployments on the command line, and take one off the market."""

from __future__ import annotations

import asyncio
import os
import re
from datetime import UTC, datetime
from ipaddress import ip_network
from pathlib import Path
from uuid import UUID

from sqlalchemy import update
from typer.testing import CliRunner

from broker.cli.main import app
from broker.flows.access.authenticate import Caller
from broker.flows.providers import enroll
from broker.flows.providers.enroll import Enrolment
from broker.live.beats import Beats
from broker.live.connection import Valkey
from broker.live.sheet import Beat
from broker.store.market.market_id import market_id
from broker.store.tables import deployments
from broker.upstream.addresses import AddressPolicy
from tests.integration.catalog.offers import SEALER, TAKE_BPS, offer

LOOPBACK = AddressPolicy((ip_network("127.0.0.0/8"),))


async def test_an_operator_finds_a_deployment_and_takes_it_off_the_market(
    engine, acme, database_url: str, tmp_path: Path
) -> None:
    desk = Enrolment(engine, SEALER, LOOPBACK, TAKE_BPS, lambda: datetime.now(UTC), lambda: 1_000)
    provider = Caller(acme.id, acme.name, acme.role)
    registered = await enroll.register(desk, provider, offer(url="http://127.0.0.1:9"))
    environment = os.environ | {"DATABASE_URL": database_url, "BROKER_STATE": str(tmp_path)}

    async def broker(*words: str) -> str:
        # In a thread, for a command runs an event loop of its own.
        ended = await asyncio.to_thread(
            CliRunner().invoke, app, ["deployments", *words], env=environment
        )
        assert ended.exit_code == 0, (ended.output, ended.exception)
        return ended.output

    listed = await broker("list", "--status", "unproven", "--provider", provider.name)
    head = f"{registered.deployment_id}  {provider.name}, {offer().name}: unproven\n"
    assert listed.startswith(head)
    assert "http://127.0.0.1:9" in listed
    await broker("withdraw", registered.deployment_id, "--reason", "a test")
    assert "There are none." in await broker("list", "--status", "unproven")
    assert f"{offer().name}: withdrawn" in await broker("list")


async def test_of_who_is_listed_but_not_there_it_is_said_since_when(
    engine, acme, database_url: str, valkey_url: str, tmp_path: Path
) -> None:
    desk = Enrolment(engine, SEALER, LOOPBACK, TAKE_BPS, lambda: datetime.now(UTC), lambda: 1_000)
    provider = Caller(acme.id, acme.name, acme.role)
    registered = await enroll.register(desk, provider, offer(url="http://127.0.0.1:9"))
    async with engine.begin() as connection:
        await connection.execute(update(deployments).values(status="listed"))
        valkey = Valkey(valkey_url, await market_id(connection))
    beats, sequence = Beats(valkey), iter(range(1, 9))
    environment = os.environ | {"DATABASE_URL": database_url, "BROKER_STATE": str(tmp_path)}

    async def listed(**told: str) -> str:
        words = ("deployments", "list")
        ended = await asyncio.to_thread(CliRunner().invoke, app, words, env=environment | told)
        assert ended.exit_code == 0, (ended.output, ended.exception)
        return ended.output.splitlines()[0].partition(f"{offer().name}: ")[2]

    async def said(status: str, interval_ms: int) -> str:
        name = UUID(registered.deployment_id)
        assert await beats.accept([Beat(name, next(sequence), status, interval_ms)]) == [True]
        return await listed(VALKEY_URL=valkey_url)

    try:
        assert await listed(VALKEY_URL=valkey_url) == "listed, but no heartbeat yet"
        assert await said("ready", 600_000) == "listed"
        assert await said("draining", 600_000) == "listed, but its agent says that it is draining"
        late = r"listed, but no heartbeat since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC"
        assert re.fullmatch(late, await said("ready", 1))
        assert await listed() == "listed", "only the database is known"
        assert await listed(VALKEY_URL="redis://127.0.0.1:9/0") == "listed", "Valkey is away"
    finally:
        await valkey.close()
