"""Lists many endpoints that are like a few which were registered: a thousand times as fast."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from broker.store import changes
from broker.store.market.deployments import signing_key_place
from broker.store.sealing import Sealer
from broker.store.tables import deployments, endpoints, offers

_ROWS = 1_000


async def copy(
    connection: AsyncConnection, templates: Sequence[UUID], count: int, sealer: Sealer
) -> dict[str, str]:
    """List endpoints until there are `count`, each on its own deployment, alike the deployments
    `templates` with one endpoint each, again and again in their order; return the signing keys of
    the new deployments, in hex, by id."""
    servers = await _rows(connection, deployments, "id", templates)
    models = await _rows(connection, endpoints, "deployment_id", templates)
    terms = await _rows(connection, offers, "endpoint_id", [each["id"] for each in models.values()])
    signing_keys: dict[str, str] = {}
    for begin in range(len(templates), count, _ROWS):
        new: tuple[list[dict[str, Any]], ...] = ([], [], [])
        for number in range(begin, min(begin + _ROWS, count)):
            server = servers[templates[number % len(templates)]]
            model = models[server["id"]]
            server_id, model_id, key = uuid7(), uuid7(), secrets.token_bytes(32)
            own = {"id": server_id, "name": f"d{number}", "nonce": secrets.token_urlsafe(24)}
            own["signing_key_sealed"] = sealer.seal(key, signing_key_place(server_id))
            new[0].append(server | own)
            new[1].append(
                model | {"id": model_id, "deployment_id": server_id, "name": f"e{number}"}
            )
            new[2].append(terms[model["id"]] | {"endpoint_id": model_id})
            signing_keys[str(server_id)] = key.hex()
        for table, rows in zip((deployments, endpoints, offers), new, strict=True):
            await connection.execute(insert(table), rows)
    await changes.announce(connection, changes.CATALOG)
    return signing_keys


async def _rows(
    connection: AsyncConnection, table: Any, column: str, ids: Sequence[UUID]
) -> dict[UUID, Mapping[str, Any]]:
    """Return rows by the id that they are looked up by, without the number that each has alone."""
    found = await connection.execute(select(table).where(table.c[column].in_(ids)))
    rows = [dict(row._mapping) for row in found]
    for row in rows:
        row.pop("number", None)
    return {row[column]: row for row in rows}
