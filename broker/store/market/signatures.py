"""What models said that they take and give when they were probed, by endpoint."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.core.wire.signature import Signature
from broker.store.tables import table

signatures: Final = table("signatures", "endpoint_id uuid, seen_at timestamptz, signature jsonb")


async def keep(connection: AsyncConnection, found: Mapping[UUID, Signature], now: datetime) -> None:
    """Keep what was found of these endpoints in place of what was found before.

    Brokers read endpoints anew when the verdict on their deployment is written, so it must be in
    the same transaction.
    """
    for endpoint_id, signature in found.items():
        values = {"seen_at": now, "signature": msgspec.to_builtins(signature)}
        await connection.execute(
            insert(signatures)
            .values(endpoint_id=endpoint_id, **values)
            .on_conflict_do_update(index_elements=["endpoint_id"], set_=values)
        )


def signature_of(stored: object) -> Signature | None:
    """Return what is stored as a value."""
    return None if stored is None else msgspec.convert(stored, Signature)
