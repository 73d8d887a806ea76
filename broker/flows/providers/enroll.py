"""Brings a deployment to the market: registered, proven to be the registrant's, probed, listed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, cast
from uuid import UUID

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from broker.core.catalog import Endpoint, ListingStatus
from broker.encoding.trusted import obstacle
from broker.errors import Conflict, NotAllowed, RequestMalformed
from broker.flows.access.authenticate import Caller
from broker.flows.calls.ask_endpoint import NOT_EXAMINED, form_of
from broker.flows.providers.prove import APPROVAL_MISSING, Seen, probe, prove
from broker.store.access import audit
from broker.store.access.accounts import Role
from broker.store.market import catalog, deployments, listing, signatures
from broker.store.market.deployments import DeploymentRecord
from broker.store.sealing import Sealer
from broker.upstream.addresses import AddressPolicy
from broker.upstream.probe_kserve import NOT_CHECKED
from provider_sdk.protocol import DeploymentOffer, ProbeReport, Registered, Verified

DEPLOYMENTS_MAX: Final = 1_000
ENDPOINTS_MAX: Final = 10_000
"""Of one account, on all of its deployments: every broker keeps each in memory."""
TOKENIZERS_BYTES_MAX: Final = 512 << 20
"""Of one account's endpoints together, for the same reason."""


@dataclass(frozen=True, slots=True)
class Enrolment:
    """What enrolling takes: the database, the key to secrets, the allowed addresses, the terms."""

    engine: AsyncEngine
    sealer: Sealer
    policy: AddressPolicy
    take_bps: int
    clock: Callable[[], datetime]
    heartbeat_interval_ms: Callable[[], int]
    tokenizers_bytes_max: int = TOKENIZERS_BYTES_MAX


async def register(desk: Enrolment, provider: Caller, offer: DeploymentOffer) -> Registered:
    """Make the catalog say what the offer says, again without effect.

    Raises NotAllowed, RequestMalformed with the name of the field, and Conflict with code
    `deployments_too_many`, `endpoints_too_many` or `tokenizers_too_large`.
    """
    async with desk.engine.begin() as connection:
        return await register_in(connection, desk, provider, offer)


async def register_in(
    connection: AsyncConnection, desk: Enrolment, provider: Caller, offer: DeploymentOffer
) -> Registered:
    """Register in the caller's transaction. Raises as `register` does."""
    _require(provider, Role.PROVIDER)
    await asyncio.to_thread(_require_tame_tokenizers, offer)  # some are of 17 MB
    await _require_room(connection, provider, offer, desk.tokenizers_bytes_max)
    now = desk.clock()
    registration = await catalog.register(
        connection, provider.account_id, offer, desk.sealer, (desk.take_bps, now)
    )
    if registration.changed:
        detail = {
            "name": offer.name,
            "url": offer.url,
            "status": registration.status.value,
            "prices": {each.name: msgspec.to_builtins(each.price) for each in offer.endpoints},
        }
        place = _place(registration.deployment_id)
        deed = audit.Deed(provider.name, "register_deployment", place, detail)
        await audit.record(connection, deed, now)
    return Registered(
        deployment_id=str(registration.deployment_id),
        status=cast(
            Literal["unproven", "listed", "awaiting_approval", "failed"],
            registration.status.value,
        ),
        nonce=registration.nonce,
        signing_key=registration.signing_key.hex(),
        heartbeat_interval_ms=desk.heartbeat_interval_ms(),
    )


async def _require_room(
    connection: AsyncConnection, provider: Caller, offer: DeploymentOffer, tokenizers_max: int
) -> None:
    beside = await listing.count_beside(connection, provider.account_id, offer.name)
    if beside.deployments >= DEPLOYMENTS_MAX:
        raise Conflict(
            f"An account has at most {DEPLOYMENTS_MAX} deployments.", code="deployments_too_many"
        )
    if beside.endpoints + len(offer.endpoints) > ENDPOINTS_MAX:
        raise Conflict(
            f"An account has at most {ENDPOINTS_MAX} endpoints.", code="endpoints_too_many"
        )
    # Letters are at least a byte each; to have them all as bytes would be another copy.
    told = sum(len(each.tokenizer_json or "") for each in offer.endpoints)
    if told and beside.tokenizers_bytes + told > tokenizers_max:
        raise Conflict(
            f"The tokenizers of an account's endpoints have at most {tokenizers_max:,} bytes.",
            code="tokenizers_too_large",
        )


