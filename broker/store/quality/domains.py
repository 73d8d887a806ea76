"""Domains and the examples that teach them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import delete, exists, func, or_, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.core.quality.syllabus import Domain
from broker.store.tables import endpoints, offers, table

domains = table(
    "domains",
    "name text, owner_id uuid, examples text[], author text, changed_at timestamptz",
)

_SHARING = text(r"""
    SELECT name, count(*) FROM domains, unnest(examples) AS theirs
    WHERE name <> :name AND lower(translate(theirs, E' \t\n\r', '')) IN (
        SELECT lower(translate(mine, E' \t\n\r', ''))
        FROM unnest(CAST(:examples AS text[])) AS mine
    )
    GROUP BY name ORDER BY count(*) DESC, name LIMIT 1
""")
# Without any space, for regular expressions take five times as long over all examples.


async def load_domains(
    connection: AsyncConnection, known: Sequence[Domain] = ()
) -> tuple[Domain, ...]:
    """Return all domains, by name. Of `known` those that stand as they were are not read again:
    examples may be very many."""
    query = select(domains.c.name, domains.c.owner_id, domains.c.author, domains.c.changed_at)
    listed = {tuple(row) for row in await connection.execute(query)}
    found = {each.name: each for each in known if _terms(each) in listed}
    new = [name for name, *_ in listed if name not in found]
    if new:
        for row in await connection.execute(select(domains).where(domains.c.name.in_(new))):
            domain = Domain(row.name, row.owner_id, tuple(row.examples), row.author, row.changed_at)
            found[row.name] = domain
    return tuple(found[name] for name in sorted(found))


async def is_known(connection: AsyncConnection, name: str) -> bool:
    """Is the domain taught, or does an endpoint claim it?"""
    claimed = exists().where(
        endpoints.c.id == offers.c.endpoint_id,
        endpoints.c.retired_at.is_(None),
        offers.c.valid_to.is_(None),
        offers.c.domains.has_key(name),
    )
    taught = exists().where(domains.c.name == name)
    return bool((await connection.execute(select(or_(taught, claimed)))).scalar())


def _terms(domain: Domain) -> tuple[object, ...]:
    return domain.name, domain.owner_id, domain.author, domain.changed_at


@dataclass(frozen=True, slots=True)
class Listed:
    """A domain without its examples, of which there are `examples`."""

    name: str
    owner_id: UUID | None
    examples: int
    author: str
    changed_at: datetime


async def list_domains(connection: AsyncConnection) -> tuple[Listed, ...]:
    """Return all domains, by name."""
    query = select(
        domains.c.name,
        domains.c.owner_id,
        func.cardinality(domains.c.examples),
        domains.c.author,
        domains.c.changed_at,
    )
    listed = [Listed(*row) for row in await connection.execute(query)]
    return tuple(sorted(listed, key=lambda each: each.name))


async def find_sharing(
    connection: AsyncConnection, name: str, examples: Sequence[str]
) -> tuple[str, int] | None:
    """Return another domain that has some of these examples, whatever their case and spaces, and
    how many; None where none has any."""
    row = (await connection.execute(_SHARING, {"name": name, "examples": list(examples)})).first()
    return None if row is None else (row[0], row[1])


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
