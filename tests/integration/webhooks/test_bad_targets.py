"""Targets that hang, redirect, drip, or fail for days: nobody else waits, and the owner is told."""

from __future__ import annotations

import asyncio
import contextlib

import asyncpg
import pytest
from sqlalchemy import text

from broker.core.webhooks import Patience
from broker.errors import Conflict, RequestMalformed
from broker.flows.webhooks.deliver_webhooks import AT_ONCE, LEASED_S
from broker.flows.webhooks.replay_events import replay_events
from broker.flows.webhooks.subscribe import WEBHOOKS_MAX, check_target, enable
from broker.jobs.room import Room
from broker.jobs.webhooks import purge
from broker.settings import Settings
from broker.store.access import accounts
from broker.store.access.accounts import Account, Role
from broker.store.webhooks import deliveries
from broker.upstream.addresses import AddressPolicy
from tests.integration.webhooks.office import LOOPBACK, Office, caller
from tests.integration.webhooks.target import BROKEN, OK, Answer, Target, answer
from tests.integration.webhooks.target import target as a_target
from tests.waiting import until

PUBLIC = AddressPolicy(())


async def fault(office: Office) -> tuple[str | None, int | None]:
    [row] = await office.rows("SELECT fault, status FROM webhook_deliveries")
    return row.fault, row.status


async def test_a_target_that_hangs_keeps_nobody_else_waiting(
    office: Office, shop: Account, target: Target
) -> None:
    async with a_target() as hanging:
        hanging.answers = lambda _: None
        for _ in range(3):
            await office.subscribe(shop, hanging.url)
        await office.subscribe(shop, target.url)
        for number in range(20):
            await office.tell(shop, at=str(number))
        courier = office.another_courier(patience=Patience(spared_from=1))
        assert await courier.look() == 4
        await until(lambda: len(target.got) == 20)
        assert hanging.under_way == 3 * AT_ONCE, "they hang still"
        await courier.idle()
    assert len(set(target.ids)) == 20
    assert target.most_at_once <= AT_ONCE


async def test_a_redirect_is_a_failure_and_is_not_followed(
    office: Office, shop: Account, target: Target
) -> None:
    async with a_target() as inside:
        target.answers = lambda _: answer(307, f"location: {inside.url}")
        await office.subscribe(shop, target.url)
        await office.tell(shop)
        await office.round()
        assert inside.connections == 0
    assert await fault(office) == ("redirected", 307)


async def test_of_an_answer_the_status_counts(office: Office, shop: Account) -> None:
    said: list[tuple[Answer, str | None, int | None]] = [
        (None, "total_timeout", None),
        (answer(204), None, 204),
        (BROKEN, "bad_status", 500),
        (b"SSH-2.0-no\r\n\r\n", "malformed", None),
        (b"HTTP/1.1 200 X\r\ncontent-length: 99\r\n\r\ndripping", None, 200),
        (answer(200, body=b"x" * 10_000_000), None, 200),
    ]
    async with contextlib.AsyncExitStack() as stack:
        expected = {}
        for words, fault, status in said:
            target = await stack.enter_async_context(a_target())
            target.answers = lambda _, words=words: words  # type: ignore[misc]
            made = await office.subscribe(shop, target.url)
            expected[made.webhook.id] = (fault, status)
        await office.tell(shop)
        await office.courier.look()
        await office.courier.idle()
    rows = await office.rows("SELECT webhook_id, fault, status FROM webhook_deliveries")
    assert {row.webhook_id: (row.fault, row.status) for row in rows} == expected


async def test_a_private_address_is_refused_at_delivery_too(
    office: Office, shop: Account, target: Target
) -> None:
    """Such as that of a name which pointed elsewhere when the webhook was made."""
    await office.subscribe(shop, target.url)
    await office.tell(shop)
    await office.round(office.another_courier(addresses=PUBLIC))
    assert target.connections == 0
    assert await fault(office) == ("address_refused", None)


