"""What agents sign is compared with what the broker billed, and each difference opens a case."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from uuid import UUID

import asyncpg
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from uuid_utils.compat import uuid7

from broker.core.ledger import Hold, SettlementKind, settlement
from broker.core.money.receipts import CaseKind, Difference
from broker.store import ledger
from broker.store.receipts import receipt_cases, receipt_horizon
from provider_sdk.protocol import Receipt
from provider_sdk.signing import receipt_message
from tests.integration.gateway.house import Consumer
from tests.integration.ledger.entries import ledger_connection
from tests.integration.receipts.workshop import Workshop, sign
from tests.waiting import until


async def test_an_honest_call_has_a_receipt_that_anybody_can_check_and_no_case(
    workshop: Workshop, shop: Consumer
) -> None:
    whole = await workshop.serve(shop)
    streamed = await workshop.serve(shop, stream=True)
    await until(lambda: workshop.has_receipt(streamed))
    for call_id in (whole, streamed):
        [shown] = await workshop.receipts(call_id)
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(shown["public_key"])).verify(
            bytes.fromhex(shown["signature"]), receipt_message(shown["receipt_json"])
        )
        receipt = msgspec.json.decode(shown["receipt_json"], type=Receipt)
        assert (receipt.call_id, receipt.attempt) == (str(call_id), 0)
        assert (receipt.status, receipt.whole, receipt.tokens_out) == (200, True, 20)
        assert (shown["deployment"], shown["key_id"]) == ("gpu1", workshop.keys.key().id)
    await workshop.reconcile()
    assert not await workshop.cases(whole, "all")
    assert not await workshop.cases(streamed, "all")


async def test_a_receipt_that_is_missing_opens_a_case_which_closes_when_it_comes_late(
    workshop: Workshop, shop: Consumer
) -> None:
    async with workshop.silent():
        call_id = await workshop.serve(shop)
        opened = await workshop.reconcile()
        assert [(each.kind, each.call_id) for each in opened] == [(CaseKind.NO_RECEIPT, call_id)]
        assert not await workshop.reconcile(), "a difference is found once"
        [case] = await workshop.cases(call_id)
        assert case["deployment"] == "acme/gpu1"
        assert case["detail"]["tokens_out"] == 20
    await workshop.reconcile()
    [closed] = await workshop.cases(call_id, "closed")
    assert closed["closed_by"] == "broker"
    assert closed["close_reason"] == "The receipt has come since."
    events = await workshop.house.database.fetch(
        "SELECT kind FROM events WHERE object = $1 ORDER BY number", f"receipt_cases/{case['id']}"
    )
    assert [each["kind"] for each in events] == ["receipt_case.opened", "receipt_case.closed"]


async def test_a_claim_that_the_broker_cut_opens_a_case_and_moves_no_money(
    workshop: Workshop, shop: Consumer
) -> None:
    workshop.behave(usage_factor=10.0)
    call_id = await workshop.serve(shop)
    workshop.behave()
    await until(lambda: workshop.has_receipt(call_id))
    query = "SELECT ledger_account_id, posted_nanos, held_nanos FROM balances ORDER BY 1"
    before = await workshop.house.database.fetch(query)
    [case] = await workshop.reconcile()
    assert (case.kind, case.call_id) == (CaseKind.COUNTS_DIFFER, call_id)
    counts = case.detail["tokens_out"]
    assert counts["receipt"] == 200
    assert counts["billed"] < 200
    assert await workshop.house.database.fetch(query) == before


async def test_an_answer_that_the_broker_threw_away_is_a_case_of_the_provider(
    workshop: Workshop, shop: Consumer
) -> None:
    workshop.behave(malformed_json=True)
    refused = await workshop.ask(shop)
    workshop.behave()
    assert refused.status_code == 502
    call_id = UUID(refused.headers["x-broker-call-id"])
    await until(lambda: workshop.has_receipt(call_id))
    opened = await workshop.reconcile()
    assert {(each.kind, each.call_id) for each in opened} == {(CaseKind.NOT_BILLED, call_id)}
    assert {each.detail["outcome"] for each in opened} == {"malformed"}


async def test_receipts_of_calls_that_never_were_open_cases(
    workshop: Workshop, shop: Consumer
) -> None:
    key = workshop.keys.key()
    invented = uuid7()
    refused = await shop.http.post(
        "/v1/chat/completions",
        json={"model": workshop.name, "messages": [], "broker": {"max_cost": "0.000000001"}},
    )
    assert refused.status_code >= 400
    elsewhere = UUID(refused.headers.get("x-broker-call-id") or str(uuid7()))
    results = await workshop.send(
        sign(workshop.receipt(invented), key), sign(workshop.receipt(elsewhere, attempt=2), key)
    )
    assert [each.kept for each in results] == [True, True]
    opened = await workshop.reconcile()
    found = {(each.kind, each.call_id, each.attempt) for each in opened}
    assert found == {
        (CaseKind.UNKNOWN_CALL, invented, 0),
        (CaseKind.UNKNOWN_CALL, elsewhere, 2),
    }


async def test_times_that_cannot_be_open_a_case(workshop: Workshop, shop: Consumer) -> None:
    async with workshop.silent():
        call_id = await workshop.serve(shop)
        hour_ms = 3_600_000
        honest = workshop.receipt(call_id, tokens_in=None, tokens_out=20)
        bent = msgspec.structs.replace(honest, started_at_ms=honest.started_at_ms - hour_ms)
        [result] = await workshop.send(sign(bent, workshop.keys.key()))
        assert result.kept
        [case] = await workshop.reconcile()
        assert (case.kind, case.call_id) == (CaseKind.TIMES_IMPOSSIBLE, call_id)
        assert set(case.detail["faults"]) == {"before_the_call", "longer_than_the_call"}
    # The agent's own receipt has come too, and says something else.
    assert len(await workshop.receipts(call_id)) == 1


async def test_a_call_that_is_under_way_is_left_for_later(
    workshop: Workshop, shop: Consumer
) -> None:
    workshop.behave(ttft_ms=60_000)
    asking = asyncio.create_task(workshop.ask(shop))
    await until(lambda: workshop.server.in_flight == 1)
    invented = uuid7()
    await workshop.send(sign(workshop.receipt(invented), workshop.keys.key()))
    assert not await workshop.reconcile(), "nothing begun after an open call is compared"
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    workshop.behave()
    await workshop.house.let_go()
    assert [each.call_id for each in await workshop.reconcile()] == [invented]


async def test_a_whole_answer_of_a_call_that_died_with_its_broker_is_a_case(
    workshop: Workshop, shop: Consumer
) -> None:
    house = workshop.house
    funds = await house.database.fetchval(
        "SELECT l.id FROM ledger_accounts l JOIN accounts a ON a.id = l.owner_id"
        " WHERE a.name = 'shop' AND l.kind = 'funds'"
    )
    now = datetime.now(UTC)
    connection = await ledger_connection(house.database_url)
    hold = Hold(uuid7(), UUID(str(funds)), "key", 1_000, now, now)
    await ledger.hold_batch(connection, [hold], 999)
    await workshop.send(sign(workshop.receipt(hold.call_id), workshop.keys.key()))
    released = settlement(hold, (), now, None)
    assert released.kind is SettlementKind.RELEASED
    await ledger.settle_batch(connection, [released], await ledger.take_account(connection, 1))
    await connection.close()
    [case] = await workshop.reconcile()
    assert (case.kind, case.detail["outcome"]) == (CaseKind.NOT_BILLED, "broker_died")


async def test_a_flood_of_differences_opens_a_hundred_cases_and_counts_the_rest(
    workshop: Workshop,
) -> None:
    place = (0, UUID(workshop.deployment_id))
    found = [(uuid7(), Difference(CaseKind.NOT_SERVED, place, {})) for _ in range(105)]
    async with workshop.house.engine.begin() as connection:
        await receipt_horizon.lock(connection)
        opened = await receipt_cases.open_cases(connection, found, datetime.now(UTC))
    assert len(opened) == receipt_cases.OPEN_MAX
    further = await workshop.house.database.fetchval(
        "SELECT max(further) FROM receipt_cases WHERE kind = 'not_served'"
    )
    assert further == 5


async def test_receipts_cases_and_keys_are_not_rewritten(workshop: Workshop) -> None:
    for change in (
        "DELETE FROM receipts",
        "UPDATE receipts SET tokens_out = 1",
        "DELETE FROM receipt_cases",
        "UPDATE receipt_cases SET detail = '{}'",
        "DELETE FROM receipt_keys",
        "UPDATE receipt_keys SET public_key = public_key",
    ):
        with pytest.raises(asyncpg.IntegrityConstraintViolationError):
            await workshop.house.database.execute(change)
