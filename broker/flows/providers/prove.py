"""Has a deployment prove its origin and show its endpoints at work; asks no database."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, cast
from urllib.parse import urlsplit
from uuid import UUID

import msgspec

from broker.core.catalog import Deployment, Endpoint, Kind
from broker.core.wire.signature import Signature
from broker.store.market.deployments import DeploymentRecord
from broker.upstream.addresses import AddressPolicy
from broker.upstream.probe import probe_dns, probe_kserve, probe_openai, probe_wellknown
from broker.upstream.probe_kserve import Probed
from provider_sdk.protocol import ProbeReport, Task

AT_ONCE: Final = 4
"""Endpoints of one deployment that are probed side by side."""
PROBED_WITHIN_S: Final = 300.0

APPROVAL_MISSING: Final = ProbeReport(
    check="approval",
    ok=False,
    detail="A credential proves little: an operator must approve this deployment.",
)


async def prove(record: DeploymentRecord, policy: AddressPolicy) -> ProbeReport:
    """Check that whoever registered the deployment controls its origin."""
    url = record.deployment.url
    if record.proof == "well-known":
        return await probe_wellknown(url, record.nonce, policy)
    if record.proof == "dns":
        return await probe_dns(urlsplit(url).hostname or "", record.nonce)
    if record.approved_by is None:
        return APPROVAL_MISSING
    return ProbeReport(check="approval", ok=True, detail=f"approved by {record.approved_by}")


@dataclass(frozen=True, slots=True)
class Seen:
    """What was found of endpoints: reports, and what models say that they take and give."""

    reports: list[ProbeReport]
    signatures: Mapping[UUID, Signature] = field(default_factory=dict)


async def probe(endpoints: Sequence[Endpoint], policy: AddressPolicy) -> Seen:
    """Have every endpoint do a piece of work; each report's check begins with the endpoint."""
    if not endpoints:
        return Seen([ProbeReport(check="endpoints", ok=False, detail="There are none in force.")])
    places = asyncio.Semaphore(AT_ONCE)

    async def one(endpoint: Endpoint) -> Probed:
        async with places:
            return await _probe(endpoint, endpoint.deployment, policy)

    try:
        async with asyncio.timeout(PROBED_WITHIN_S):
            found = await asyncio.gather(*map(one, endpoints))
    except TimeoutError:
        detail = f"The probes were not through after {PROBED_WITHIN_S:.0f} s."
        return Seen([ProbeReport(check="endpoints", ok=False, detail=detail)])
    each_found = list(zip(endpoints, found, strict=True))
    return Seen(
        [
            msgspec.structs.replace(report, check=f"{endpoint.name}: {report.check}")
            for endpoint, probed in each_found
            for report in probed.reports
        ],
        {
            endpoint.id: probed.signature
            for endpoint, probed in each_found
            if probed.signature is not None
        },
    )


async def _probe(endpoint: Endpoint, deployment: Deployment, policy: AddressPolicy) -> Probed:
    url, credential, model = deployment.url, deployment.credential, endpoint.upstream_model
    if deployment.kind is Kind.KSERVE:
        return await probe_kserve(url, credential, model, endpoint.version, policy)
    tasks = cast(list[Task], sorted(endpoint.tasks))
    return Probed(await probe_openai(url, credential, model, tasks, policy), None)
