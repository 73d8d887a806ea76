"""Keeps the public key that a deployment's receipts are to be proved with, and ends its time."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from broker.core.money.proof import is_signed_by
from broker.errors import Conflict, RequestMalformed, RequestRefused
from broker.flows.access.authenticate import Caller
from broker.store.access import audit
from broker.store.receipts import receipt_keys
from broker.store.receipts.receipt_keys import PublicKey
from provider_sdk.protocol import ReceiptKeyClaim, ReceiptKeyKept, ReceiptKeyOffer
from provider_sdk.signing import claim_message, key_id_of


async def keep_key(
    engine: AsyncEngine,
    provider: Caller,
    deployment_id: UUID,
    offer: ReceiptKeyOffer,
    now: datetime,
) -> ReceiptKeyKept:
    """Expect receipts by this key from now on; again without effect.

    The key before it is retired; a new one that it did not endorse is kept too, and said to be so.
    Raises NotFound, RequestMalformed, Conflict for a key that was retired or is of another
    deployment, RequestRefused (`bad_signature`) when the offer does not prove what it says.
    """
    public_key = _proved(deployment_id, offer)
    key_id = key_id_of(public_key)
    async with engine.begin() as connection:
        current = await receipt_keys.lock_in_force(connection, deployment_id, provider.account_id)
        if current is not None and current.id == key_id:
            return _kept(current)
        if await receipt_keys.find(connection, key_id) is not None:
            raise Conflict("This key was retired, or is another deployment's: make a new one.")
        endorsed_by = _endorser(offer, current)
        key = PublicKey(
            id=key_id,
            deployment_id=deployment_id,
            public_key=public_key,
            claim_json=offer.claim_json,
            signature=bytes.fromhex(offer.signature),
            endorsed_by=None if endorsed_by is None else endorsed_by.id,
            endorsement=bytes.fromhex(offer.endorsement or "") if endorsed_by else None,
            registered_at=now,
        )
        await _replace(connection, current, key)
        former = None if current is None else current.id
        detail = {"key": key_id, "former": former, "endorsed": key.endorsed_by is not None}
        await _audit(connection, provider, "register_receipt_key", (deployment_id, detail), now)
    return _kept(key)


async def retire_key(
    engine: AsyncEngine, provider: Caller, deployment_id: UUID, now: datetime
) -> None:
    """Expect no receipts of a deployment any more, again without effect. Raises NotFound."""
    async with engine.begin() as connection:
        current = await receipt_keys.lock_in_force(connection, deployment_id, provider.account_id)
        if current is None:
            return
        await receipt_keys.retire(connection, current.id, max(now, current.registered_at))
        detail = {"key": current.id}
        await _audit(connection, provider, "retire_receipt_key", (deployment_id, detail), now)


def _proved(deployment_id: UUID, offer: ReceiptKeyOffer) -> bytes:
    """The public key of an offer that is for this deployment and signed by that key."""
    try:
        claim = msgspec.json.decode(offer.claim_json, type=ReceiptKeyClaim)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise RequestMalformed(f"claim_json: {error}") from None
    if claim.deployment_id != str(deployment_id):
        raise RequestMalformed("claim_json is of another deployment.")
    public_key = bytes.fromhex(claim.public_key)
    if not is_signed_by(
        public_key, claim_message(offer.claim_json), bytes.fromhex(offer.signature)
    ):
        raise RequestRefused("The key did not sign its own claim.", code="bad_signature")
    return public_key


def _endorser(offer: ReceiptKeyOffer, current: PublicKey | None) -> PublicKey | None:
    """The key in force, if it endorses the new one."""
    if current is None or offer.endorsement is None or offer.endorsed_by != current.id:
        return None
    message, signature = claim_message(offer.claim_json), bytes.fromhex(offer.endorsement)
    if not is_signed_by(current.public_key, message, signature):
        raise RequestRefused("The key in force did not sign this claim.", code="bad_signature")
    return current


async def _replace(connection: AsyncConnection, current: PublicKey | None, key: PublicKey) -> None:
    if current is not None:
        at = max(key.registered_at, current.registered_at)
        await receipt_keys.retire(connection, current.id, at)
    await receipt_keys.insert_one(connection, key)


async def _audit(
    connection: AsyncConnection,
    provider: Caller,
    action: str,
    what: tuple[UUID, Mapping[str, object]],
    now: datetime,
) -> None:
    deployment_id, detail = what
    deed = audit.Deed(provider.name, action, f"deployments/{deployment_id}", detail)
    await audit.record(connection, deed, now)


def _kept(key: PublicKey) -> ReceiptKeyKept:
    return ReceiptKeyKept(
        deployment_id=str(key.deployment_id),
        key_id=key.id,
        registered_at_ms=int(key.registered_at.timestamp() * 1_000),
        endorsed=key.endorsed_by is not None,
    )
