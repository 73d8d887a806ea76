"""Registration: the same offer changes nothing, a new one changes just what is new."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import msgspec
import pytest
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from broker.core.catalog import Endpoint, ListingStatus
from broker.errors import Conflict, NotFound, RequestMalformed
from broker.store import changes
from broker.store.access.accounts import Account, Role
from broker.store.market import catalog, deployments, listing
from broker.store.sealing import Sealer
from broker.store.tables import endpoints, offers
from pricing.tiers import Tier
from provider_sdk.protocol import DataPolicy, ProbeReport
from tests.integration.catalog.offers import (
    CALL_BAND,
    LATER,
    NOW,
    SEALER,
    TOKEN_BAND,
    endpoint_offer,
    enlist,
    offer,
    open_account,
    register,
)


async def listed_endpoints(engine: AsyncEngine, sealer: Sealer = SEALER) -> list[Endpoint]:
    async with engine.connect() as connection:
        return (await catalog.load_market(connection, sealer))[1]


async def count(engine: AsyncEngine, table) -> int:
    async with engine.connect() as connection:
        return (await connection.execute(select(func.count()).select_from(table))).scalar_one()


async def all_endpoints(engine: AsyncEngine):
    async with engine.connect() as connection:
        return (await connection.execute(select(endpoints))).all()


async def test_what_is_listed_comes_back_as_it_was_offered(engine, acme):
    firm = await open_account(engine, Role.CONSUMER, "firm")
    offered = offer(
        url="http://GPU1.acme.example:8000/",
        credential="s3cret",
        region="eu-north",
        data_policy=DataPolicy(retains_data=True, retention_days=30),
        endpoints=[
            endpoint_offer(
                upstream_model="org/tiny-law",
                domains={"law": 0.9},
                visible_to=["firm"],
                context_length_tokens=8192,
            )
        ],
    )
    registered = await register(engine, acme, offered)
    assert registered.status is ListingStatus.UNPROVEN
    assert await listed_endpoints(engine) == []
    async with engine.begin() as connection:
        await enlist(connection, registered)
    (endpoint,) = await listed_endpoints(engine)
    deployment = endpoint.deployment
    assert deployment.url == "http://gpu1.acme.example:8000"
    assert (deployment.provider, deployment.credential) == ("acme", "s3cret")
    assert (deployment.region, deployment.retains_data) == ("eu-north", True)
    assert deployment.retention_days == 30
    assert (endpoint.name, endpoint.upstream_model) == ("acme/law", "org/tiny-law")
    assert endpoint.visible_to == frozenset({firm.id})
    assert endpoint.domains == {"law": 0.9}
    assert (endpoint.band.floor_in_micros, endpoint.band.ceiling_out_micros) == (100_000, 6_000_000)
    assert endpoint.ledger_account == acme.ledger_account
    assert endpoint.take_bps == 1_000


async def test_the_same_offer_again_changes_nothing(engine, acme):
    first = await register(engine, acme, offer(credential="s3cret"))
    async with engine.begin() as connection:
        await enlist(connection, first)
    again = await register(engine, acme, offer(credential="s3cret"), LATER)
    assert not again.changed
    assert again.status is ListingStatus.LISTED
    assert (again.deployment_id, again.nonce) == (first.deployment_id, first.nonce)
    assert again.signing_key == first.signing_key
    assert await count(engine, endpoints) == 1
    assert await count(engine, offers) == 1


async def test_changed_terms_end_one_offer_and_begin_the_next(engine, acme):
    first = await register(engine, acme, offer())
    async with engine.begin() as connection:
        await enlist(connection, first)
    (before,) = await listed_endpoints(engine)
    dearer = msgspec.structs.replace(TOKEN_BAND, list_in="0.25")
    again = await register(engine, acme, offer(endpoints=[endpoint_offer(price=dearer)]), LATER)
    (after,) = await listed_endpoints(engine)
    assert again.changed
    assert again.status is ListingStatus.LISTED, "a price needs no new proof"
    assert (after.id, after.number) == (before.id, before.number)
    assert after.band.list_in_micros == 250_000
    async with engine.connect() as connection:
        rows = (await connection.execute(select(offers).order_by(offers.c.valid_from))).all()
    assert [(row.valid_from, row.valid_to) for row in rows] == [(NOW, LATER), (LATER, None)]


async def test_tiers_are_terms_like_others(engine, acme):
    tiered = offer(endpoints=[endpoint_offer(tiers={"priority": "1.5", "flex": "0.5"})])
    first = await register(engine, acme, tiered)
    async with engine.begin() as connection:
        await enlist(connection, first)
    (endpoint,) = await listed_endpoints(engine)
    assert endpoint.tiers == {Tier.PRIORITY: 15_000, Tier.FLEX: 5_000}
    assert not (await register(engine, acme, tiered, LATER)).changed
    assert (await register(engine, acme, offer(), LATER)).changed
    (endpoint,) = await listed_endpoints(engine)
    assert endpoint.tiers == {}
    unsound = offer(endpoints=[endpoint_offer(tiers={"flex": "2"})])
    with pytest.raises(RequestMalformed, match=r"endpoints\[0\]\.tiers\.flex"):
        await register(engine, acme, unsound, LATER)


async def test_terms_may_change_twice_though_a_clock_stands_still(engine, acme):
    await register(engine, acme, offer())
    for quality in (0.6, 0.7):
        changed = offer(endpoints=[endpoint_offer(quality=quality)])
        assert (await register(engine, acme, changed, NOW)).changed
    assert await count(engine, offers) == 3


@pytest.mark.parametrize(
    "change",
    [
        {"model": "other"},
        {"version": "2"},
        {"upstream_model": "org/other"},
        {"tasks": ["completion"]},
        {"context_length_tokens": 4096},
    ],
)
async def test_another_make_is_another_endpoint_which_must_be_verified(engine, acme, change):
    first = await register(engine, acme, offer())
    async with engine.begin() as connection:
        await enlist(connection, first)
    (before,) = await listed_endpoints(engine)
    again = await register(engine, acme, offer(endpoints=[endpoint_offer(**change)]), LATER)
    assert again.status is ListingStatus.UNPROVEN
    async with engine.begin() as connection:
        await enlist(connection, again)
    (after,) = await listed_endpoints(engine)
    assert after.name == before.name
    assert after.number != before.number


async def test_endpoints_absent_from_the_offer_are_retired(engine, acme):
    two = [endpoint_offer(), endpoint_offer(name="medicine")]
    first = await register(engine, acme, offer(endpoints=two))
    async with engine.begin() as connection:
        await enlist(connection, first)
    again = await register(engine, acme, offer(endpoints=two[1:]), LATER)
    assert again.status is ListingStatus.LISTED
    assert [each.name for each in await listed_endpoints(engine)] == ["acme/medicine"]


@pytest.mark.parametrize(
    "change", [{"url": "http://gpu2.acme.example"}, {"credential": "new"}, {"proof": "dns"}]
)
async def test_a_changed_origin_or_credential_must_be_proven_anew(engine, acme, change):
    first = await register(engine, acme, offer())
    async with engine.begin() as connection:
        await enlist(connection, first)
    again = await register(engine, acme, offer(**change), LATER)
    assert again.status is ListingStatus.UNPROVEN
    assert again.nonce == first.nonce
    assert await listed_endpoints(engine) == []


async def test_more_capacity_needs_no_new_proof(engine, acme):
    first = await register(engine, acme, offer())
    async with engine.begin() as connection:
        await enlist(connection, first)
    again = await register(engine, acme, offer(capacity=8), LATER)
    assert again.status is ListingStatus.LISTED
    assert [each.deployment.capacity for each in await listed_endpoints(engine)] == [8]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"url": "ftp://gpu1.acme.example"}, "url"),
        ({"url": "http://user:pass@gpu1.acme.example"}, "url"),
        ({"url": "http://gpu1.acme.example/v1"}, "url"),
        ({"url": "http://gpu1.acme.example:99999"}, "url"),
        ({"proof": "credential"}, "credential"),
        ({"credential": "two\r\nlines"}, "credential"),
        ({"endpoints": [endpoint_offer(), endpoint_offer()]}, "endpoints[1].name"),
        ({"endpoints": [endpoint_offer(model="rival/law")]}, "endpoints[0].model"),
        ({"endpoints": [endpoint_offer(model="auto")]}, "endpoints[0].model"),
        ({"endpoints": [endpoint_offer(model=" tiny-law")]}, "endpoints[0].model"),
        ({"endpoints": [endpoint_offer(version="1 ")]}, "endpoints[0].version"),
        ({"region": "e\N{FULLWIDTH LATIN SMALL LETTER U}"}, "region"),
        ({"endpoints": [endpoint_offer(tasks=["infer"])]}, "endpoints[0].tasks"),
        ({"endpoints": [endpoint_offer(visible_to=["nobody"])]}, "endpoints[0].visible_to"),
        (
            {"endpoints": [endpoint_offer(tokenizer_json="x" * (2**25 + 1))]},
            "endpoints[0].tokenizer_json",
        ),
    ],
)
async def test_a_faulty_offer_is_refused_with_the_name_of_the_field(engine, acme, change, field):
    with pytest.raises(RequestMalformed) as refused:
        await register(engine, acme, offer(**change))
    assert refused.value.facts["field"] == field
    assert refused.value.detail.startswith(field)


@pytest.mark.parametrize(
    ("price", "field"),
    [
        (msgspec.structs.replace(TOKEN_BAND, floor_in="0"), "floor_in"),
        (msgspec.structs.replace(TOKEN_BAND, list_in="0.05"), "list_in"),
        (msgspec.structs.replace(TOKEN_BAND, ceiling_out="0.5"), "ceiling_out"),
        (msgspec.structs.replace(TOKEN_BAND, ceiling_out="99999999"), "ceiling_out"),
        (msgspec.structs.replace(TOKEN_BAND, list_in="0.1234567"), "list_in"),
        (msgspec.structs.replace(CALL_BAND, floor_call="0"), "floor_call"),
        (
            msgspec.structs.replace(CALL_BAND, floor_call="0", list_call="0", ceiling_call="0"),
            "floor_call",
        ),
    ],
)
async def test_a_faulty_band_is_refused_with_the_name_of_the_price(engine, acme, price, field):
    with pytest.raises(RequestMalformed) as refused:
        await register(engine, acme, offer(endpoints=[endpoint_offer(price=price)]))
    assert refused.value.facts["field"] == f"endpoints[0].price.{field}"


async def test_a_name_may_be_on_one_deployment_of_a_provider_only(engine, acme):
    await register(engine, acme, offer())
    with pytest.raises(RequestMalformed, match=r"endpoints\[0\].name"):
        await register(engine, acme, offer(name="gpu2"))
    rival = await open_account(engine, Role.PROVIDER, "rival")
    assert (await register(engine, rival, offer())).changed


async def test_another_providers_deployment_is_not_found(engine, acme):
    registered = await register(engine, acme, offer())
    rival = await open_account(engine, Role.PROVIDER, "rival")
    async with engine.begin() as connection:
        with pytest.raises(NotFound):
            await deployments.find(
                connection, registered.deployment_id, SEALER, provider_id=rival.id
            )
        with pytest.raises(NotFound):
            await catalog.withdraw(connection, rival.id, registered.deployment_id, NOW)
        with pytest.raises(NotFound):
            await deployments.find(connection, uuid4(), SEALER)


async def test_a_withdrawn_deployment_may_come_back_and_proves_itself_anew(engine, acme):
    first = await register(engine, acme, offer())
    async with engine.begin() as connection:
        await enlist(connection, first)
        assert await catalog.withdraw(connection, acme.id, first.deployment_id, NOW)
        assert not await catalog.withdraw(connection, acme.id, first.deployment_id, NOW)
    assert await listed_endpoints(engine) == []
    again = await register(engine, acme, offer(), LATER)
    assert again.status is ListingStatus.UNPROVEN
    assert again.deployment_id == first.deployment_id


@pytest.mark.parametrize("leaves", ["withdrawn", "renamed", "replaced"])
async def test_an_endpoint_that_leaves_and_comes_back_is_the_same_and_keeps_its_record(
    engine, acme, leaves
):
    first = await register(engine, acme, offer())
    (before,) = await all_endpoints(engine)
    if leaves == "withdrawn":
        async with engine.begin() as connection:
            assert await catalog.withdraw(connection, acme.id, first.deployment_id, NOW)
    else:
        change = {"name": "other"} if leaves == "renamed" else {"version": "2"}
        await register(engine, acme, offer(endpoints=[endpoint_offer(**change)]))
    dearer = msgspec.structs.replace(TOKEN_BAND, ceiling_out="9")
    again = await register(engine, acme, offer(endpoints=[endpoint_offer(price=dearer)]), NOW)
    assert again.status is ListingStatus.UNPROVEN
    (after,) = [each for each in await all_endpoints(engine) if each.retired_at is None]
    assert (after.id, after.number) == (before.id, before.number)
    async with engine.begin() as connection:
        await enlist(connection, again)
    (listed,) = await listed_endpoints(engine)
    assert listed.band.ceiling_out_micros == 9_000_000


async def test_an_endpoint_of_another_make_is_another(engine, acme):
    await register(engine, acme, offer())
    for change in ({"version": "2"}, {"context_length_tokens": 99}, {"tokenizer_json": "{}"}):
        await register(engine, acme, offer(endpoints=[endpoint_offer(**change)]))
    made = await all_endpoints(engine)
    assert len({each.id for each in made}) == 4


async def test_a_verdict_on_terms_that_changed_meanwhile_does_not_count(engine, acme):
    registered = await register(engine, acme, offer())
    async with engine.connect() as connection:
        seen = await deployments.find(connection, registered.deployment_id, SEALER)
    await register(engine, acme, offer(url="http://elsewhere.example"), NOW)
    async with engine.begin() as connection:
        with pytest.raises(Conflict):
            await listing.set_verdict(connection, seen, ListingStatus.LISTED, [])
    assert await listed_endpoints(engine) == []


async def test_reports_are_kept_with_the_verdict(engine, acme):
    registered = await register(engine, acme, offer())
    report = ProbeReport(check="models", ok=False, detail="no model 'tiny-law'", latency_ms=3.5)
    async with engine.begin() as connection:
        seen = await deployments.find(connection, registered.deployment_id, SEALER)
        await listing.set_verdict(connection, seen, ListingStatus.FAILED, [report])
        (record,) = await deployments.list_deployments(connection, provider_id=acme.id)
    assert record.reports == (report,)
    assert record.deployment.status is ListingStatus.FAILED


async def test_registrations_at_once_make_one_deployment(engine, acme):
    registered = await asyncio.gather(*(register(engine, acme, offer()) for _ in range(6)))
    assert len({each.deployment_id for each in registered}) == 1
    assert sum(each.changed for each in registered) == 1
    assert await count(engine, endpoints) == 1


async def test_a_credential_under_a_lost_key_leaves_out_its_deployment_alone(engine, acme):
    for name, credential in (("gpu1", "s3cret"), ("gpu2", None)):
        endpoint = endpoint_offer(name=f"law-{name}")
        offered = offer(name=name, credential=credential, endpoints=[endpoint])
        registered = await register(engine, acme, offered)
        async with engine.begin() as connection:
            await enlist(connection, registered)
    stranger = Sealer("cd" * 32)
    assert [each.name for each in await listed_endpoints(engine, stranger)] == ["acme/law-gpu2"]
    rotated = Sealer("cd" * 32, ("ab" * 32,))
    assert len(await listed_endpoints(engine, rotated)) == 2


async def test_a_change_is_announced_once_it_is_committed(engine, acme: Account, database_url):
    heard: list[str] = []
    listener = await changes.Listener.connect(database_url, heard.append)
    try:
        async with engine.begin() as connection:
            await catalog.register(connection, acme.id, offer(), SEALER, (1_000, NOW))
            assert await listener.alive(5.0)
            assert heard == []
        await register(engine, acme, offer(), LATER)
        async with asyncio.timeout(10):
            while not heard:
                await listener.alive(5.0)
        assert heard == [changes.CATALOG], "the second registration changed nothing"
    finally:
        listener.close()
