"""Names of endpoints by number or id, retired ones too: what old calls and prices speak of."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Select, select
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.store.tables import accounts, among, endpoints

_AT_ONCE: Final = 1_000


@dataclass(frozen=True, slots=True)
class NamedEndpoint:
    """An endpoint as it was named; `name` is `provider/endpoint`."""

    id: UUID
    number: int
    name: str
    model: str
    version: str
    provider_id: UUID


async def by_numbers(
    connection: AsyncConnection, numbers: Collection[int]
) -> dict[int, NamedEndpoint]:
    """Return the endpoints of these numbers, by number; read in parts, for they may be all of a
    large market."""
    wanted = sorted({*numbers})
    found: dict[int, NamedEndpoint] = {}
    for begin in range(0, len(wanted), _AT_ONCE):
        some = among(endpoints.c.number, wanted[begin : begin + _AT_ONCE])
        found |= {each.number: each for each in await _fetch(connection, _named().where(some))}
    return found


async def by_name(connection: AsyncConnection, name: str) -> list[NamedEndpoint]:
    """Return all that ever went by `provider/endpoint`, the newest first."""
    provider, _, endpoint = name.partition("/")
    query = _named().where(accounts.c.name == provider, endpoints.c.name == endpoint)
    return await _fetch(connection, query.order_by(endpoints.c.number.desc()))


async def numbers_of_provider(connection: AsyncConnection, provider_id: UUID) -> list[int]:
    """Return the numbers of all endpoints that a provider has ever had."""
    query = select(endpoints.c.number).where(endpoints.c.provider_id == provider_id)
    return list((await connection.execute(query)).scalars())


def _named() -> Select[Any]:
    of = endpoints.c
    provider = accounts.c.name.label("provider")
    # Not whole rows: with each would come its tokenizer, of many megabytes.
    named = select(of.id, of.number, of.name, of.model, of.version, of.provider_id, provider)
    return named.select_from(endpoints.join(accounts, accounts.c.id == of.provider_id))


async def _fetch(connection: AsyncConnection, query: Select[Any]) -> list[NamedEndpoint]:
    return [
        NamedEndpoint(
            id=row.id,
            number=row.number,
            name=f"{row.provider}/{row.name}",
            model=row.model,
            version=row.version,
            provider_id=row.provider_id,
        )
        for row in await connection.execute(query)
    ]
