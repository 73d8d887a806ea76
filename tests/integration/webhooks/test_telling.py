"""Subscribers are told, signed and once, of what was committed, in the order of each object."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any
from uuid import UUID

from sqlalchemy import text

from broker.core.webhooks import Patience
from broker.flows.webhooks.subscribe import rotate_secret
from broker.store.access.accounts import Account, Role
from tests.integration.upstream.scripted import certificates
from tests.integration.webhooks.office import SEALER, Office, caller, tell
from tests.integration.webhooks.target import BROKEN, OK, Got, Target
from tests.integration.webhooks.target import target as a_target

README = Path(__file__).parents[3] / "broker" / "gateway" / "README.md"


def the_readmes() -> Callable[[str, str, bytes, float], bool]:
    """The check that the README shows, at a time of the test's choice."""
    [block] = [
        each
        for each in README.read_text().split("```python\n")
        if "def verify(" in each.split("```")[0]
    ]
    shown: dict[str, Any] = {}
    exec(block.split("```")[0], shown)

    def verify(secret: str, header: str, body: bytes, now_s: float) -> bool:
        shown["time"] = SimpleNamespace(time=lambda: now_s)
        return bool(shown["verify"](secret, header, body))

    return verify


verify = the_readmes()


async def test_an_event_comes_once_signed_and_whole(
    office: Office, shop: Account, target: Target
) -> None:
    made = await office.subscribe(shop, target.url)
    event_id = await office.tell(shop)
    for _ in range(3):
        await office.round()
    [got] = target.got
    assert got.event == {
        "id": event_id,
        "kind": "refund.posted",
        "object": "things/1",
        "at": got.event["at"],
        "data": {"amount_usd": "1.00"},
    }
    assert datetime.fromisoformat(got.event["at"]) == office.now
    assert (got.path, got.headers["x-broker-event-id"]) == ("/hook", event_id)
    header = got.headers["x-broker-signature"]
    assert verify(made.secret, header, got.body, office.now.timestamp())
    assert not verify(made.secret, header, got.body + b" ", office.now.timestamp())
    assert not verify("whsec_other", header, got.body, office.now.timestamp())
    assert not verify(made.secret, header, got.body, time.time() + 900)
    assert await office.states(made.webhook.id) == {event_id: "delivered"}


async def test_only_what_was_committed_after_the_subscription_is_told(
    office: Office, shop: Account, target: Target
) -> None:
    await office.tell(shop)
    office.later(seconds=1)
    await office.subscribe(shop, target.url)
    async with office.engine.connect() as connection:
        await tell(connection, shop, "refund.posted", "1", office.now)
        await connection.rollback()
    await office.round()
    assert target.got == []
    committed = await office.tell(shop)
    await office.round()
    assert target.ids == [committed]


async def test_a_transaction_that_commits_late_is_not_missed_and_nothing_is_repeated(
    office: Office, shop: Account, target: Target
) -> None:
    await office.subscribe(shop, target.url)
    async with office.engine.connect() as slow:
        late = await tell(slow, shop, "refund.posted", "1", office.now)
        early = await office.tell(shop, at="2")
        await office.round()
        assert target.ids == [early]
        await slow.commit()
    last = await office.tell(shop, at="3")
    for _ in range(2):
        await office.round()
    assert sorted(target.ids) == sorted([early, late, last])


async def test_who_began_first_but_wrote_last_is_told_last(
    office: Office, shop: Account, target: Target
) -> None:
    """The number of a transaction says nothing about the order of its events."""
    await office.subscribe(shop, target.url)
    async with office.engine.connect() as first, office.engine.connect() as third:
        await first.execute(text("SELECT pg_current_xact_id()"))
        await third.execute(text("SELECT pg_current_xact_id()"))
        one = await office.tell(shop)
        two = await tell(first, shop, "refund.posted", "1", office.now)
        await first.commit()
        await office.round()
        await third.commit()
    await office.round()
    assert target.ids == [one, two]


async def test_an_event_waits_for_the_one_before_it_of_its_object(
    office: Office, shop: Account, target: Target
) -> None:
    made = await office.subscribe(shop, target.url)
    one, two = [await office.tell(shop, at="1") for _ in range(2)]
    other = await office.tell(shop, at="2")
    target.answers = lambda got: BROKEN if got.id == one else OK
    await office.round()
    assert sorted(target.ids) == sorted([one, other])
    target.answers = lambda _: OK
    office.later(minutes=1)
    await office.round()
    assert target.ids[-2:] == [one, two]
    assert set((await office.states(made.webhook.id)).values()) == {"delivered"}


async def test_the_next_event_of_an_object_goes_when_the_one_before_is_given_up(
    office: Office, shop: Account, target: Target
) -> None:
    made = await office.subscribe(shop, target.url)
    bad, good = [await office.tell(shop, at="1") for _ in range(2)]
    target.answers = lambda got: BROKEN if got.id == bad else OK
    courier = office.another_courier(patience=Patience(lasts_s=3 * 3_600))
    for _ in range(8):
        await office.round(courier)
        office.later(minutes=30)
    assert await office.states(made.webhook.id) == {bad: "failed", good: "delivered"}
    assert target.ids == [bad] * 7 + [good]


