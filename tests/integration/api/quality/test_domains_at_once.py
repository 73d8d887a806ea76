"""A domain that joins a large market is recognised at once, before all else is learned anew."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from broker.bootstrap import open_runtime
from broker.core.quality.groups import Groups
from broker.core.quality.syllabus import Domain
from broker.flows.runtime import Runtime
from broker.settings import Settings
from broker.store import changes
from broker.store.access.accounts import Role
from broker.store.quality import domains
from tests.integration.api.conftest import Person, SmallBroker
from tests.integration.api.listing import list_endpoints
from tests.integration.catalog.offers import endpoint_offer, open_account
from tests.integration.routing.examples import LAW
from tests.waiting import until

KINDS = range(60)
PROMPT = "May a landlord raise the rent before the contract ends?"


@pytest.fixture
async def broker(database_url: str, valkey_url: str) -> AsyncIterator[SmallBroker]:
    """A whole broker."""
    async with open_runtime(Settings(database_url, valkey_url, secret_key="ab" * 32)) as runtime:
        yield cast("SmallBroker", runtime)


def others() -> list[Domain]:
    """Sixty domains, each of a thing of its own."""
    return [
        Domain(f"thing {kind}", None, examples, "test", datetime.now(UTC))
        for kind in KINDS
        for examples in [tuple(f"How do I clean thing{kind:02} at {at}?" for at in range(20))]
    ]


def groups_of(runtime: Runtime) -> Groups | None:
    return runtime.market.lessons.groups if runtime.market.lessons is not None else None


async def test_a_domain_taught_beside_sixty_is_recognised_before_its_groups_are_made(
    broker: SmallBroker, operator: Person, consumer: Person
) -> None:
    runtime = cast("Runtime", broker)
    acme = await open_account(broker.engine, Role.PROVIDER, "acme")
    rest = endpoint_offer(name="rest", quality=0.6)
    await list_endpoints(broker, acme, rest, endpoint_offer(name="jurist", domains={"law": 0.95}))
    async with broker.engine.begin() as connection:
        for each in others():
            await domains.put(connection, each)
        await changes.announce(connection, changes.CATALOG)
    await until(lambda: groups_of(runtime) is not None)
    before = groups_of(runtime)

    async def first_known() -> Groups | None:
        # At each turn of the loop, so that none is missed.
        while "law" not in runtime.market.recogniser.names:  # type: ignore[union-attr]  # noqa: ASYNC110
            await asyncio.sleep(0)
        return groups_of(runtime)

    watching = asyncio.create_task(first_known())
    taught = await operator.http.put("/api/domains/law", json={"examples": LAW})
    assert taught.status_code == 200
    async with asyncio.timeout(20.0):
        assert await watching is before, "it goes by the groups that there were"

    request: dict[str, Any] = {
        "model": "auto",
        "messages": [{"role": "user", "content": PROMPT}],
        "max_tokens": 8,
    }
    told = (await consumer.http.post("/api/route", json={"request": request})).json()
    assert told["domain"] == "law"
    assert told["plan"][0]["endpoint"] == "acme/jurist", "what it claims of a new domain counts"

    def regrouped() -> bool:
        now = groups_of(runtime)
        return now is not before and now is not None and "law" in now.recogniser.names

    await until(regrouped)
