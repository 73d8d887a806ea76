"""Payouts through Stripe Connect: each is paid once, whatever is lost on the way."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

import pytest
from structlog.testing import capture_logs
from uuid_utils.compat import uuid7

from broker.core.money.payout import Method, Stripe
from broker.errors import Conflict, NotFound, RequestMalformed
from broker.flows.money.hear_stripe import hear
from broker.flows.money.payout_events import Word, fail
from broker.flows.money.send_payouts import Sending, send, send_all
from broker.outbound.payout_adapter import Order, Payment, PaymentUnclear
from broker.outbound.stripe_extra import open_stripe
from broker.store.access.accounts import Account
from broker.store.money.payouts import Payout, PayoutStatus
from broker.store.money.purses import Contents
from broker.upstream import checked_httpx
from broker.upstream.addresses import AddressPolicy
from tests.integration.payouts.stripe_stand_in import StripeStandIn
from tests.integration.payouts.till import BANK, SEALER, Till

LOOPBACK = AddressPolicy([ipaddress.ip_network("127.0.0.0/8")])
ACCOUNT = "acct_1a2b3c4d5e6f7g8h"
SECRET = "whsec_test"
CENTS = 90_000_000


@pytest.fixture
async def stripe() -> AsyncIterator[StripeStandIn]:
    async with StripeStandIn().serving() as stand_in:
        yield stand_in


@pytest.fixture
async def desk(till: Till, stripe: StripeStandIn) -> AsyncIterator[Sending]:
    transport = checked_httpx.transport(LOOPBACK)
    async with open_stripe("sk_test_1", transport, stripe.url) as adapter:
        yield Sending(till.engine, SEALER, adapter, lambda: datetime.now(UTC))


@pytest.fixture
async def acme(till: Till) -> Account:
    return await till.provider("acme", Stripe(ACCOUNT))


@pytest.fixture
async def payout(till: Till, acme: Account) -> Payout:
    await till.adjust(acme, CENTS)
    return await till.pay(acme)


async def status(till: Till, payout: Payout) -> PayoutStatus:
    return (await till.payout(payout.id)).status


async def test_a_payout_is_a_transfer_to_the_connected_account(
    till: Till, stripe: StripeStandIn, desk: Sending, acme: Account, payout: Payout
) -> None:
    assert await send_all(desk) == 1
    [(key, asked)] = stripe.asked
    assert key == str(payout.id)
    assert asked == {
        "amount": "9",
        "currency": "usd",
        "destination": ACCOUNT,
        "transfer_group": str(payout.id),
        "metadata[payout]": str(payout.id),
    }
    assert stripe.authorizations == {"bearer sk_test_1"}
    sent = await till.payout(payout.id)
    assert (sent.status, sent.reference) == (PayoutStatus.SENT, "tr_1")
    assert await till.contents(acme) == Contents(0, 0, 0, 0)
    assert await send_all(desk) == 0


@pytest.mark.parametrize("after_days", [False, True])
async def test_an_answer_that_was_lost_pays_once(
    till: Till, stripe: StripeStandIn, desk: Sending, payout: Payout, after_days: bool
) -> None:
    stripe.lose_answers = 1
    assert await send_all(desk) == 0
    assert await status(till, payout) is PayoutStatus.OPEN
    if after_days:
        stripe.forget_keys()
    assert await send_all(desk) == 1
    assert len(stripe.transfers) == 1
    assert (await till.payout(payout.id)).reference == "tr_1"


async def test_a_broker_that_dies_after_it_has_paid_pays_once(
    till: Till, stripe: StripeStandIn, desk: Sending, payout: Payout
) -> None:
    """What it would have noted is not noted; the next run asks again."""
    await desk.adapter.pay(Order(payout.id, 9, Stripe(ACCOUNT)))
    assert await status(till, payout) is PayoutStatus.OPEN
    assert await send_all(desk) == 1
    assert len(stripe.transfers) == 1


async def test_two_workers_at_once_pay_once(
    till: Till, stripe: StripeStandIn, desk: Sending, payout: Payout
) -> None:
    await asyncio.gather(*(send(desk, payout.id) for _ in range(3)))
    assert len(stripe.transfers) == 1
    assert await status(till, payout) is PayoutStatus.SENT
    assert len(await till.events("payout.sent")) == 1


async def test_an_account_that_cannot_be_paid_to_fails_the_payout(
    till: Till, stripe: StripeStandIn, desk: Sending, acme: Account, payout: Payout
) -> None:
    words = "No such destination."
    error = {"type": "invalid_request_error", "code": "resource_missing", "message": words}
    stripe.refusals.append((400, error))
    assert await send_all(desk) == 0
    assert await status(till, payout) is PayoutStatus.FAILED
    assert await till.contents(acme) == Contents(0, CENTS, 0, 0)
    [told] = await till.events("payout.failed")
    assert words in str(told["reason"])


async def test_what_may_be_otherwise_next_time_stays_open(
    till: Till, stripe: StripeStandIn, desk: Sending, payout: Payout
) -> None:
    for refusal in (
        (400, {"type": "invalid_request_error", "code": "balance_insufficient"}),
        (401, {"type": "invalid_request_error", "message": "Invalid API Key"}),
        (409, {"type": "idempotency_error", "code": "idempotency_key_in_use"}),
        (429, {"type": "invalid_request_error", "code": "rate_limit"}),
        (500, {"type": "api_error"}),
    ):
        stripe.refusals.append(refusal)
        assert await send_all(desk) == 0
        assert await status(till, payout) is PayoutStatus.OPEN
    assert await send_all(desk) == 1


async def test_what_stripe_was_asked_for_is_not_taken_back_unseen(
    till: Till, stripe: StripeStandIn, desk: Sending, acme: Account, payout: Payout
) -> None:
    stripe.refusals.append((500, {"type": "api_error"}))
    await send_all(desk)
    async with till.engine.begin() as connection:
        with pytest.raises(Conflict) as caught:
            await fail(connection, payout.id, Word("office", "it hangs"), datetime.now(UTC))
    assert caught.value.code == "payout_submitted"
    async with till.engine.begin() as connection:
        word = Word("office", "it hangs", checked=True)
        await fail(connection, payout.id, word, datetime.now(UTC))
    assert not await send(desk, payout.id)
    assert (stripe.transfers, await till.contents(acme)) == ([], Contents(0, CENTS, 0, 0))


@dataclass
class Overtaken:
    """A service that pays while somebody says that it has not."""

    till: Till
    method: Method = Method.STRIPE

    async def pay(self, order: Order) -> Payment:
        async with self.till.engine.begin() as connection:
            word = Word("office", "it hangs", checked=True)
            await fail(connection, order.payout_id, word, datetime.now(UTC))
        return Payment("tr_1")


async def test_what_is_paid_after_it_was_given_up_is_told(till: Till, payout: Payout) -> None:
    desk = Sending(till.engine, SEALER, Overtaken(till), lambda: datetime.now(UTC))
    with capture_logs() as logs:
        await send_all(desk)
    assert [each["event"] for each in logs] == ["payout_paid_after_it_failed"]
    assert await status(till, payout) is PayoutStatus.FAILED


async def test_a_destination_that_cannot_be_read_stops_no_other(
    till: Till, stripe: StripeStandIn, desk: Sending, payout: Payout
) -> None:
    globex = await till.provider("globex", Stripe(ACCOUNT))
    await till.adjust(globex, CENTS)
    other = await till.pay(globex)
    await till.driver.execute(
        "UPDATE payout_destinations SET sealed = sealed || 'x' WHERE provider_id = $1",
        payout.provider_id,
    )
    with capture_logs() as logs:
        assert await send_all(desk) == 1
    assert [each["code"] for each in logs] == ["secret_unreadable"]
    assert await status(till, other) is PayoutStatus.SENT


async def test_payouts_to_banks_are_not_asked_of_stripe(
    till: Till, stripe: StripeStandIn, desk: Sending
) -> None:
    globex = await till.provider("globex", BANK)
    await till.adjust(globex, CENTS)
    await till.pay(globex)
    assert await send_all(desk) == 0
    assert stripe.authorizations == set()


async def test_an_address_that_is_not_allowed_is_not_called(stripe: StripeStandIn) -> None:
    transport = checked_httpx.transport(AddressPolicy())
    async with open_stripe("sk_test_1", transport, stripe.url) as adapter:
        with pytest.raises(PaymentUnclear, match="not allowed"):
            await adapter.pay(Order(uuid7(), 9, Stripe(ACCOUNT)))
    assert stripe.authorizations == set()


def signed(payload: bytes, secret: str = SECRET, age_s: int = 0) -> str:
    at = int(time.time()) - age_s
    mac = hmac.new(secret.encode(), f"{at}.".encode() + payload, hashlib.sha256)
    return f"t={at},v1={mac.hexdigest()}"


def reversal(group: UUID | str, *, whole: bool = True, kind: str = "transfer.reversed") -> bytes:
    transfer = {
        "id": "tr_1",
        "object": "transfer",
        "transfer_group": str(group),
        "reversed": whole,
    }
    event = {"id": "evt_1", "object": "event", "type": kind, "data": {"object": transfer}}
    return json.dumps(event).encode()


async def tell(till: Till, payload: bytes, signature: str | None = None) -> None:
    proof = (signature or signed(payload), SECRET)
    await hear(till.engine, payload, proof, datetime.now(UTC))


async def test_a_reversal_brings_the_money_back_once(
    till: Till, desk: Sending, acme: Account, payout: Payout
) -> None:
    await send_all(desk)
    for _ in range(2):
        await tell(till, reversal(payout.id))
    assert await status(till, payout) is PayoutStatus.RETURNED
    assert await till.contents(acme) == Contents(0, CENTS, 0, 0)


async def test_a_reversal_may_come_before_we_know_that_it_was_paid(
    till: Till, stripe: StripeStandIn, desk: Sending, payout: Payout
) -> None:
    stripe.lose_answers = 1
    await send_all(desk)
    await tell(till, reversal(payout.id))
    assert await status(till, payout) is PayoutStatus.RETURNED
    assert await send_all(desk) == 0


async def test_what_does_not_concern_a_payout_is_passed_over(
    till: Till, desk: Sending, payout: Payout
) -> None:
    await send_all(desk)
    for payload in (
        reversal(payout.id, whole=False),
        reversal(payout.id, kind="transfer.created"),
        reversal("made by hand"),
        reversal(uuid7()),
    ):
        await tell(till, payload)
    assert await status(till, payout) is PayoutStatus.SENT


async def test_only_what_stripe_has_signed_just_now_is_believed(till: Till) -> None:
    payload = reversal(uuid7())
    for signature in ("", "nonsense", signed(payload, "whsec_other"), signed(payload, age_s=900)):
        with pytest.raises(RequestMalformed) as caught:
            await tell(till, payload, signature or "t=1")
        assert caught.value.code == "signature_invalid"
    with pytest.raises(RequestMalformed):
        await tell(till, b"not json")
    with pytest.raises(NotFound):
        await hear(till.engine, payload, (signed(payload), ""), datetime.now(UTC))
