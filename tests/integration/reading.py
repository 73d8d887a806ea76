"""How many rows a transaction looks at, however the database is laid out."""

from __future__ import annotations

from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

_BY_INDEX: Final = text("""
SELECT set_config(way, 'off', true) FROM unnest(ARRAY['enable_seqscan', 'enable_bitmapscan']) AS way
""")
_READ: Final = text("""
SELECT coalesce(sum(seq_tup_read + coalesce(idx_tup_fetch, 0)), 0) FROM pg_stat_xact_user_tables
""")


async def go_by_indexes(asking: AsyncConnection) -> None:
    """Have the transaction use indexes where there are any: small tables are sooner read whole."""
    await asking.execute(_BY_INDEX)


async def rows_read(asking: AsyncConnection) -> int:
    """Return how many rows of tables the transaction has looked at; what an index says alone is
    not counted."""
    return int((await asking.execute(_READ)).scalar_one())
