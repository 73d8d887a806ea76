"""Seals the audit log's chain now and then, and tells whether anybody has tampered with it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from broker.store.access import audit_chain
from broker.store.access.audit_chain import Head, Link
from broker.store.sealing import Sealer, SecretKeyUnknown

FLAWS_MAX: Final = 100

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found. `flaws` are sentences, at most 100; none is well."""

    entries: int
    sealed: int
    """How many entries the newest seal vouches for."""
    head: Head | None
    flaws: tuple[str, ...]


async def seal_audit(engine: AsyncEngine, sealer: Sealer, now: datetime) -> Head | None:
    """Seal the newest link unless it is sealed; return it if it was not.

    The link is logged as well: a log that is kept elsewhere shows even an end that was cut off.
    """
    async with engine.begin() as connection:
        head = await audit_chain.head(connection)
        if head is None or await audit_chain.last_seal(connection) >= head.number:
            return None
        await audit_chain.seal(connection, head, sealer, now)
    _log.info("audit_sealed", number=head.number, hash=head.hash.hex())
    return head


async def verify_audit(engine: AsyncEngine, sealer: Sealer, noted: Head | None = None) -> Verdict:
    """Recompute every link and open every seal; `noted` is a link that was seen at another time."""
    async with engine.connect() as connection:
        # One snapshot, or an entry that is being written would look like one without a link.
        await connection.execution_options(isolation_level="REPEATABLE READ")
        return await _verify(connection, sealer, noted)


async def _verify(connection: AsyncConnection, sealer: Sealer, noted: Head | None) -> Verdict:
    flaws: list[str] = []
    last = Head(0, b"")
    sealed = 0
    async for link in audit_chain.links(connection):
        if link.number != last.number + 1:
            flaws.append(f"Links {last.number + 1} to {link.number - 1} are gone.")
        elif link.entry is None:
            flaws.append(f"Entry {link.number} ({link.entry_id}) was deleted.")
        elif not link.follows(last.hash):
            flaws.append(f"Entry {link.number} ({link.entry_id}) or its link was altered.")
        flaw = _flaw_of_seal(link, sealer)
        if flaw is not None:
            flaws.append(flaw)
        elif link.sealed is not None:
            sealed = link.number
        if noted is not None and link.number == noted.number and link.hash != noted.hash:
            flaws.append(f"Link {link.number} is not the one that was noted.")
        last = Head(link.number, link.hash)
    if noted is not None and noted.number > last.number:
        flaws.append(f"Link {noted.number} was noted, but the log ends at {last.number}.")
    loose = await audit_chain.unchained(connection)
    flaws += [f"Entry {each} has no link." for each in loose]
    head = last if last.number else None
    return Verdict(last.number, sealed, head, tuple(flaws[:FLAWS_MAX]))


def _flaw_of_seal(link: Link, sealer: Sealer) -> str | None:
    try:
        fits = link.unforged(sealer)
    except SecretKeyUnknown:
        return (
            f"The seal of link {link.number} is of a key that is neither BROKER_SECRET_KEY here"
            " nor among BROKER_SECRET_KEYS_OLD."
        )
    return (
        None if fits else f"The seal of link {link.number} does not fit: it or the log was altered."
    )
