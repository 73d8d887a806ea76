"""Plans of the broker's take over HTTP: who sets them, who sees them, and what is refused."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from broker.store.money import plans
from tests.integration.api.conftest import Person, SmallBroker, Standing

FLAT = {"tiers": [{"from_usd": "0", "take_bps": 800}], "reason": "a good year"}


async def set_plan(operator: Person, **changes: Any) -> str:
    answer = await operator.http.post("/api/plans", json=FLAT | changes)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


async def take(provider: Person) -> dict[str, Any]:
    shown: dict[str, Any] = (await provider.http.get("/api/plans")).json()["take"]
    return shown


async def test_a_plan_is_seen_by_whom_it_is_for(
    operator: Person, provider: Person, other_provider: Person
) -> None:
    await set_plan(operator, provider="acme", domain="law")
    await set_plan(operator, tiers=[{"from_usd": "0", "take_bps": 900}])
    own = (await provider.http.get("/api/plans")).json()
    assert [(each["provider"], each["domain"]) for each in own["plans"]] == [
        (None, None),
        ("acme", "law"),
    ]
    assert own["take"] == {
        "take_bps": 900,
        "by_domain": {"law": 800},
        "sold_this_month_usd": "0.00",
    }
    other = (await other_provider.http.get("/api/plans")).json()
    assert [each["provider"] for each in other["plans"]] == [None]
    every = (await operator.http.get("/api/plans")).json()
    assert [each["in_force"] for each in every["plans"]] == [True, True]
    assert every["take"] is None


async def test_setting_and_ending_a_plan_is_audited_and_told(
    broker: SmallBroker, operator: Person, provider: Person
) -> None:
    plan = await set_plan(operator, provider="acme")
    ended = await operator.http.post(f"/api/plans/{plan}/end", json={"reason": "spring is over"})
    assert ended.status_code == 201, ended.text
    assert (await take(provider))["take_bps"] == 1_000
    entries = (await operator.http.get("/api/audit")).json()["entries"]
    assert [each["action"] for each in entries[:2]] == ["end_plan", "set_plan"]
    assert entries[0]["detail"]["reason"] == "spring is over"
    again = await operator.http.post(f"/api/plans/{plan}/end", json={})
    assert (again.status_code, again.json()["code"]) == (409, "plan_over")


async def test_a_plan_called_off_leaves_what_stands_before_it(
    broker: SmallBroker, operator: Person, provider: Person
) -> None:
    later = broker.clock() + timedelta(hours=1)
    await set_plan(operator)
    coming = await set_plan(
        operator, valid_from=later.isoformat(), tiers=[{"from_usd": "0", "take_bps": 100}]
    )

    async def take_at(hours: float) -> int:
        async with broker.engine.connect() as connection:
            now = later + timedelta(hours=hours)
            takes = await plans.load_takes(connection, now)
        return takes.take(provider.account.id, 1_000)[0]

    assert [await take_at(-0.5), await take_at(1)] == [800, 100]
    assert (await operator.http.post(f"/api/plans/{coming}/end", json={})).status_code == 201
    assert [await take_at(-0.5), await take_at(1)] == [800, 800]


async def test_a_plan_sent_again_under_its_key_is_written_once(operator: Person) -> None:
    headers = {"idempotency-key": "plan-1"}
    answers = [await operator.http.post("/api/plans", json=FLAT, headers=headers) for _ in "ab"]
    assert answers[0].content == answers[1].content
    assert len((await operator.http.get("/api/plans")).json()["plans"]) == 1


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"valid_from": "2020-01-01T00:00:00Z"}, 400, "valid_from_in_the_past"),
        ({"valid_from": "2999-01-01T00:00:00Z"}, 400, "valid_from_too_late"),
        ({"tiers": []}, 400, None),
        ({"tiers": [{"from_usd": "1", "take_bps": 1}]}, 400, "tiers_malformed"),
        ({"tiers": [{"from_usd": "0", "take_bps": 1}] * 2}, 400, "tiers_malformed"),
        ({"tiers": [{"from_usd": "0", "take_bps": 10_001}]}, 400, None),
        ({"tiers": [{"from_usd": "NaN", "take_bps": 1}]}, 400, None),
        ({"tiers": [{"from_usd": "-1", "take_bps": 1}]}, 400, None),
        ({"reason": " "}, 400, "reason_missing"),
        ({"reason": "x" * 501}, 400, None),
        ({"reason": "a\x00b"}, 400, "reason_malformed"),
        ({"provider": "nobody"}, 404, "not_found"),
        ({"provider": "shop"}, 404, "not_found"),
    ],
)
async def test_a_senseless_plan_is_refused_by_name(
    standing: Standing, changes: dict[str, Any], status: int, code: str | None
) -> None:
    operator = standing.operator
    answer = await operator.http.post("/api/plans", json=FLAT | changes)
    assert answer.status_code == status, answer.text
    if code is not None:
        assert answer.json()["code"] == code
    assert (await operator.http.get("/api/plans")).json()["plans"] == []


async def test_ending_a_plan_for_an_endless_or_unreadable_reason_is_refused(
    operator: Person,
) -> None:
    plan = (await operator.http.post("/api/plans", json=FLAT)).json()
    for reason in ("x" * 501, "a\x00b"):
        answer = await operator.http.post(f"/api/plans/{plan['id']}/end", json={"reason": reason})
        assert answer.status_code == 400, answer.text
    ended = await operator.http.post(f"/api/plans/{plan['id']}/end", json={})
    assert ended.is_success, ended.text
