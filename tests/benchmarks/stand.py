"""A stand for benchmarks: embedded servers apart, a funded key, endpoints at one upstream."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from broker.cli.local import OPERATOR
from broker.core.catalog import ListingStatus
from broker.embedded.postgres import EmbeddedPostgres
from broker.embedded.valkey import EmbeddedValkey
from broker.flows.access.issue_key import issue_key
from broker.flows.access.open_account import open_account
from broker.flows.money.topup import top_up
from broker.store.access.accounts import Account, Role
from broker.store.access.keys import KeyTerms
from broker.store.database import create_engine
from broker.store.market import catalog, deployments, listing
from broker.store.migrate import upgrade
from broker.store.sealing import Sealer
from pricing.money import NANOS_PER_USD
from provider_sdk.protocol import CallBand, DeploymentOffer, EndpointOffer, Kind, TokenBand
from tests.benchmarks.copies import copy
from tests.benchmarks.processes import tree_cpu_s

SECRET_KEY = "5e" * 32
CONSUMER = "bench"
FAMILY = "m"
BALANCE_USD = 1_000_000
CAPACITY = 10_000
KINDS = 3 * 7 * 17
"""Endpoints are of so many kinds, after which they repeat."""


@dataclass(frozen=True, slots=True)
class Stand:
    """What a broker process needs to be told, and the key to call it with."""

    postgres: EmbeddedPostgres
    valkey: EmbeddedValkey
    env: dict[str, str]
    key: str
    signing_keys: Mapping[str, str]
    """In hex, by deployment id: with them its agent signs heartbeats."""

    def cpu_s(self) -> float:
        """Return the CPU seconds that PostgreSQL and Valkey have used, ended backends included."""
        return sum(tree_cpu_s(server.child.pid) for server in (self.postgres, self.valkey))


@asynccontextmanager
async def open_stand(
    folder: Path, upstream_url: str, endpoints: int, kind: Kind = "openai"
) -> AsyncIterator[Stand]:
    """Start durable servers and list `endpoints` endpoints, all at `upstream_url`."""
    async with (
        EmbeddedPostgres(folder / "postgres") as postgres,
        EmbeddedValkey(folder / "valkey") as valkey,
    ):
        await upgrade(postgres.url)
        engine = create_engine(postgres.url, connections_max=2)
        try:
            provider = await _open(engine, "benchmark-provider", Role.PROVIDER)
            offers = [_offer(number, upstream_url, kind) for number in range(min(endpoints, KINDS))]
            signing_keys = await _list(engine, provider, offers, endpoints)
            await _open(engine, CONSUMER, Role.CONSUMER)
            amount = BALANCE_USD * NANOS_PER_USD
            await top_up(engine, OPERATOR, CONSUMER, amount, "benchmark", _now())
            key = await issue_key(engine, OPERATOR, CONSUMER, KeyTerms(), _now())
        finally:
            await engine.dispose()
        env = {
            "DATABASE_URL": postgres.url,
            "VALKEY_URL": valkey.url,
            "BROKER_SECRET_KEY": SECRET_KEY,
            "BROKER_ALLOW_NETWORKS": "127.0.0.0/8",
        }
        yield Stand(postgres, valkey, env, key.text, signing_keys)


async def _open(engine: AsyncEngine, name: str, role: Role) -> Account:
    return await open_account(engine, name, role, author=OPERATOR.name, now=_now())


async def _list(
    engine: AsyncEngine, provider: Account, offers: Sequence[DeploymentOffer], count: int
) -> dict[str, str]:
    """Register and list, without the proof and the probes, which the upstream knows nothing of.
    Return the signing keys of the deployments, in hex, by id."""
    sealer, signing_keys = Sealer(SECRET_KEY), {}
    async with engine.begin() as connection:
        for offer in offers:
            registered = await catalog.register(
                connection, provider.id, offer, sealer, (1_000, _now())
            )
            record = await deployments.find(
                connection, registered.deployment_id, sealer, provider_id=provider.id
            )
            await listing.set_verdict(connection, record, ListingStatus.LISTED, [])
            signing_keys[str(registered.deployment_id)] = registered.signing_key.hex()
        templates = [UUID(each) for each in signing_keys]
        signing_keys |= await copy(connection, templates, count, sealer)
    return signing_keys


def _offer(number: int, url: str, kind: Kind) -> DeploymentOffer:
    cents = 10 + number % 17
    by_token = TokenBand(
        floor_in="0.01",
        list_in=f"0.{cents}",
        ceiling_in="5",
        floor_out="0.01",
        list_out=f"0.{cents}",
        ceiling_out="5",
    )
    by_call = CallBand(floor_call="0.0001", list_call=f"0.00{cents}", ceiling_call="1")
    infers = kind == "kserve"
    endpoint = EndpointOffer(
        name=f"e{number}",
        model=FAMILY,
        tasks=["infer" if infers else "chat"],
        domains={"support": 0.8} if number % 3 else {},
        quality=0.5 + number % 7 / 20,
        context_length_tokens=8_192,
        price=by_call if infers else by_token,
    )
    return DeploymentOffer(
        name=f"d{number}", url=url, kind=kind, capacity=CAPACITY, endpoints=[endpoint]
    )


def _now() -> datetime:
    return datetime.now(UTC)
