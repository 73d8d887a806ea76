"""Deployments: providers bring theirs to the market, operators look at all and approve."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import Literal
from uuid import UUID

from litestar import Controller, Response, delete, get, post
from litestar.params import FromPath, JSONBody

from broker.api import beside
from broker.api.callers import CHANGING, OPERATORS, PROVIDERS
from broker.api.large_bodies import OfferRequest
from broker.api.once import GivenOnce
from broker.api.parts import GivenCaller, GivenEngine, GivenParts, GivenTime, Parts
from broker.api.patience import VERIFICATIONS_PER_MINUTE, require_measure, unless_stopping
from broker.api.wire import Reply
from broker.core.catalog import Kind, ListingStatus
from broker.core.key_terms import Scope
from broker.flows.access.authenticate import Caller
from broker.flows.providers import enroll
from broker.flows.providers.read_deployments import read_deployments, why_absent
from broker.live.sheet import BeatSheet
from broker.store.market.deployments import DeploymentRecord
from provider_sdk.protocol import DeploymentOffer, ProbeReport, Registered, Verified

OFFER_BYTES_MAX = 64 << 20
"""A tokenizer is several megabytes, and a deployment may bring some."""


class DeploymentShown(Reply):
    """A deployment as it stands; its credential is never shown."""

    id: UUID
    provider: str
    name: str
    url: str
    kind: Kind
    capacity: int
    region: str
    retains_data: bool
    trains_on_data: bool
    retention_days: int
    proof: Literal["well-known", "dns", "credential"]
    status: ListingStatus
    absent: str | None
    """Why calls may pass it by though it is listed, such as heartbeats that are missing."""
    reports: list[ProbeReport]
    approved_by: str | None
    created_at: datetime
    updated_at: datetime


class DeploymentList(Reply):
    """Deployments, oldest first."""

    deployments: list[DeploymentShown]


class ProviderController(Controller):
    """`/api/provider/deployments`"""

    path = "/provider/deployments"
    guards = (PROVIDERS,)
    opt = {CHANGING: Scope.DEPLOYMENTS}  # noqa: RUF012 - as Litestar declares it
    tags = ("Providers",)

    @post(
        summary="Register a deployment, or tell its new terms",
        request_max_body_size=OFFER_BYTES_MAX,
        request_class=OfferRequest,
    )
    async def register(
        self,
        data: JSONBody[DeploymentOffer],
        parts: GivenParts,
        caller: GivenCaller,
        once: GivenOnce,
    ) -> Response[Registered]:
        desk = _desk(parts)
        return await once(lambda connection: enroll.register_in(connection, desk, caller, data))

    @post("/{deployment_id:uuid}/verify", summary="Have proof and probes made", status_code=200)
    async def verify(
        self, deployment_id: FromPath[UUID], parts: GivenParts, caller: GivenCaller
    ) -> Verified:
        await require_measure(parts, caller, "verifications", VERIFICATIONS_PER_MINUTE)
        return await unless_stopping(parts, enroll.verify(_desk(parts), caller, deployment_id))

    @get(summary="List the provider's deployments")
    async def list(self, parts: GivenParts, caller: GivenCaller) -> Response[DeploymentList]:
        return await _list(parts, caller)

    @delete("/{deployment_id:uuid}", summary="Withdraw a deployment")
    async def withdraw(
        self,
        deployment_id: FromPath[UUID],
        engine: GivenEngine,
        caller: GivenCaller,
        now: GivenTime,
    ) -> None:
        await enroll.withdraw(engine, caller, deployment_id, now)


class DeploymentController(Controller):
    """`/api/deployments`"""

    path = "/deployments"
    guards = (OPERATORS,)
    opt = {CHANGING: Scope.DEPLOYMENTS}  # noqa: RUF012 - as Litestar declares it
    tags = ("Operations",)

    @get(summary="List all deployments")
    async def list(self, parts: GivenParts, caller: GivenCaller) -> Response[DeploymentList]:
        return await _list(parts, caller)

    @post(
        "/{deployment_id:uuid}/approve",
        summary="Let an upstream credential pass for a proof",
        status_code=204,
    )
    async def approve(
        self,
        deployment_id: FromPath[UUID],
        engine: GivenEngine,
        caller: GivenCaller,
        now: GivenTime,
    ) -> None:
        await enroll.approve(engine, caller.name, deployment_id, now)

    @delete("/{deployment_id:uuid}", summary="Take any deployment off the market")
    async def withdraw(
        self,
        deployment_id: FromPath[UUID],
        engine: GivenEngine,
        caller: GivenCaller,
        now: GivenTime,
    ) -> None:
        await enroll.withdraw(engine, caller, deployment_id, now)


def _desk(parts: Parts) -> enroll.Enrolment:
    return enroll.Enrolment(
        engine=parts.engine,
        sealer=parts.sealer,
        policy=parts.addresses,
        take_bps=parts.settings.take_bps,
        clock=parts.clock,
        heartbeat_interval_ms=parts.heartbeats.interval_ms,
    )


async def _list(parts: Parts, caller: Caller) -> Response[DeploymentList]:
    found, heard = await read_deployments(parts.engine, caller), parts.live.beats.sheet()
    return await beside.answer(partial(_all_shown, found, heard))


def _all_shown(found: list[DeploymentRecord], heard: BeatSheet) -> DeploymentList:
    return DeploymentList(deployments=[_shown(each, why_absent(each, heard)) for each in found])


def _shown(record: DeploymentRecord, absent: str | None) -> DeploymentShown:
    deployment = record.deployment
    return DeploymentShown(
        id=deployment.id,
        provider=deployment.provider,
        name=deployment.name,
        url=deployment.url,
        kind=deployment.kind,
        capacity=deployment.capacity,
        region=deployment.region,
        retains_data=deployment.retains_data,
        trains_on_data=deployment.trains_on_data,
        retention_days=deployment.retention_days,
        proof=record.proof,
        status=deployment.status,
        absent=absent,
        reports=[*record.reports],
        approved_by=record.approved_by,
        created_at=record.created_at,
        updated_at=record.updated_at,
    )
