"""Evidence of before becomes the first of its months; old months are dropped whole."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import asyncpg
import msgspec
import pytest

from broker.core import story
from broker.core.cascade import Judged
from broker.core.decision import undecided
from broker.core.dispatch import Attempt
from broker.core.outcome import DELIVERED
from broker.store.money.plans import id_at
from tests.fakes import plan, requirements
from tests.integration.migrations.upgrading import DatabaseAt, insert_account

_INSERT = """
INSERT INTO evidence (id, at, endpoint_id, source, grade, score, weight, account_id)
VALUES ($1, $2, $3, 'feedback', 'graded', 0.5, 1, $4)
"""
_WHERE = "SELECT tableoid::regclass::text, count(*) FROM evidence GROUP BY 1"


async def an_endpoint(driver: asyncpg.Connection, provider: object) -> object:
    await driver.execute("SET session_replication_role = replica")  # what it refers to is not told
    found = await driver.fetchval(
        "INSERT INTO endpoints (id, deployment_id, provider_id, name, model, version,"
        " upstream_model, tasks, created_at)"
        " VALUES (uuidv7(), uuidv7(), $1, 'x', 'x', '', 'x', '{chat}', now()) RETURNING id",
        provider,
    )
    await driver.execute("SET session_replication_role = origin")
    return found


async def test_evidence_of_before_stays_and_new_months_come(database_at: DatabaseAt) -> None:
    now = datetime.now(UTC)
    async with database_at("0022") as old:
        driver = old.driver
        owner, _ = await insert_account(driver, "consumer", "shop")
        endpoint = await an_endpoint(driver, owner)
        for age in (400, 30, 0):
            at = now - timedelta(days=age)
            await driver.execute(_INSERT, id_at(at), at, endpoint, owner)
        await old.upgrade("head")
        this_month = f"evidence_{now:%Y%m}"
        assert dict(await driver.fetch(_WHERE)) == {this_month: 3}
        assert await driver.fetchval("SELECT count(*) FROM evidence WHERE confidence IS NULL") == 3
        later = (now.replace(day=1) + timedelta(days=40)).replace(day=3)
        await driver.execute(_INSERT, id_at(later), later, endpoint, owner)
        far = now + timedelta(days=4_000)
        await driver.execute(_INSERT, id_at(far), far, endpoint, owner)
        assert dict(await driver.fetch(_WHERE)) == {
            this_month: 3,
            f"evidence_{later:%Y%m}": 1,
            "evidence_other": 1,
        }
        for statement in ("DELETE FROM evidence", "UPDATE evidence SET score = 1"):
            with pytest.raises(asyncpg.IntegrityConstraintViolationError):
                await driver.execute(statement)
        same = await driver.fetchval("SELECT id_at($1)", now)
        assert same == id_at(now)
        assert await driver.fetchval("SELECT drop_evidence_before($1)", now) == 0
        ended = now + timedelta(days=32)
        assert await driver.fetchval("SELECT drop_evidence_before($1)", ended) == 1
        assert await driver.fetchval("SELECT count(*) FROM evidence") == 2
        # What no month had room for goes as well, and what is younger stays, guarded as before.
        stray, younger = (
            datetime(year, 5, 17, tzinfo=UTC) for year in (far.year + 1, far.year + 2)
        )
        for at in (stray, younger):
            await driver.execute(_INSERT, id_at(at), at, endpoint, owner)
        ended = stray + timedelta(days=32)
        assert await driver.fetchval("SELECT drop_evidence_before($1)", stray) == 3
        assert await driver.fetchval("SELECT drop_evidence_before($1)", ended) == 1
        assert dict(await driver.fetch(_WHERE)) == {"evidence_other": 1}
        with pytest.raises(asyncpg.IntegrityConstraintViolationError):
            await driver.execute("DELETE FROM evidence")


async def test_agreement_of_before_is_told_whose_it_was_by_the_stories_of_its_calls(
    database_at: DatabaseAt,
) -> None:
    now = datetime.now(UTC)
    async with database_at("0029") as old:
        driver = old.driver
        owner, _ = await insert_account(driver, "consumer", "shop")
        endpoint = await an_endpoint(driver, owner)
        number = await driver.fetchval("SELECT number FROM endpoints")
        await driver.execute("SET session_replication_role = replica")
        await driver.execute(
            "INSERT INTO endpoints (id, deployment_id, provider_id, name, model, version,"
            " upstream_model, tasks, created_at) SELECT uuidv7(), uuidv7(), provider_id, name || n,"
            " n, '', n, tasks, created_at FROM endpoints, unnest('{x,other}'::text[]) AS n"
        )
        others = dict(
            await driver.fetch("SELECT model, number FROM endpoints WHERE number <> $1", number)
        )
        compared = {
            "sample": [number, number],
            "model": [number, others["other"]],
            "sample of its kind": [number, others["x"]],
            "no comparison": [number],
        }
        for at, numbers in enumerate(compared.values()):
            call_id = uuid4()
            await driver.execute(
                "INSERT INTO calls (id, created_at, account_id, key_id, task, model, stream,"
                " status, code, price_version, hold_nanos, charge_nanos, tokens_in, tokens_out,"
                " duration_ms, story) VALUES ($1, $2, $3, 'key', 'chat', 'x', false, 200, 'served',"
                " 1, 0, 0, 0, 0, 1, $4)",
                *(call_id, now, owner, _story_of(numbers)),
            )
            await driver.execute(
                "INSERT INTO evidence (id, at, endpoint_id, source, grade, score, weight, call_id,"
                " agreement) VALUES ($1, $2, $3, 'feedback', 'graded', $4, 1, $5, 0.9)",
                *(uuid4(), now, endpoint, at / 10, call_id),
            )
        await driver.execute("SET session_replication_role = origin")
        await old.upgrade("0030")
        found = await driver.fetch("SELECT compared FROM evidence ORDER BY score")
        assert [each["compared"] for each in found] == ["sample", "model", "sample", None]
        with pytest.raises(asyncpg.IntegrityConstraintViolationError):
            await driver.execute("UPDATE evidence SET compared = 'model'")


def _story_of(numbers: list[int]) -> bytes:
    """The story of a call that the first of these endpoints answered, and the second, if there is
    one, for the two to be compared."""
    attempts = []
    for at, number in enumerate(numbers):
        candidate = msgspec.structs.replace(plan(1)[0], number=number)
        attempt = Attempt(at, candidate, 1.0, 0.0, outcome=DELIVERED)
        if at:
            attempt.notes.append("asked to compare")
        else:
            attempt.judged = Judged(True, "", agreement=0.9)
        attempts.append(attempt)
    return story.encode(requirements(), undecided(1), attempts, "delivered", 0.5)