async def test_kinds_and_owners_decide_who_is_told(
    office: Office, shop: Account, target: Target
) -> None:
    rival = await office.account(Role.CONSUMER, "rival")
    boss = await office.account(Role.OPERATOR, "boss")
    for owner, path, kinds in (
        (shop, "a", ["refund.posted"]),
        (shop, "b", ["refund.*", "dispute.opened"]),
        (rival, "c", ["*"]),
        (boss, "d", ["*"]),
    ):
        await office.subscribe(owner, f"{target.url}/{path}", *kinds)
    for owner, kind in (
        (shop, "refund.posted"),
        (shop, "refund.failed"),
        (shop, "topup.posted"),
        (rival, "dispute.opened"),
        (None, "plan.set"),
    ):
        await office.tell(owner, kind, at=kind)
    await office.round()
    told = {
        path: {got.event["kind"] for got in target.got if got.path[-1] == path} for path in "abcd"
    }
    assert told == {
        "a": {"refund.posted"},
        "b": {"refund.posted", "refund.failed"},
        "c": {"dispute.opened"},
        "d": {"refund.posted", "refund.failed", "topup.posted", "dispute.opened", "plan.set"},
    }


async def test_two_secrets_sign_while_one_replaces_the_other(
    office: Office, shop: Account, target: Target
) -> None:
    made = await office.subscribe(shop, target.url)
    async with office.engine.begin() as connection:
        rotated = await rotate_secret(
            connection, caller(shop), made.webhook.id, timedelta(hours=1), (SEALER, office.now)
        )
    for hours, valid in ((0.5, [True, True]), (1, [False, True])):
        office.later(hours=hours)
        await office.tell(shop)
        await office.round()
        got, now_s = target.got[-1], office.now.timestamp()
        header = got.headers["x-broker-signature"]
        secrets = (made.secret, rotated.secret)
        assert [verify(each, header, got.body, now_s) for each in secrets] == valid


async def test_a_target_behind_tls_is_told_when_its_certificate_is_good(
    office: Office, shop: Account, tmp_path: Path
) -> None:
    served, trusting = certificates(tmp_path)
    async with a_target(served) as target:
        made = await office.subscribe(shop, target.url)
        event_id = await office.tell(shop)
        await office.round()
        assert target.got == []
        [row] = await office.rows("SELECT fault, detail FROM webhook_deliveries")
        assert row.fault == "connect_failed"
        assert "CERTIFICATE" in row.detail.upper()
        office.later(minutes=1)
        await office.round(office.another_courier(tls=trusting))
        assert target.ids == [event_id]
        assert await office.states(made.webhook.id) == {event_id: "delivered"}


async def test_a_restored_backup_tells_what_is_new_and_nothing_twice(
    office: Office, shop: Account, target: Target
) -> None:
    """In another server transactions are numbered from the beginning again."""
    await office.subscribe(shop, target.url)
    old = await office.tell(shop, at="1")
    await office.round()
    unsent = await office.tell(shop, at="2")
    await office.run("ALTER TABLE events DISABLE TRIGGER immutable")
    await office.run("UPDATE events SET xid = (xid::text::bigint + 1000000000)::text::xid8")
    await office.run("DELETE FROM webhook_deliveries")  # what was sent is long forgotten
    await office.run(
        "UPDATE webhook_progress SET events_from = (SELECT xid FROM events WHERE id = :id)",
        id=UUID(unsent),
    )
    new = [await office.tell(shop, at="3")]
    for number in (4, 5):
        await office.round()
        new.append(await office.tell(shop, at=str(number)))
    await office.round()
    assert target.ids[0] == old
    assert sorted(target.ids[1:]) == sorted([unsent, *new])


async def test_many_writers_and_couriers_at_once_lose_nothing_and_keep_the_order(
    office: Office, shop: Account, target: Target
) -> None:
    """Nobody is told twice at the same time, whatever fails and whoever looks."""
    chance = Random(1)
    await office.subscribe(shop, target.url)
    written: dict[str, list[str]] = {each: [] for each in "abc"}
    taken: list[Got] = []
    doubled: list[str] = []
    under_way: set[str] = set()

    def answers(got: Got) -> bytes:
        if got.id in under_way:
            doubled.append(got.id)
        under_way.add(got.id)
        asyncio.get_running_loop().call_soon(under_way.discard, got.id)
        if chance.random() < 0.2:
            return BROKEN
        taken.append(got)
        return OK

    target.answers = answers

    async def write(thing: str) -> None:
        for _ in range(6):
            async with office.engine.begin() as connection:
                # The object's own lock, as the flows that tell of an object hold one.
                await connection.execute(
                    text("SELECT pg_advisory_xact_lock(:key)"), {"key": ord(thing)}
                )
                event_id = await tell(connection, shop, "refund.posted", thing, office.now)
                await asyncio.sleep(chance.random() / 200)
                written[thing].append(event_id)

    couriers = [office.courier, office.another_courier()]
    writing = asyncio.gather(*map(write, "aabbcc"))
    while not writing.done() or len(taken) < 36:
        await asyncio.gather(*(each.look() for each in couriers))
        await asyncio.gather(*(each.idle() for each in couriers))
        office.later(hours=1)
    await writing
    assert doubled == []
    for thing, ids in written.items():
        first = [got.id for got in taken if got.event["object"] == f"things/{thing}"]
        assert first == ids
    assert len({got.id for got in taken}) == len(taken) == 36
