"""A market with an endpoint that claims law, and suites to examine it on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

from broker.flows.access.authenticate import Caller
from broker.flows.quality.examine import Examiner
from broker.flows.quality.import_suite import import_suite
from broker.flows.quality.order_examination import read_examinations
from broker.store.access.accounts import Account, Role
from broker.store.quality.examinations import Examination
from provider_sdk.testing.scripted import answer_text
from tests.integration.catalog import offers
from tests.integration.catalog.offers import endpoint_offer, offer

OPS = Caller(UUID(int=0), "ops", Role.OPERATOR)
TOKENS = 4


def rows(count: int, right: int, **more: Any) -> bytes:
    """A suite of which the scripted provider answers the first `right` rows as it should."""
    told = []
    for number in range(count):
        prompt = f"What does section {number} of the contract say?"
        reference = answer_text(f"user: {prompt}", TOKENS) if number < right else "something else"
        told.append({"prompt": prompt, "metric": "exact", "reference": reference, **more})
    return b"\n".join(map(msgspec.json.encode, told))


async def list_law(engine: AsyncEngine, acme: Account, url: str, **claims: float) -> None:
    offered = offer(url=url, endpoints=[endpoint_offer(domains=claims)])
    registered = await offers.register(engine, acme, offered)
    async with engine.begin() as connection:
        await offers.enlist(connection, registered)


async def bring(engine: AsyncEngine, lines: bytes, author: Caller = OPS) -> None:
    async with engine.begin() as connection:
        await import_suite(connection, author, "law", (lines, None), datetime.now(UTC))


async def found(engine: AsyncEngine, reader: Caller = OPS) -> list[Examination]:
    async with engine.connect() as connection:
        return [*await read_examinations(connection, reader, None, 10)]


async def sit(examiner: Examiner) -> None:
    await examiner.look()
    await examiner.idle()


@contextmanager
def offers_read(engine: AsyncEngine) -> Iterator[list[str]]:
    """Gather the statements that read what endpoints offer."""
    statements: list[str] = []

    def note(*asked: object) -> None:
        if "offers.list_in_micros" in str(asked[2]):
            statements.append(str(asked[2]))

    event.listen(engine.sync_engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(engine.sync_engine, "before_cursor_execute", note)