@pytest.mark.parametrize(
    ("url", "policy", "code"),
    [
        ("https://127.0.0.1/x", PUBLIC, "webhook_address_refused"),
        ("https://localhost/x", PUBLIC, "webhook_address_refused"),
        ("https://169.254.169.254/latest", PUBLIC, "webhook_address_refused"),
        ("https://[::ffff:10.0.0.1]/x", PUBLIC, "webhook_address_refused"),
        ("https://0x7f000001/x", PUBLIC, "webhook_address_refused"),
        ("http://93.184.216.34/x", LOOPBACK, "https_required"),
        ("https://no-such-host.invalid/x", PUBLIC, "webhook_unresolved"),
        ("ftp://93.184.216.34/x", PUBLIC, "webhook_url_malformed"),
        ("https://user:secret@93.184.216.34/x", PUBLIC, "webhook_url_malformed"),
        ("https://93.184.216.34/x#y", PUBLIC, "webhook_url_malformed"),
        ("https:///x", PUBLIC, "webhook_url_malformed"),
        ("https://93.184.216.34:99999/", PUBLIC, "webhook_url_malformed"),
        ("no url", PUBLIC, "webhook_url_malformed"),
        ("https://93.184.216.34/" + "x" * 2_000, PUBLIC, "webhook_url_malformed"),
    ],
)
async def test_a_target_that_must_not_be_told_is_refused_by_name(
    url: str, policy: AddressPolicy, code: str
) -> None:
    with pytest.raises(RequestMalformed) as refused:
        await check_target(url, policy)
    assert refused.value.code == code


async def test_targets_that_may_be_told_pass() -> None:
    for url in ("https://93.184.216.34/x?y=z", "https://[2606:2800:220:1::1]:8443/"):
        await check_target(url, PUBLIC)
    await check_target("http://127.0.0.1:9/", LOOPBACK)


async def test_a_target_that_fails_for_a_day_is_spared_and_comes_back(
    office: Office, shop: Account, target: Target
) -> None:
    made = await office.subscribe(shop, target.url)
    target.answers = lambda _: BROKEN
    ids = [await office.tell(shop, at=str(number)) for number in range(20)]
    for _ in range(24 * 2):
        await office.round()
        office.later(minutes=30)
    assert 20 <= len(target.got) <= 70, "a target that is down is asked now and then, not flooded"
    target.got.clear()
    target.answers = lambda _: OK
    for _ in range(3):
        office.later(hours=4)
        await office.round()
    assert sorted(target.ids) == sorted(ids)
    assert set((await office.states(made.webhook.id)).values()) == {"delivered"}


async def test_a_webhook_that_fails_for_days_is_disabled_told_of_and_can_be_enabled_again(
    office: Office, shop: Account, target: Target
) -> None:
    made = await office.subscribe(shop, target.url)
    watcher = await office.account(Role.OPERATOR, "boss")
    webhook = made.webhook.id
    async with a_target() as watching:
        await office.subscribe(watcher, watching.url, "webhook.*")
        target.answers = lambda _: BROKEN
        missed = await office.tell(shop)
        for _ in range(2 * 24):
            await office.round()
            office.later(hours=2)
        await office.round()
        [told] = watching.got
        assert told.event["kind"] == "webhook.disabled"
        assert told.event["object"] == f"webhooks/{webhook}"
    assert await office.states(webhook) == {missed: "failed"}
    target.got.clear()
    target.answers = lambda _: OK
    between = await office.tell(shop)
    await office.round()
    assert target.got == []
    async with office.engine.begin() as connection:
        with pytest.raises(Conflict):
            await replay_events(connection, caller(shop), webhook, office.now, office.now)
    office.later(hours=1)
    async with office.engine.begin() as connection:
        await enable(connection, caller(shop), webhook, office.now)
    after = await office.tell(shop)
    await office.round()
    assert target.ids == [after]
    async with office.engine.begin() as connection:
        since = made.webhook.created_at
        queued = await replay_events(connection, caller(shop), webhook, since, office.now)
    await office.round()
    told_again = [got.id for got in target.got[1:] if got.event["object"] == "things/1"]
    assert told_again == [missed, between, after], "in the order of their object"
    assert queued.events == 4, "that it was disabled is an event as well"


async def test_a_target_that_is_gone_is_asked_no_more(
    office: Office, shop: Account, target: Target
) -> None:
    target.answers = lambda _: answer(410)
    made = await office.subscribe(shop, target.url)
    first = await office.tell(shop)
    await office.round()
    await office.tell(shop)
    office.later(hours=5)
    await office.round()
    assert target.ids == [first]
    [row] = await office.rows("SELECT status FROM webhooks WHERE id = :id", id=made.webhook.id)
    assert row.status == "disabled"


async def test_an_event_that_a_target_never_takes_holds_up_no_other(
    office: Office, shop: Account, target: Target
) -> None:
    made = await office.subscribe(shop, target.url)
    poison = await office.tell(shop, at="poison")
    target.answers = lambda got: BROKEN if got.id == poison else OK
    others = []
    for number in range(10):
        others.append(await office.tell(shop, at=str(number)))
        await office.round()
        office.later(minutes=10)
    states = await office.states(made.webhook.id)
    assert states.pop(poison) == "waiting"
    assert states == dict.fromkeys(others, "delivered")


