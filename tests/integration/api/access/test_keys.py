"""Keys over HTTP: what limits them, what they open, how they change, and how their secret does."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
from litestar import Litestar
from litestar.routes import HTTPRoute

from broker.api.callers import CHANGING
from broker.core.key_terms import ALL_SCOPES, Rates, Scope
from broker.errors import CallerUnknown, ScopeMissing, TooManyCalls
from broker.flows.access.authenticate import by_key, by_session
from broker.flows.access.login import open_session
from tests.integration.api.conftest import Person, SmallBroker
from tests.integration.api.test_roles import ID, RIGHTS

KEYS = "/api/accounts/shop/keys"
LIMITED = {
    "label": "crawler",
    "calls_max": 3,
    "scopes": ["calls", "read"],
    "requests_per_minute": 60,
    "tokens_per_minute": 10_000,
    "models": ["small", "acme/law"],
    "providers": ["acme"],
    "domains": ["law"],
    "explore": False,
    "budget": {"day_usd": "1.50", "total_usd": "0"},
}


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


async def made(person: Person, **terms: Any) -> dict[str, str]:
    """A new key of the consumer `shop`, as `person` makes it."""
    answer = await person.http.post(KEYS, json=terms)
    assert answer.status_code == 201, answer.text
    new: dict[str, str] = answer.json()
    return new


async def shown(person: Person, key_id: str) -> dict[str, Any]:
    listed = (await person.http.get(KEYS)).json()["keys"]
    [key] = [each for each in listed if each["id"] == key_id]
    return dict(key)


def at(broker: SmallBroker, moment: datetime) -> None:
    """Set the broker's clock."""
    broker.clock = lambda: moment


async def works(stranger: httpx.AsyncClient, key: str) -> bool:
    answer = await stranger.get("/api/balance", headers=bearer(key))
    assert answer.status_code in (200, 401), answer.text
    return answer.status_code == 200


async def test_a_key_is_shown_with_all_that_limits_it(consumer: Person) -> None:
    new = await made(consumer, **LIMITED)
    key = await shown(consumer, new["id"])
    budgets = key.pop("budgets")
    assert (
        key.items()
        >= {
            **{name: LIMITED[name] for name in LIMITED if name != "budget"},
            "models": ["acme/law", "small"],
            "content_kept": "none",
            "former_until": None,
            "revoked_at": None,
        }.items()
    )
    nothing = {"spent_usd": "0.00", "held_usd": "0.00"}
    assert budgets == [
        {"kind": "day", "limit_usd": "1.50", **nothing},
        {"kind": "month", "limit_usd": None, **nothing},
        {"kind": "total", "limit_usd": "0.00", **nothing},
    ]


async def test_a_key_without_limits_says_so(consumer: Person) -> None:
    key = await shown(consumer, (await made(consumer))["id"])
    assert key["scopes"] == sorted(ALL_SCOPES)
    assert (key["requests_per_minute"], key["models"], key["budgets"]) == (None, None, [])


NO_TERMS: list[dict[str, Any]] = [
    {"scopes": []},
    {"scopes": ["everything"]},
    {"requests_per_minute": 0},
    {"requests_per_minute": 1.5},
    {"tokens_per_minute": -1},
    {"tokens_per_minute": 10**12},
    {"models": []},
    {"providers": [""]},
    {"domains": "law"},
    {"budget": {"day_usd": 1.5}},
    {"budget": {"year_usd": "1"}},
]
NO_AMOUNTS = ["-1", "NaN", "Infinity", "1e3", "0.0000000001", "1000000001", "", "1,5"]
NO_OVERLAPS = [-1, 30 * 86_400 + 1, 1.5, "soon", None]


async def test_what_makes_no_sense_is_refused_by_name_and_makes_no_key(consumer: Person) -> None:
    for terms in NO_TERMS:
        refused = await consumer.http.post(KEYS, json=terms)
        assert (refused.status_code, refused.json()["code"]) == (400, "request_malformed"), terms
        assert next(iter(terms)) in refused.text or "year_usd" in refused.text
    for amount in NO_AMOUNTS:
        refused = await consumer.http.post(KEYS, json={"budget": {"month_usd": amount}})
        assert (refused.status_code, refused.json()["code"]) == (400, "amount_invalid"), amount
        assert refused.json()["field"] == "budget.month_usd"
    own = consumer.key.split("_")[1]
    for overlap_s in NO_OVERLAPS:
        place = f"/api/keys/{own}/rotate"
        refused = await consumer.http.post(place, json={"overlap_s": overlap_s})
        assert (refused.status_code, refused.json()["code"]) == (400, "request_malformed")
    assert [each["id"] for each in (await consumer.http.get(KEYS)).json()["keys"]] == [own]


