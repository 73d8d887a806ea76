"""Loads the adapter for Stripe when it is first wanted, for its package is an extra and large."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING

import httpx

from broker.errors import SettingInvalid

if TYPE_CHECKING:
    from broker.outbound.stripe_connect import Reversal, StripeConnect


def open_stripe(
    key: str, transport: httpx.AsyncBaseTransport, url: str | None = None
) -> StripeConnect:
    """Return the adapter; `url` is Stripe's API unless given. Raises SettingInvalid."""
    loaded = _load()
    adapter: StripeConnect = loaded.StripeConnect(key, transport, url or loaded.URL)
    return adapter


def read_event(body: bytes, signature: str, secret: str) -> Reversal | None:
    """Return what a webhook tells of payouts, None for what is of no concern.

    Raises RequestMalformed with code `signature_invalid`, SettingInvalid without the package.
    """
    told: Reversal | None = _load().read_event(body, signature, secret)
    return told


def _load() -> ModuleType:
    try:
        from broker.outbound import stripe_connect
    except ImportError:
        raise SettingInvalid(
            "Payouts through Stripe need its package: pip install 'model-broker[stripe]'."
        ) from None
    return stripe_connect
