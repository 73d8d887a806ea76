"""What the ledger's statements need of budgets: which keys have any, and open periods to count in.

A process knows the keys with budgets as of a generation, which grows with each first budget. The
statement that opens holds compares it: where it has grown, nothing is held until the process has
read the new ones. So a key without budgets costs no look-up, and a first budget works at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from broker.core.ledger import Hold
from broker.store.sql import statement

Connection = Any
"""A bare asyncpg connection, or the pool's stand-in for one."""


class BudgetedKeys:
    """The keys with budgets as far as one process knows them."""

    def __init__(self) -> None:
        self.generation = 0
        """As of which they are known."""
        self._ids: set[str] = set()

    def vouch(self, key_ids: Iterable[str]) -> int | None:
        """Return the generation as of which none of the keys has budgets, None when one has."""
        return self.generation if not self._ids or self._ids.isdisjoint(key_ids) else None

    async def refresh(self, connection: Connection) -> bool:
        """Read the keys that got a first budget since; False when there were none."""
        rows = await connection.fetch(
            "SELECT g.generation, b.key_id FROM budget_generation g"
            " LEFT JOIN budgets b ON b.generation > $1",
            self.generation,
        )
        before, self.generation = self.generation, rows[0]["generation"]
        self._ids.update(row["key_id"] for row in rows if row["key_id"] is not None)
        return self.generation != before


async def open_periods(connection: Connection, holds: Sequence[Hold]) -> None:
    """Open the periods in which these holds count, of keys that have budgets."""
    await connection.execute(
        statement("open_periods"),
        [hold.key_id for hold in holds],
        [hold.created_at for hold in holds],
    )