def changing(api: Litestar) -> dict[tuple[str, str], Scope]:
    """The scope that each route takes of who would change something there."""
    return {
        (method, route.path_format): Scope(handler.opt.get(CHANGING, Scope.MONEY))
        for route in api.routes
        if isinstance(route, HTTPRoute)
        for handler in route.route_handlers
        for method in handler.http_methods
    }


def test_routes_take_the_scopes_that_their_names_promise(api: Litestar) -> None:
    scopes = changing(api)
    assert scopes["POST", "/api/accounts/{name}/topups"] is Scope.MONEY
    assert scopes["POST", "/api/accounts/{name}/keys"] is Scope.KEYS
    assert scopes["DELETE", "/api/keys/{key_id}"] is Scope.KEYS
    assert scopes["POST", "/api/provider/deployments"] is Scope.DEPLOYMENTS
    assert scopes["POST", "/api/deployments/{deployment_id}/approve"] is Scope.DEPLOYMENTS


async def test_each_scope_opens_its_own_and_nothing_else(
    api: Litestar, operator: Person, consumer: Person, provider: Person
) -> None:
    """Each route is asked by one who has its role: what a scope opens is the same for all."""
    scopes = changing(api)
    asking: dict[str, list[tuple[str, str]]] = {}
    for (method, path), allowed in RIGHTS.items():
        if "stranger" not in allowed and not path.endswith("/stream"):
            asking.setdefault(min(allowed), []).append((method, path))
    assert len(asking) == 3
    for person in (consumer, provider, operator):
        name = person.account.name
        for scope in Scope:
            wish = {"scopes": [scope]}
            answer = await operator.http.post(f"/api/accounts/{name}/keys", json=wish)
            limited = bearer(answer.json()["key"])
            for method, path in asking[person.account.role.value]:
                filled = path.replace("{name}", name).replace("{key_id}", "none")
                filled = re.sub(r"{\w+}", ID, filled)
                told = await person.http.request(method, filled, headers=limited)
                missing = told.status_code == 403 and told.json()["code"] == "scope_missing"
                reads = method == "GET" and scope is Scope.READ
                opens = reads or scopes[method, path] is scope
                assert missing != opens, (scope, method, path, told.text)


async def test_a_rotated_key_has_two_secrets_until_the_overlap_ends(
    broker: SmallBroker, consumer: Person, stranger: httpx.AsyncClient
) -> None:
    now = broker.clock()
    at(broker, now)
    new = await made(consumer, **LIMITED)
    answer = await consumer.http.post(f"/api/keys/{new['id']}/rotate", json={"overlap_s": 600})
    assert answer.status_code == 201
    rotated = answer.json()
    assert rotated["id"] == new["id"]
    assert rotated["key"] != new["key"]
    key = await shown(consumer, new["id"])
    assert datetime.fromisoformat(key["former_until"]) == now + timedelta(seconds=600)
    assert (key["label"], key["requests_per_minute"]) == ("crawler", 60)
    at(broker, now + timedelta(seconds=599))
    assert await works(stranger, new["key"])
    assert await works(stranger, rotated["key"])
    at(broker, now + timedelta(seconds=600))
    assert not await works(stranger, new["key"])
    assert await works(stranger, rotated["key"])
    assert (await shown(consumer, new["id"]))["former_until"] is None


async def test_a_key_is_rotated_without_a_body_as_with_an_empty_one(
    broker: SmallBroker, consumer: Person
) -> None:
    now = broker.clock()
    at(broker, now)
    overlaps = []
    for more in ({}, {"json": {}}, {"headers": {"content-type": "application/json"}}):
        new = await made(consumer)
        answer = await consumer.http.post(f"/api/keys/{new['id']}/rotate", **more)
        assert answer.status_code == 201, answer.text
        key = await shown(consumer, new["id"])
        overlaps.append(datetime.fromisoformat(key["former_until"]) - now)
    assert overlaps == [timedelta(hours=1)] * 3
    wrong = await consumer.http.post(f"/api/keys/{new['id']}/rotate", json={"overlap": 5})
    assert wrong.status_code == 400


async def test_a_promised_overlap_is_kept_unless_it_is_ended_on_purpose(
    consumer: Person, stranger: httpx.AsyncClient
) -> None:
    first = await made(consumer)
    place = f"/api/keys/{first['id']}/rotate"
    second = (await consumer.http.post(place, json={})).json()
    refused = await consumer.http.post(place, json={"overlap_s": 60})
    assert (refused.status_code, refused.json()["code"]) == (409, "rotation_under_way")
    assert re.search(r"until \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC\.", refused.json()["detail"])
    assert await works(stranger, first["key"])
    third = (await consumer.http.post(place, json={"overlap_s": 0})).json()
    standing = [await works(stranger, each["key"]) for each in (first, second, third)]
    assert standing == [False, False, True]


