"""The chain through the audit log: its links as they stand, and the seals that nobody can forge.

    hash(n) = SHA-256(hash(n - 1) | entry n as JSON)

The database links each entry as it commits. A seal is the hash of a link, encrypted under a key
that the database does not have: who rewrites an entry can rewrite the links after it, but no seal.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.store.sealing import Sealer, SecretKeyUnknown, SecretUnreadable

_PAGE = 1_000

# Written out here, so that a function altered in the database deceives nobody.
_LINKS = """
SELECT c.number, c.hash, s.sealed, c.entry_id,
       CASE WHEN l.id IS NOT NULL THEN
           jsonb_build_array(l.id, (extract(epoch FROM l.at) * 1000000)::bigint,
                             l.author, l.action, l.object, l.detail)::text END AS entry
  FROM audit_chain c
  LEFT JOIN audit_log l ON l.id = c.entry_id
  LEFT JOIN audit_seals s ON s.number = c.number
 WHERE c.number > :after ORDER BY c.number LIMIT :page
"""
_SEAL = """
INSERT INTO audit_seals (number, sealed, created_at) VALUES (:number, :sealed, :now)
    ON CONFLICT DO NOTHING
"""


@dataclass(frozen=True, slots=True)
class Head:
    """The newest link."""

    number: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class Link:
    """A link with its entry as JSON, None when the entry is gone, and its seal if it has one."""

    number: int
    hash: bytes
    entry_id: UUID
    entry: str | None
    sealed: bytes | None

    def follows(self, before: bytes) -> bool:
        """True when the hash is that of the entry and of the link `before`."""
        if self.entry is None:
            return False
        return hashlib.sha256(before + self.entry.encode()).digest() == self.hash

    def unforged(self, sealer: Sealer) -> bool:
        """True when the seal, if there is one, is of this very hash. Raises SecretKeyUnknown."""
        if self.sealed is None:
            return True
        try:
            return sealer.open(self.sealed, _place(self.number)) == self.hash
        except SecretKeyUnknown:
            raise
        except SecretUnreadable:
            return False


async def links(connection: AsyncConnection) -> AsyncIterator[Link]:
    """Go through all links in order."""
    after, full = 0, True
    while full:
        rows = (await connection.execute(text(_LINKS), {"after": after, "page": _PAGE})).all()
        for row in rows:
            yield Link(row.number, row.hash, row.entry_id, row.entry, row.sealed)
            after = row.number
        full = len(rows) == _PAGE


async def head(connection: AsyncConnection) -> Head | None:
    """Return the newest link, None when there is none."""
    query = text("SELECT number, hash FROM audit_chain ORDER BY number DESC LIMIT 1")
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else Head(row.number, row.hash)


async def last_seal(connection: AsyncConnection) -> int:
    """Return the number of the newest sealed link, 0 when none is."""
    return int(await connection.scalar(text("SELECT max(number) FROM audit_seals")) or 0)


async def seal(connection: AsyncConnection, link: Head, sealer: Sealer, now: datetime) -> None:
    """Seal a link; one that is sealed already stays as it is."""
    sealed = sealer.seal(link.hash, _place(link.number))
    values = {"number": link.number, "sealed": sealed, "now": now}
    await connection.execute(text(_SEAL), values)


async def unchained(connection: AsyncConnection) -> list[UUID]:
    """Return entries of the log that have no link, at most 100."""
    rows = await connection.execute(
        text(
            "SELECT id FROM audit_log l WHERE NOT EXISTS"
            " (SELECT 1 FROM audit_chain c WHERE c.entry_id = l.id) ORDER BY id LIMIT 100"
        )
    )
    return list(rows.scalars())


def _place(number: int) -> str:
    return f"audit_chain/{number}"
