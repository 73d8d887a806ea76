"""Pays through Stripe Connect: a transfer to the connected account of the provider.

A payout's id is the transfer's idempotency key and its `transfer_group`. The key makes two orders
at once one transfer; it lapses after a day or more, so an order first looks for a transfer of its
group.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Awaitable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import httpx
import stripe

from broker.core.money.payout import Method, Stripe
from broker.errors import RequestMalformed
from broker.outbound.payout_adapter import Order, Payment, PaymentRefused, PaymentUnclear

URL: Final = "https://api.stripe.com"
TIMEOUT_S: Final = 30.0
_CURRENCY: Final = "usd"
_REFUSALS: Final = frozenset(
    {
        "account_closed",
        "account_invalid",
        "insufficient_capabilities_for_transfer",
        "resource_missing",
        "transfers_not_allowed",
    }
)
"""What Stripe says of an account that cannot be paid to; all else may be otherwise next time."""


@dataclass(frozen=True, slots=True)
class Reversal:
    """Stripe's word that all of a payout has come back."""

    payout_id: UUID
    reference: str


class StripeConnect:
    """The adapter; use it as an async context manager.

    `transport` connects to permitted addresses only (`broker.upstream.addresses`).
    """

    method = Method.STRIPE

    def __init__(self, key: str, transport: httpx.AsyncBaseTransport, url: str = URL) -> None:
        self._http = _CheckedHttp(transport)
        self._client = stripe.StripeClient(
            key, base_addresses={"api": url}, http_client=self._http, max_network_retries=0
        )

    async def __aenter__(self) -> StripeConnect:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.close_async()

    async def pay(self, order: Order) -> Payment:
        """Pay an order, or return what was paid for it. Raises PaymentRefused, PaymentUnclear."""
        assert isinstance(order.destination, Stripe), "each method has its own destinations"
        try:
            former = await self._find(order.payout_id)
            return former or await self._transfer(order, order.destination)
        except stripe.StripeError as error:
            words = error.user_message or str(error) or type(error).__name__
            if isinstance(error, stripe.InvalidRequestError) and error.code in _REFUSALS:
                raise PaymentRefused(words) from error
            raise PaymentUnclear(words) from error

    async def _find(self, payout_id: UUID) -> Payment | None:
        found = await self._client.v1.transfers.list_async(
            {"transfer_group": str(payout_id), "limit": 1}
        )
        return _payment(found.data[0]) if found.data else None

    async def _transfer(self, order: Order, destination: Stripe) -> Payment:
        payout = str(order.payout_id)
        made = await self._client.v1.transfers.create_async(
            {
                "amount": order.amount_cents,
                "currency": _CURRENCY,
                "destination": destination.account,
                "transfer_group": payout,
                "metadata": {"payout": payout},
            },
            {"idempotency_key": payout},
        )
        return _payment(made)


def _payment(transfer: stripe.Transfer) -> Payment:
    return Payment(reference=transfer.id, reversed=transfer.reversed)


def read_event(body: bytes, signature: str, secret: str) -> Reversal | None:
    """Return what a webhook tells of payouts, None for what is of no concern.

    Raises RequestMalformed with code `signature_invalid` unless Stripe has signed just this, in the
    last minutes.
    """
    try:
        event = stripe.Webhook.construct_event(body, signature, secret)
    except (stripe.SignatureVerificationError, ValueError, KeyError) as error:
        raise RequestMalformed(
            f"This is not signed by Stripe: {error}.", code="signature_invalid"
        ) from None
    transfer: dict[str, Any] = event.data.object.to_dict()
    if event.type != "transfer.reversed" or not transfer.get("reversed"):
        return None
    try:
        return Reversal(UUID(transfer.get("transfer_group") or ""), transfer["id"])
    except ValueError:
        return None  # A transfer that somebody made by hand.


class _CheckedHttp(stripe.HTTPClient):
    """The HTTP of the `stripe` package, over our transport."""

    name = "httpx"

    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        super().__init__()
        self._client = httpx.AsyncClient(
            transport=transport, timeout=TIMEOUT_S, follow_redirects=False, trust_env=False
        )

    async def request_async(
        self, method: str, url: str, headers: Mapping[str, str], post_data: Any = None
    ) -> tuple[bytes, int, Mapping[str, str]]:
        """Send one request. Raises stripe.APIConnectionError when no whole answer came."""
        try:
            async with asyncio.timeout(TIMEOUT_S):
                answer = await self._client.request(
                    method, url, headers=dict(headers), content=post_data or None
                )
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            words = f"{type(error).__name__}: {error}"
            raise stripe.APIConnectionError(words) from error  # type: ignore[no-untyped-call]
        return answer.content, answer.status_code, answer.headers

    async def request_stream_async(
        self, method: str, url: str, headers: Mapping[str, str], post_data: Any = None
    ) -> tuple[AsyncIterable[bytes], int, Mapping[str, str]]:
        raise NotImplementedError("No answer of the transfers is a stream.")

    async def close_async(self) -> None:
        await self._client.aclose()

    def sleep_async(self, secs: float) -> Awaitable[None]:
        return asyncio.sleep(secs)