async def test_a_revoked_and_an_expired_key_have_no_new_secret(
    broker: SmallBroker, consumer: Person
) -> None:
    now = broker.clock()
    brief = await made(consumer, expires_at=(now + timedelta(hours=1)).isoformat())
    gone = await made(consumer)
    await consumer.http.delete(f"/api/keys/{gone['id']}")
    at(broker, now + timedelta(hours=2))
    codes = [
        (await consumer.http.post(f"/api/keys/{each['id']}/rotate", json={})).json()["code"]
        for each in (gone, brief)
    ]
    assert codes == ["key_revoked", "key_expired"]
    changed = await consumer.http.patch(f"/api/keys/{gone['id']}", json={"label": "x"})
    assert (changed.status_code, changed.json()["code"]) == (409, "key_revoked")


async def test_the_expiry_of_a_key_ends_an_overlap_too(
    broker: SmallBroker, consumer: Person, stranger: httpx.AsyncClient
) -> None:
    now = broker.clock()
    new = await made(consumer, expires_at=(now + timedelta(seconds=60)).isoformat())
    rotated = await consumer.http.post(f"/api/keys/{new['id']}/rotate", json={"overlap_s": 600})
    keys = (new["key"], rotated.json()["key"])
    for after_s, opens in ((30, True), (120, False)):
        at(broker, now + timedelta(seconds=after_s))
        assert [await works(stranger, each) for each in keys] == [opens, opens]


async def test_a_change_says_what_changes_and_the_rest_stays(consumer: Person) -> None:
    new = await made(consumer, **LIMITED)
    place = f"/api/keys/{new['id']}"
    changed = await consumer.http.patch(
        place, json={"requests_per_minute": None, "models": ["small"], "calls_max": 9}
    )
    assert changed.status_code == 200, changed.text
    assert changed.json() == await shown(consumer, new["id"])
    told = changed.json()
    assert (told["requests_per_minute"], told["tokens_per_minute"]) == (None, 10_000)
    assert (told["models"], told["providers"], told["calls_max"]) == (["small"], ["acme"], 9)
    assert told["budgets"][0]["limit_usd"] == "1.50"
    freed = await consumer.http.patch(
        place, json={"scopes": None, "budget": {"month_usd": "7"}, "expires_at": None}
    )
    assert freed.json()["scopes"] == sorted(ALL_SCOPES)
    limits = [each["limit_usd"] for each in freed.json()["budgets"]]
    assert limits == [None, "7.00", None]
    refused = await consumer.http.patch(place, json={"lable": "x"})
    assert (refused.status_code, refused.json()["code"]) == (400, "request_malformed")


BEYOND: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"scopes": ["keys", "read"]}, {}),
    ({"scopes": ["keys", "read"]}, {"scopes": ["keys", "money"]}),
    ({"models": ["small"]}, {}),
    ({"models": ["small"]}, {"models": ["small", "big"]}),
    ({"providers": ["acme"]}, {"providers": ["globex"]}),
    ({"domains": ["law"]}, {"domains": ["law", "medicine"]}),
    ({"requests_per_minute": 60}, {"requests_per_minute": 1}),
    ({"budget": {"day_usd": "1"}}, {"budget": {"day_usd": "0.10"}}),
]
"""What a key has, and what it asks for another."""


async def test_no_key_frees_itself_of_a_limit_by_another_key(consumer: Person) -> None:
    other = await made(consumer)
    for own, wish in BEYOND:
        limited = await made(consumer, **own)
        asked = [
            ("POST", KEYS, wish),
            ("PATCH", f"/api/keys/{other['id']}", wish or {"label": "mine"}),
            ("POST", f"/api/keys/{other['id']}/rotate", {}),
            ("PATCH", f"/api/keys/{limited['id']}", dict.fromkeys((*own, "scopes"))),
        ]
        for method, place, body in asked:
            refused = await consumer.http.request(
                method, place, json=body, headers=bearer(limited["key"])
            )
            told = (refused.status_code, refused.json().get("code"))
            assert told == (403, "not_allowed"), (own, place)


