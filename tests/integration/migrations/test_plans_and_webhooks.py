"""What stood in the audit log and among the events before they were chained and posted."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from uuid import UUID

import asyncpg
import pytest
from uuid_utils.compat import uuid7

from tests.integration.migrations.upgrading import DatabaseAt, insert_account

AT = datetime(2026, 5, 1, 12, 30, 15, 123456, tzinfo=UTC)


async def insert_entry(driver: asyncpg.Connection, action: str) -> UUID:
    entry = uuid7()
    await driver.execute(
        "INSERT INTO audit_log VALUES ($1, $2, 'boss', $3, 'keys/1', '{\"b\": 1, \"a\": [2]}')",
        *(entry, AT, action),
    )
    return entry


async def test_entries_that_stand_are_chained_in_their_order(database_at: DatabaseAt) -> None:
    async with database_at("0009") as old:
        entries = [await insert_entry(old.driver, action) for action in ("one", "two")]
        await old.upgrade("0010")
        entries.append(await insert_entry(old.driver, "three"))
        links = await old.driver.fetch("SELECT * FROM audit_chain ORDER BY number")
        assert [link["entry_id"] for link in links] == entries
        before = b""
        micros = int(AT.timestamp()) * 1_000_000 + AT.microsecond
        for link, action in zip(links, ("one", "two", "three"), strict=True):
            text = (
                f'["{link["entry_id"]}", {micros}, "boss", "{action}", "keys/1",'
                ' {"a": [2], "b": 1}]'
            )
            assert link["hash"] == hashlib.sha256(before + text.encode()).digest()
            before = link["hash"]


async def test_events_of_before_are_left_as_they_are(database_at: DatabaseAt) -> None:
    async with database_at("0009") as old:
        owner, _ = await insert_account(old.driver, "consumer", "shop")
        tell = "INSERT INTO events (id, at, account_id, kind, object, payload) VALUES"
        tell += " ($1, now(), $2, 'refund.posted', 'refunds/1', '{}')"
        await old.driver.execute(tell, uuid7(), owner)
        await old.upgrade("0010")
        await old.driver.execute(tell, uuid7(), owner)
        rows = await old.driver.fetch("SELECT xid FROM events ORDER BY number")
        assert [row["xid"] is None for row in rows] == [True, False]
        for statement in ("TRUNCATE events", "UPDATE events SET kind = 'x.y'"):
            with pytest.raises(asyncpg.IntegrityConstraintViolationError):
                await old.driver.execute(statement)