async def test_what_a_dead_worker_had_taken_up_is_sent_by_the_next(
    office: Office, shop: Account, target: Target
) -> None:
    await office.subscribe(shop, target.url)
    event_id = await office.tell(shop)
    await office.courier.look()
    for turn in list(office.courier._turns):
        turn.cancel()
        await asyncio.wait([turn])
    target.got.clear()
    other = office.another_courier()
    await office.round(other)
    assert target.got == [], "it may be alive still"
    office.later(seconds=LEASED_S + 1)
    await office.round(other)
    assert target.ids == [event_id]


async def test_two_workers_never_serve_one_webhook_at_the_same_time(
    office: Office, shop: Account, target: Target
) -> None:
    await office.subscribe(shop, target.url)
    for number in range(30):
        await office.tell(shop, at=str(number))
    couriers = [office.another_courier() for _ in range(4)]
    taken = await asyncio.gather(*(each.look() for each in couriers))
    assert sum(taken) == 1
    await asyncio.gather(*(each.idle() for each in couriers))
    assert len(target.got) == len(set(target.ids)) == 30


async def test_deliveries_of_long_ago_are_forgotten_and_stay_sent(
    office: Office, shop: Account, target: Target
) -> None:
    made = await office.subscribe(shop, target.url)
    event_id = await office.tell(shop)
    await office.round()
    office.later(days=2)
    async with office.engine.begin() as connection:
        assert await deliveries.purge(connection, office.now) == 0
    office.later(days=2)
    async with office.engine.begin() as connection:
        assert await deliveries.purge(connection, office.now) == 0, "no round was since"
    await office.round()
    async with office.engine.begin() as connection:
        assert await deliveries.purge(connection, office.now) == 1
    await office.round()
    assert target.ids == [event_id]
    assert await office.states(made.webhook.id) == {}


async def test_what_waits_for_a_closed_account_is_forgotten_with_its_webhooks(
    office: Office, shop: Account, target: Target, database_url: str
) -> None:
    stays = await office.account(Role.CONSUMER, "stays")
    target.answers = lambda _: BROKEN
    kept, gone = [(await office.subscribe(each, target.url)).webhook.id for each in (stays, shop)]
    for each in (stays, shop):
        await office.tell(each)
    await office.round()
    environment = {"VALKEY_URL": "none is needed", "BROKER_SECRET_KEY": "ab" * 32}
    settings = Settings.from_env({**environment, "DATABASE_URL": database_url})
    room = Room(settings, office.engine, asyncpg.create_pool(database_url))
    await purge(room)
    assert [list((await office.states(each)).values()) for each in (kept, gone)] == [
        ["waiting"]
    ] * 2
    async with office.engine.begin() as connection:
        await accounts.close(connection, shop.id, office.now)
    await purge(room)
    assert [list((await office.states(each)).values()) for each in (kept, gone)] == [
        ["waiting"],
        [],
    ]
    assert [row.id for row in await office.rows("SELECT id FROM webhooks")] == [kept]


async def test_a_backlog_beyond_all_bounds_disables_the_webhook(
    office: Office, shop: Account, target: Target
) -> None:
    made = await office.subscribe(shop, target.url)
    await office.run(
        "INSERT INTO webhook_deliveries (webhook_id, event_id, kind, object, place, at, state,"
        " queued_at, due_at) SELECT :id, uuidv7(), 'x.y', 'things/1', n, now(), 'waiting',"
        " CAST(:now AS timestamptz), CAST(:now AS timestamptz)"
        " FROM generate_series(1, 11) AS n",
        id=made.webhook.id,
        now=office.now,
    )
    await office.round(office.another_courier(backlog_max=10))
    assert target.got == []
    [row] = await office.rows("SELECT payload FROM events WHERE kind = 'webhook.disabled'")
    assert row.payload["given_up"] == 11


async def test_an_account_has_so_many_webhooks_and_no_more(office: Office, shop: Account) -> None:
    made = await asyncio.gather(
        *(office.subscribe(shop, "https://93.184.216.34/") for _ in range(WEBHOOKS_MAX + 4)),
        return_exceptions=True,
    )
    refused = [each for each in made if isinstance(each, Conflict)]
    assert len(refused) == 4
    async with office.engine.connect() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM webhooks")) == WEBHOOKS_MAX
