"""Domains and the examples that teach them."""

from __future__ import annotations

from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.core.syllabus import Domain
from broker.store.tables import table

domains = table(
    "domains",
    "name text, owner_id uuid, examples text[], author text, changed_at timestamptz",
)


async def load_domains(connection: AsyncConnection) -> tuple[Domain, ...]:
    """Return all domains, by name."""
    rows = await connection.execute(select(domains).order_by(domains.c.name))
    return tuple(
        Domain(row.name, row.owner_id, tuple(row.examples), row.author, row.changed_at)
        for row in rows
    )


async def put(connection: AsyncConnection, domain: Domain) -> None:
    """Write a domain, over what it was before."""
    values = {
        "owner_id": domain.owner_id,
        "examples": list(domain.examples),
        "author": domain.author,
        "changed_at": domain.changed_at,
    }
    await connection.execute(
        insert(domains)
        .values(name=domain.name, **values)
        .on_conflict_do_update(index_elements=["name"], set_=values)
    )


async def remove(connection: AsyncConnection, name: str) -> None:
    """Remove a domain, if there is one of that name."""
    await connection.execute(delete(domains).where(domains.c.name == name))
