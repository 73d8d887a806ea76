"""Has a deployment prove its origin and show its endpoints at work; asks no database."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final, cast
from urllib.parse import urlsplit

import msgspec

from broker.core.catalog import Deployment, Endpoint, Kind
from broker.store.deployments import DeploymentRecord
from broker.upstream.addresses import AddressPolicy
from broker.upstream.probe import probe_dns, probe_kserve, probe_openai, probe_wellknown
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


async def probe(endpoints: Sequence[Endpoint], policy: AddressPolicy) -> list[ProbeReport]:
    """Have every endpoint do a piece of work; each report's check begins with the endpoint."""
    if not endpoints:
        return [ProbeReport(check="endpoints", ok=False, detail="There are none in force.")]
    places = asyncio.Semaphore(AT_ONCE)

    async def one(endpoint: Endpoint) -> list[ProbeReport]:
        async with places:
            reports = await _probe(endpoint, endpoint.deployment, policy)
        named = (f"{endpoint.name}: {each.check}" for each in reports)
        return [
            msgspec.structs.replace(each, check=check)
            for each, check in zip(reports, named, strict=True)
        ]

    try:
        async with asyncio.timeout(PROBED_WITHIN_S):
            found = await asyncio.gather(*map(one, endpoints))
    except TimeoutError:
        detail = f"The probes were not through after {PROBED_WITHIN_S:.0f} s."
        return [ProbeReport(check="endpoints", ok=False, detail=detail)]
    return [report for reports in found for report in reports]


async def _probe(
    endpoint: Endpoint, deployment: Deployment, policy: AddressPolicy
) -> list[ProbeReport]:
    url, credential, model = deployment.url, deployment.credential, endpoint.upstream_model
    if deployment.kind is Kind.KSERVE:
        return await probe_kserve(url, credential, model, endpoint.version, policy)
    tasks = cast(list[Task], sorted(endpoint.tasks))
    return await probe_openai(url, credential, model, tasks, policy)
