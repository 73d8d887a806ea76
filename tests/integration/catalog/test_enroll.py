"""A deployment comes to the market: it proves itself and is probed, and what failed is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import ip_network
from uuid import UUID, uuid4

import msgspec
import pytest
from sqlalchemy import text

from broker.core.catalog import ListingStatus
from broker.errors import Conflict, NotAllowed, NotFound
from broker.flows.access.authenticate import Caller
from broker.flows.providers import enroll
from broker.flows.providers.enroll import DEPLOYMENTS_MAX, ENDPOINTS_MAX, Enrolment
from broker.store.access import audit
from broker.store.access.accounts import Role
from broker.store.market import catalog, deployments
from broker.upstream.addresses import AddressPolicy
from provider_sdk.protocol import DeploymentOffer, Registered, Verified
from provider_sdk.testing.scripted import Script, ScriptedProvider
from tests.integration.catalog.offers import (
    NOW,
    SEALER,
    TAKE_BPS,
    endpoint_offer,
    offer,
    open_account,
)
from tests.waiting import until

LOOPBACK = AddressPolicy([ip_network("127.0.0.0/8")])


@pytest.fixture
async def server() -> AsyncIterator[ScriptedProvider]:
    """A server with one model, which proves nothing yet."""
    async with ScriptedProvider(Script(models=("tiny-law",))) as server:
        yield server


@pytest.fixture
def desk(engine) -> Enrolment:
    """Where deployments are enrolled; loopback is allowed."""
    return Enrolment(engine, SEALER, LOOPBACK, TAKE_BPS, lambda: datetime.now(UTC), lambda: 1_000)


@pytest.fixture
def provider(acme) -> Caller:
    """The provider, calling with a key."""
    return Caller(acme.id, acme.name, acme.role)


async def enroll_and_verify(desk, provider, server, **changes) -> tuple[Registered, Verified]:
    """Register the server, have it answer its nonce, verify it."""
    registered = await enroll.register(desk, provider, offer(url=server.url, **changes))
    server.script = msgspec.structs.replace(server.script, nonce=registered.nonce)
    return registered, await enroll.verify(desk, provider, UUID(registered.deployment_id))


async def listed(desk: Enrolment) -> list[str]:
    async with desk.engine.connect() as connection:
        return [each.name for each in (await catalog.load_market(connection, SEALER))[1]]


def failures(verified: Verified) -> list[str]:
    return [f"{each.check}: {each.detail}" for each in verified.reports if not each.ok]


async def test_a_deployment_that_proves_itself_and_works_is_listed(desk, provider, server):
    registered, verified = await enroll_and_verify(desk, provider, server)
    assert registered.status == "unproven"
    assert len(bytes.fromhex(registered.signing_key)) == 32
    assert registered.heartbeat_interval_ms == 1_000
    assert (verified.status, failures(verified)) == ("listed", [])
    assert any(each.check == "acme/law: POST /v1/chat/completions" for each in verified.reports)
    assert await listed(desk) == ["acme/law"]
    again = await enroll.register(desk, provider, offer(url=server.url))
    assert again.status == "listed"
    assert again.nonce == registered.nonce


async def test_a_wrong_nonce_is_told_and_nothing_is_probed(desk, provider, server):
    server.script = Script(models=("tiny-law",), nonce="another's")
    registered = await enroll.register(desk, provider, offer(url=server.url))
    verified = await enroll.verify(desk, provider, UUID(registered.deployment_id))
    assert verified.status == "failed"
    (failure,) = failures(verified)
    assert "another's" in failure
    assert server.calls == 0
    assert await listed(desk) == []


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ({"models": ("other",)}, ["acme/law", "tiny-law", "other"]),
        ({"status": 500}, ["POST /v1/chat/completions", "500"]),
        ({"malformed_json": True}, ["POST /v1/chat/completions"]),
        ({"api_key": "s3cret"}, ["401"]),
    ],
)
async def test_a_failing_probe_says_exactly_what_failed(desk, provider, server, script, words):
    server.script = Script(**({"models": ("tiny-law",)} | script))
    _, verified = await enroll_and_verify(desk, provider, server)
    assert verified.status == "failed"
    told = "\n".join(failures(verified))
    assert all(word in told for word in words), told
    assert await listed(desk) == []
    async with desk.engine.connect() as connection:
        (record,) = await deployments.list_deployments(connection)
    assert list(record.reports) == verified.reports


async def test_a_server_that_is_away_fails_with_the_reason(desk, provider, server):
    registered = await enroll.register(desk, provider, offer(url=server.url))
    server.kill()
    verified = await enroll.verify(desk, provider, UUID(registered.deployment_id))
    assert verified.status == "failed"
    assert "Connect" in failures(verified)[0]


async def test_a_private_address_is_refused_before_anything_is_sent(desk, provider, server):
    strict = replace(desk, policy=AddressPolicy())
    _, verified = await enroll_and_verify(strict, provider, server)
    assert verified.status == "failed"
    assert "not allowed" in failures(verified)[0]
    assert not server.received


async def test_a_listed_deployment_that_fails_is_listed_no_more_until_it_works(
    desk, provider, server
):
    registered, _ = await enroll_and_verify(desk, provider, server)
    deployment_id = UUID(registered.deployment_id)
    working = server.script
    server.script = msgspec.structs.replace(working, status=500)
    assert (await enroll.verify(desk, provider, deployment_id)).status == "failed"
    assert await listed(desk) == []
    server.script = working
    assert (await enroll.verify(desk, provider, deployment_id)).status == "listed"
    assert await listed(desk) == ["acme/law"]


async def test_one_bad_endpoint_is_named_among_good_ones(desk, provider, server):
    endpoints = [endpoint_offer(), endpoint_offer(name="med", model="tiny-med")]
    _, verified = await enroll_and_verify(desk, provider, server, endpoints=endpoints)
    assert verified.status == "failed"
    assert failures(verified)
    assert all(each.startswith("acme/med: ") for each in failures(verified))


async def test_a_mere_credential_waits_for_an_operator(desk, provider, server):
    server.script = Script(models=("tiny-law",), api_key="s3cret")
    offered = offer(url=server.url, proof="credential", credential="s3cret")
    registered = await enroll.register(desk, provider, offered)
    deployment_id = UUID(registered.deployment_id)
    waiting = await enroll.verify(desk, provider, deployment_id)
    assert waiting.status == "awaiting_approval"
    assert server.calls == 0
    await enroll.approve(desk.engine, "operator", deployment_id, NOW)
    assert await listed(desk) == []
    verified = await enroll.verify(desk, provider, deployment_id)
    assert (verified.status, failures(verified)) == ("listed", [])
    moved = msgspec.structs.replace(offered, url=f"{server.url}/elsewhere")
    await enroll.register(desk, provider, moved)
    again = await enroll.verify(desk, provider, deployment_id)
    assert again.status == "awaiting_approval", "the approval was for the former address"


async def test_where_a_proof_is_due_there_is_nothing_to_approve(desk, provider, server):
    registered = await enroll.register(desk, provider, offer(url=server.url))
    with pytest.raises(Conflict):
        await enroll.approve(desk.engine, "operator", UUID(registered.deployment_id), NOW)


async def test_a_triton_server_is_probed_in_its_own_words(desk, provider):
    script = Script(kind="kserve", models=("tiny-law",))
    async with ScriptedProvider(script) as server:
        endpoints = [endpoint_offer(tasks=["infer"], domains={"law": 0.9})]
        _, verified = await enroll_and_verify(
            desk, provider, server, kind="kserve", endpoints=endpoints
        )
    assert (verified.status, failures(verified)) == ("listed", [])
    assert "examination" not in {each.check for each in verified.reports}, "it can be examined"


async def test_a_model_that_could_not_be_called_waits_for_an_operator(desk, provider):
    script = Script(kind="kserve", models=("tiny-law",), datatype="FP7")
    async with ScriptedProvider(script) as server:
        endpoints = [endpoint_offer(tasks=["infer"])]
        registered, waiting = await enroll_and_verify(
            desk, provider, server, kind="kserve", endpoints=endpoints
        )
        assert waiting.status == "awaiting_approval"
        [told] = failures(waiting)
        assert "/infer: not checked: " in told
        assert await listed(desk) == []
        deployment_id = UUID(registered.deployment_id)
        await enroll.approve(desk.engine, "operator", deployment_id, NOW)
        verified = await enroll.verify(desk, provider, deployment_id)
    assert (verified.status, failures(verified)) == ("listed", [told])


async def test_a_withdrawn_deployment_must_register_before_it_is_verified(desk, provider, server):
    registered, _ = await enroll_and_verify(desk, provider, server)
    deployment_id = UUID(registered.deployment_id)
    await enroll.withdraw(desk.engine, provider, deployment_id, NOW)
    await enroll.withdraw(desk.engine, provider, deployment_id, NOW)
    assert await listed(desk) == []
    with pytest.raises(Conflict):
        await enroll.verify(desk, provider, deployment_id)
    await enroll.register(desk, provider, offer(url=server.url))
    assert (await enroll.verify(desk, provider, deployment_id)).status == "listed"


async def test_only_its_provider_may_touch_a_deployment(desk, provider, server, engine):
    registered = await enroll.register(desk, provider, offer(url=server.url))
    deployment_id = UUID(registered.deployment_id)
    other = await open_account(engine, Role.PROVIDER, "rival")
    rival = Caller(other.id, other.name, other.role)
    with pytest.raises(NotFound):
        await enroll.verify(desk, rival, deployment_id)
    with pytest.raises(NotFound):
        await enroll.withdraw(engine, rival, deployment_id, NOW)
    consumer = Caller(other.id, "firm", Role.CONSUMER)
    with pytest.raises(NotAllowed):
        await enroll.register(desk, consumer, offer(url=server.url))


async def test_an_operator_takes_any_deployment_off_the_market_and_the_log_tells_why(
    desk, provider, server
):
    registered, _ = await enroll_and_verify(desk, provider, server)
    deployment_id = UUID(registered.deployment_id)
    operator = Caller(provider.account_id, "boss", Role.OPERATOR)
    await enroll.withdraw(desk.engine, operator, deployment_id, NOW, "random words")
    async with desk.engine.connect() as connection:
        (record,) = await deployments.list_deployments(connection)
        newest = (await audit.list_entries(connection))[0].deed
    assert record.deployment.status is ListingStatus.WITHDRAWN
    assert (newest.action, newest.author) == ("withdraw_deployment", "boss")
    assert newest.detail == {"reason": "random words"}
    with pytest.raises(NotFound):
        await enroll.withdraw(desk.engine, operator, uuid4(), NOW)


async def test_the_audit_log_tells_the_way_to_the_market(desk, provider, server):
    await enroll_and_verify(desk, provider, server)
    await enroll.register(desk, provider, offer(url=server.url))
    async with desk.engine.connect() as connection:
        entries = await audit.list_entries(connection)
    assert [each.deed.action for each in entries] == ["verify_deployment", "register_deployment"]
    assert entries[0].deed.detail == {"from": "unproven", "to": ListingStatus.LISTED.value}


async def test_terms_that_change_under_a_verification_void_it(desk, provider, server):
    server.script = msgspec.structs.replace(server.script, stall=True)
    registered = await enroll.register(desk, provider, offer(url=server.url))
    server.script = msgspec.structs.replace(server.script, nonce=registered.nonce)
    deployment_id = UUID(registered.deployment_id)
    verification = asyncio.create_task(enroll.verify(desk, provider, deployment_id))
    await until(lambda: server.calls)
    async with ScriptedProvider() as elsewhere:
        await enroll.register(desk, provider, offer(url=elsewhere.url))
    server.kill()
    with pytest.raises(Conflict):
        await verification
    async with desk.engine.connect() as connection:
        (record,) = await deployments.list_deployments(connection)
    assert record.deployment.status is ListingStatus.UNPROVEN


async def copied(desk, table: str, of: str, count: int, **values: str) -> None:
    """Put so many copies of a row beside it, but for these columns."""
    async with desk.engine.begin() as connection:
        named = "SELECT string_agg(column_name, ', ') FROM information_schema.columns"
        columns = await connection.scalar(
            text(f"{named} WHERE table_name = :table AND is_identity = 'NO'"), {"table": table}
        )
        taken = ", ".join(values.get(each, each) for each in columns.split(", "))
        await connection.execute(
            text(
                f"INSERT INTO {table} ({columns}) SELECT {taken} FROM {table},"
                f" generate_series(1, {count}) AS n WHERE name = '{of}'"
            )
        )


async def test_an_account_has_so_many_deployments_and_no_more(desk, provider):
    registered = await enroll.register(desk, provider, offer(name="gpu"))
    mine = {"id": "uuidv7()", "name": "'gpu' || n", "nonce": "nonce || n"}
    await copied(desk, "deployments", "gpu", DEPLOYMENTS_MAX - 1, **mine)
    with pytest.raises(Conflict) as refused:
        await enroll.register(desk, provider, offer(name="one-more"))
    assert refused.value.code == "deployments_too_many"
    assert (await enroll.register(desk, provider, offer(name="gpu", capacity=9))).nonce
    withdrawn = UUID(registered.deployment_id)
    await enroll.withdraw(desk.engine, provider, withdrawn, datetime.now(UTC))
    more = offer(name="one-more", endpoints=[endpoint_offer(name="other")])
    assert (await enroll.register(desk, provider, more)).nonce


async def test_an_account_has_so_many_endpoints_and_no_more(desk, provider):
    registered = await enroll.register(desk, provider, offer(name="gpu"))
    mine = {"id": "uuidv7()", "name": "'law' || n"}
    await copied(desk, "endpoints", "law", ENDPOINTS_MAX - 1, **mine)
    more = [endpoint_offer(name="other")]
    with pytest.raises(Conflict) as refused:
        await enroll.register(desk, provider, offer(name="one-more", endpoints=more))
    assert refused.value.code == "endpoints_too_many"
    withdrawn = UUID(registered.deployment_id)
    await enroll.withdraw(desk.engine, provider, withdrawn, datetime.now(UTC))
    assert (await enroll.register(desk, provider, offer(name="one-more", endpoints=more))).nonce


async def test_tokenizers_of_an_account_have_so_many_bytes_and_no_more(desk, provider):
    text = '{"model": {}}'
    desk = replace(desk, tokenizers_bytes_max=2 * len(text))

    def counted(name: str, *endpoints: str) -> DeploymentOffer:
        offered = [endpoint_offer(name=each, tokenizer_json=text) for each in endpoints]
        return offer(name=name, endpoints=offered)

    registered = await enroll.register(desk, provider, counted("gpu", "law", "tax"))
    with pytest.raises(Conflict) as refused:
        await enroll.register(desk, provider, counted("gpu2", "med"))
    assert refused.value.code == "tokenizers_too_large"
    plain = offer(name="gpu2", endpoints=[endpoint_offer(name="med")])
    assert (await enroll.register(desk, provider, plain)).nonce
    assert (await enroll.register(desk, provider, counted("gpu", "law", "tax"))).nonce
    await enroll.withdraw(desk.engine, provider, UUID(registered.deployment_id), datetime.now(UTC))
    assert (await enroll.register(desk, provider, counted("gpu3", "law", "tax"))).nonce