def _require_tame_tokenizers(offer: DeploymentOffer) -> None:
    for place, endpoint in enumerate(offer.endpoints):
        reason = obstacle(endpoint.tokenizer_json) if endpoint.tokenizer_json else None
        if reason is not None:
            field = f"endpoints[{place}].tokenizer_json"
            raise RequestMalformed(
                f"{field} cannot run in the broker: {reason}. "
                "Without it, tokens are bounded by the bytes of the text.",
                facts={"field": field},
            )


async def verify(desk: Enrolment, provider: Caller, deployment_id: UUID) -> Verified:
    """Ask for the proof, then probe, then list; what failed is told and kept.

    A deployment that was listed and fails is listed no more. No transaction is open meanwhile, so
    terms that change under a verification void it: Conflict. Raises NotFound, NotAllowed.
    """
    _require(provider, Role.PROVIDER)
    async with desk.engine.connect() as connection:
        record = await deployments.find(
            connection, deployment_id, desk.sealer, provider_id=provider.account_id
        )
        endpoints = await catalog.endpoints_of(connection, record)
    if record.deployment.status is ListingStatus.WITHDRAWN:
        raise Conflict("The deployment was withdrawn; register it again.")
    status, seen = await _judge(record, endpoints, desk.policy)
    reports = seen.reports
    async with desk.engine.begin() as connection:
        await signatures.keep(connection, seen.signatures, desk.clock())
        await listing.set_verdict(connection, record, status, reports)
        await _audit_verdict(connection, record, status, provider.name, desk.clock())
    return Verified(
        deployment_id=str(deployment_id),
        status=cast(Literal["listed", "failed", "awaiting_approval"], status.value),
        reports=reports,
    )


async def approve(engine: AsyncEngine, operator: str, deployment_id: UUID, now: datetime) -> None:
    """Let a credential pass for a proof, or a check that cannot be made for a passed one; the next
    verification lists the deployment if it works.

    `operator` is the account's name. Raises NotFound, or Conflict where no approval is awaited.
    """
    async with engine.begin() as connection:
        await listing.approve(connection, deployment_id, operator, now)
        deed = audit.Deed(operator, "approve_deployment", _place(deployment_id))
        await audit.record(connection, deed, now)


async def withdraw(
    engine: AsyncEngine, caller: Caller, deployment_id: UUID, now: datetime, reason: str = ""
) -> None:
    """Take a deployment off the market, again without effect: a provider its own, an operator any.

    Raises NotFound, NotAllowed.
    """
    provider_id = None
    if caller.role is not Role.OPERATOR:
        _require(caller, Role.PROVIDER)
        provider_id = caller.account_id
    detail = {"reason": reason} if reason else {}
    async with engine.begin() as connection:
        if await catalog.withdraw(connection, provider_id, deployment_id, now):
            deed = audit.Deed(caller.name, "withdraw_deployment", _place(deployment_id), detail)
            await audit.record(connection, deed, now)


async def _judge(
    record: DeploymentRecord, endpoints: list[Endpoint], policy: AddressPolicy
) -> tuple[ListingStatus, Seen]:
    proof = await prove(record, policy)
    if proof == APPROVAL_MISSING:
        return ListingStatus.AWAITING_APPROVAL, Seen([proof])
    if not proof.ok:
        return ListingStatus.FAILED, Seen([proof])
    probed = await probe(endpoints, policy)
    reports = [proof, *probed.reports, *map(_unexamined, _claiming(endpoints))]
    seen, failed = Seen(reports, probed.signatures), [each for each in reports if not each.ok]
    if not all(each.detail.startswith(NOT_CHECKED) for each in failed):
        return ListingStatus.FAILED, seen
    if failed and record.approved_by is None:
        return ListingStatus.AWAITING_APPROVAL, seen
    return ListingStatus.LISTED, seen


def _claiming(endpoints: list[Endpoint]) -> list[Endpoint]:
    """Return the endpoints whose claims no examination can put to the test."""
    return [each for each in endpoints if each.domains and form_of(each) is None]


def _unexamined(endpoint: Endpoint) -> ProbeReport:
    return ProbeReport(check="examination", ok=True, detail=f"{endpoint.name}: {NOT_EXAMINED}")


async def _audit_verdict(
    connection: AsyncConnection,
    record: DeploymentRecord,
    status: ListingStatus,
    author: str,
    now: datetime,
) -> None:
    before = record.deployment.status
    if status is not before:
        detail = {"from": before.value, "to": status.value}
        deed = audit.Deed(author, "verify_deployment", _place(record.deployment.id), detail)
        await audit.record(connection, deed, now)


def _require(caller: Caller, role: Role) -> None:
    if caller.role is not role:
        raise NotAllowed(
            f"Only a {role.value} may do that; this is a key of a {caller.role.value}."
        )


def _place(deployment_id: UUID) -> str:
    return f"deployments/{deployment_id}"
