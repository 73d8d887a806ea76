"""Stamps stand for rows, to tell which of very many have changed without reading them.

A stamp is made of where a row is and which transaction wrote it (`ctid`, `xmin`), of all rows that
a value comes from, and is told with the value's number. Ten thousand are 120 kB.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.core.columns import Numbers

_TOLD: Final = np.dtype([("number", ">i4"), ("stamp", ">i8")])
_STAMP: Final = np.dtype([("number", np.int64), ("stamp", np.int64)])

Stamps = NDArray[Any]
"""Numbers, rising, each with the stamp that stands for it."""
NOTHING: Final[Stamps] = np.zeros(0, dtype=_STAMP)


def stamps_by(number: str, *parts: str) -> str:
    """Return the SQL of a column that `read_stamps` reads, of a number and what its stamp is of."""
    stamp = f"hashtextextended(concat_ws(' ', {', '.join(parts)}), 0)"
    told = f"int4send({number}) || int8send({stamp})"
    return f"string_agg({told}, ''::bytea ORDER BY {number})"


async def read_stamps(connection: AsyncConnection, query: str) -> Stamps:
    """Run a query of one column, made by `stamps_by`."""
    return np.frombuffer(await connection.scalar(text(query)) or b"", dtype=_TOLD).astype(_STAMP)


def standing(before: Stamps, now: Stamps) -> Numbers:
    """Return the numbers of those that have not changed."""
    if not before.size:
        return np.zeros(0, dtype=np.int64)
    at = before["number"].searchsorted(now["number"])
    at[at == before.size] = 0
    same: Numbers = now["number"][before[at] == now]
    return same
