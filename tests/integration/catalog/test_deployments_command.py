"""Operators see deployments on the command line, and take one off the market."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime
from ipaddress import ip_network
from pathlib import Path

from typer.testing import CliRunner

from broker.cli.main import app
from broker.flows import enroll
from broker.flows.authenticate import Caller
from broker.flows.enroll import Enrolment
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
