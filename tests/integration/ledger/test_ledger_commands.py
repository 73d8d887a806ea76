"""`broker ledger`: the status that cron reads, and every posting of a call drawn."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg
import pytest
from msgspec.structs import replace
from uuid_utils.compat import uuid7

from broker.flows.books.monitor import watch
from broker.store import ledger
from broker.store.books import transfers
from broker.store.books.transfers import Transfer, TransferKind
from broker.store.database import create_engine
from tests.integration.commands import command
from tests.integration.ledger.entries import PROCESS, a_capture, a_hold, a_record, standing


@pytest.fixture
def environment(database_url: str, tmp_path: Path) -> dict[str, str]:
    """What the commands read."""
    return {"BROKER_STATE": str(tmp_path), "COLUMNS": "120", "DATABASE_URL": database_url}


async def test_books_that_balance_are_status_0_with_a_line_for_each_check(
    environment: dict[str, str], database_url: str
) -> None:
    engine = create_engine(database_url, connections_max=1)
    await watch(engine, datetime.now(UTC), replay=False)
    await engine.dispose()
    fine = await command(environment, "ledger", "check", "--replay")
    assert fine.status == 0, fine
    assert "The books balance." in fine.said
    lines = [line.split() for line in fine.said.splitlines()]
    counts = {line[0]: line[1] for line in lines if line and line[0].startswith(("inv", "replay"))}
    assert set(counts.values()) == {"0"}
    assert {"invariant_books_sum_to_zero", "replay_balance_is_its_entries"} <= counts.keys()
    assert "The monitor last checked the open period" in fine.said
    assert "has not made its check of all records yet" in fine.said
    short = await command(environment, "check")
    assert short.status == 0
    assert "replay_" not in short.said


async def test_alarms_are_status_1_and_each_is_shown(
    environment: dict[str, str], connection: asyncpg.Connection, consumer: UUID
) -> None:
    tamper = "UPDATE balances SET posted_nanos = posted_nanos + $2 WHERE ledger_account_id = $1"
    await connection.execute(tamper, consumer, 7)
    off = await command(environment, "ledger", "check")
    await connection.execute(tamper, consumer, -7)
    assert off.status == 1
    assert f"invariant_balance_is_its_entries: ledger_account_id={consumer}" in off.said
    assert "posted_nanos=10000007, folded_nanos=10000000\n" in off.said
    assert "2 alarms." in off.said


async def test_what_could_not_be_checked_is_status_2_and_no_alarm(
    environment: dict[str, str], database_url: str
) -> None:
    bare = urlsplit(database_url)._replace(path="/postgres").geturl()
    for url, told in (
        ("postgresql://broker@127.0.0.1:1/broker", "cannot be reached"),
        (bare, "broker migrate"),
        (database_url.replace("test_", "missing_"), "does not exist"),
        ("", "No broker runs"),
    ):
        unknown = await command(environment | {"DATABASE_URL": url}, "ledger", "check")
        assert unknown.status == 2, unknown
        assert unknown.complained.startswith("broker: The books could not be checked: ")
        assert told in unknown.complained
        assert unknown.complained.count("\n") == 1


async def test_every_posting_of_a_served_call_is_drawn_with_sums_that_are_zero(
    environment: dict[str, str],
    connection: asyncpg.Connection,
    consumer: UUID,
    provider: UUID,
    take: UUID,
    database_url: str,
) -> None:
    hold = a_hold(consumer, 100_000)
    await ledger.hold_batch(connection, [hold], PROCESS)
    await ledger.settle_batch(connection, [a_capture(hold, (provider, 10), (provider, 5))], take)
    engine = create_engine(database_url, connections_max=1)
    async with engine.begin() as inside:
        back = Transfer(
            id=uuid7(),
            debit=provider,
            credit=consumer,
            amount_nanos=4_000,
            kind=TransferKind.REFUND,
            reason="it was [not] law",
            author="office",
            created_at=datetime.now(UTC),
            call_id=hold.call_id,
        )
        await transfers.post(inside, back)
    await engine.dispose()
    told = await command(environment, "ledger", "explain", str(hold.call_id))
    assert told.status == 0, told
    [payer] = await connection.fetch(_NAME, consumer)
    [earner] = await connection.fetch(_NAME, provider)
    drawn = [" ".join(line.split()) for line in told.said.splitlines()]
    for line in (
        f"{payer['name']}/funds -0.00001 USD",
        f"{earner['name']}/earnings 0.000009 USD",
        f"{payer['name']}/funds -0.000005 USD",
        f"{earner['name']}/earnings 0.0000045 USD",
        f"{earner['name']}/earnings -0.000004 USD",
        f"{payer['name']}/funds -0.000011 USD",
        f"{earner['name']}/earnings 0.0000095 USD",
        "still held 0.00 USD",
    ):
        assert line in drawn, told.said
    assert drawn.count("sum 0.00 USD") == 4
    assert any("refund" in line and "by office: it was [not] law" in line for line in drawn)
    assert any("attempt 2" in line and "5 tokens in" in line for line in drawn)


_NAME = "SELECT name FROM accounts a JOIN ledger_accounts l ON l.owner_id = a.id WHERE l.id = $1"


async def test_a_call_under_way_refused_released_or_unknown_is_told_too(
    environment: dict[str, str],
    connection: asyncpg.Connection,
    consumer: UUID,
    take: UUID,
) -> None:
    under_way, released = a_hold(consumer, 70_000), a_hold(consumer, 50_000)
    await ledger.hold_batch(connection, [under_way, released], PROCESS)
    await ledger.settle_batch(connection, [a_capture(released, recorded=False)], take)
    refused = replace(a_record(a_hold(consumer, 1), 0), hold_nanos=0, status=402, code="too_dear")
    await ledger.record_batch(connection, [refused])
    for call_id, words in (
        (under_way.call_id, "It is under way: 0.00007 USD are held until"),
        (released.call_id, "The hold was released; nothing was charged."),
        (refused.id, "answered 402 too_dear"),
        (refused.id, "It was refused: nothing was held"),
    ):
        told = await command(environment, "ledger", "explain", str(call_id))
        assert told.status == 0, told
        assert words in told.said
    unknown = await command(environment, "ledger", "explain", str(uuid7()))
    assert (unknown.status, unknown.complained) == (1, "broker: There is no such call.\n")
    assert (await standing(connection, consumer)).held_nanos == 70_000