async def test_a_limited_key_hands_on_what_it_has_and_rotates_itself(
    consumer: Person, stranger: httpx.AsyncClient
) -> None:
    own = {"scopes": ["keys", "read"], "models": ["small", "big"]}
    limited = await made(consumer, **own)
    narrow = {"scopes": ["read"], "models": ["small"]}
    granted = await consumer.http.post(KEYS, json=narrow, headers=bearer(limited["key"]))
    assert granted.status_code == 201
    rated = await made(consumer, requests_per_minute=60, scopes=["keys", "read"])
    for key in (limited, rated):
        rotated = await consumer.http.post(
            f"/api/keys/{key['id']}/rotate", json={"overlap_s": 0}, headers=bearer(key["key"])
        )
        assert rotated.status_code == 201
        assert await works(stranger, rotated.json()["key"])


async def test_an_operators_limited_key_makes_no_unlimited_operator(
    operator: Person, consumer: Person
) -> None:
    answer = await operator.http.post("/api/accounts/ops/keys", json={"scopes": ["keys"]})
    limited = bearer(answer.json()["key"])
    refused = await operator.http.post("/api/accounts/ops/keys", json={}, headers=limited)
    assert (refused.status_code, refused.json()["code"]) == (403, "not_allowed")


async def test_an_operators_key_hands_out_no_scope_that_it_lacks(
    operator: Person, consumer: Person
) -> None:
    other = await made(consumer, scopes=["calls", "money"])
    own = {"scopes": ["keys", "read"], "models": ["small"]}
    answer = await operator.http.post("/api/accounts/ops/keys", json=own)
    limited, place = bearer(answer.json()["key"]), f"/api/keys/{other['id']}"
    for method, path, body in (
        ("POST", KEYS, {}),
        ("POST", KEYS, {"scopes": ["read", "money"]}),
        ("PATCH", place, {"scopes": ["calls", "money", "deployments"]}),
        ("POST", f"{place}/rotate", {}),
    ):
        refused = await operator.http.request(method, path, json=body, headers=limited)
        assert (refused.status_code, refused.json()["code"]) == (403, "not_allowed"), path
    granted = await operator.http.post(KEYS, json={"scopes": ["read"]}, headers=limited)
    assert granted.status_code == 201
    for change in ({"calls_max": 1}, {"scopes": ["money", "read"]}):
        changed = await operator.http.patch(place, json=change, headers=limited)
        assert changed.status_code == 200, changed.text


async def test_a_session_may_do_what_its_key_may_and_ends_with_it(
    broker: SmallBroker, consumer: Person
) -> None:
    now = broker.clock()

    async def session(key: str) -> str:
        caller = await by_key(broker.engine, key, now)
        return (await open_session(broker.engine, caller, now)).token

    reader = await made(consumer, scopes=["read"])
    token = await session(reader["key"])
    caller = await by_session(broker.engine, token, now)
    assert caller.terms is not None
    assert caller.terms.scopes == {Scope.READ}
    blind = await made(consumer, scopes=["calls"])
    with pytest.raises(ScopeMissing):
        await session(blind["key"])
    await consumer.http.delete(f"/api/keys/{reader['id']}")
    with pytest.raises(CallerUnknown):
        await by_session(broker.engine, token, now)
    other = await made(consumer)
    token = await session(other["key"])
    await consumer.http.post(f"/api/keys/{other['id']}/rotate", json={"overlap_s": 0})
    with pytest.raises(CallerUnknown):
        await by_session(broker.engine, token, broker.clock())


async def test_the_audit_log_tells_of_every_change_of_a_key(
    operator: Person, consumer: Person
) -> None:
    new = await made(consumer, **LIMITED)
    await consumer.http.patch(f"/api/keys/{new['id']}", json={"calls_max": 9})
    rotated = await consumer.http.post(f"/api/keys/{new['id']}/rotate", json={})
    await consumer.http.delete(f"/api/keys/{new['id']}")
    entries = (await operator.http.get("/api/audit")).json()["entries"]
    told = [each for each in entries if each["object"] == f"keys/{new['id']}"]
    actions = [each["action"] for each in told]
    assert actions == ["revoke_key", "rotate_key", "change_key", "issue_key"]
    assert told[-1]["detail"]["budget_day_usd"] == "1.50"
    assert told[-1]["detail"]["models"] == ["acme/law", "small"]
    assert rotated.json()["key"].split("_")[2] not in str(entries)


async def test_the_metrics_tell_of_rate_limits(
    broker: SmallBroker, stranger: httpx.AsyncClient
) -> None:
    rates = Rates(requests_per_minute=1)
    await broker.live.limits.enter("k", rates)
    with pytest.raises(TooManyCalls):
        await broker.live.limits.enter("k", rates)
    text = (await stranger.get("/metrics")).text
    assert "broker_key_rate_refused_total 1.0" in text
    assert "broker_key_rate_granted_alone_total 0.0" in text
