"""Suites that endpoints are examined on, one for a domain."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from sqlalchemy import Row, delete, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.core.answers.suites import Cover, Item, Suite
from broker.store.tables import table

suites = table(
    "suites",
    "domain text, owner_id uuid, items bytea, size integer, author text, changed_at timestamptz",
)

_ITEMS = msgspec.json.Decoder(tuple[Item, ...])


async def put(connection: AsyncConnection, suite: Suite) -> None:
    """Write a suite, over what it was before."""
    values = {
        "owner_id": suite.owner_id,
        "items": await asyncio.to_thread(msgspec.json.encode, suite.items),
        "size": len(suite.items),
        "author": suite.author,
        "changed_at": suite.changed_at,
    }
    await connection.execute(
        insert(suites)
        .values(domain=suite.domain, **values)
        .on_conflict_do_update(index_elements=["domain"], set_=values)
    )


async def find(
    connection: AsyncConnection, domain: str, *, for_update: bool = False
) -> Suite | None:
    """Return the suite of a domain, which may have megabytes: it is read in a thread."""
    query = select(suites).where(suites.c.domain == domain)
    row = (await connection.execute(query.with_for_update() if for_update else query)).first()
    return None if row is None else await asyncio.to_thread(_suite, row)


async def covers(connection: AsyncConnection) -> list[Cover]:
    """Return what all suites are, by domain, without their rows."""
    suite = suites.c
    told = select(suite.domain, suite.owner_id, suite.size, suite.author, suite.changed_at)
    return [Cover(*row) for row in await connection.execute(told.order_by(suite.domain))]


async def remove(connection: AsyncConnection, domain: str) -> None:
    """Remove the suite of a domain, if there is one; what was examined on it stays."""
    await connection.execute(delete(suites).where(suites.c.domain == domain))


def _suite(row: Row[Any]) -> Suite:
    return Suite(row.domain, row.owner_id, _ITEMS.decode(row.items), row.author, row.changed_at)
