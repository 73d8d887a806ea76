"""Every error is a problem document that names what is wrong and tells no more."""

from __future__ import annotations

import dataclasses
from typing import Any

import httpx
import msgspec
import pytest
from structlog.testing import capture_logs

from broker.api.app import create_api
from broker.api.calls.quotes import QuoteWanted
from broker.api.market.simulations import SimulationAsked
from broker.store.database import create_engine
from tests.integration.api.conftest import Person, SmallBroker, Stage, Standing, client_of

MEMBERS = {"type", "title", "status", "detail", "code"}


def assert_problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-broker-version"]
    problem: dict[str, Any] = answer.json()
    assert problem.keys() >= MEMBERS
    assert (problem["status"], problem["code"]) == (status, code)
    return problem


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": "shop", "role": "consumer", "colour": "red"}, "colour"),
        ({"name": "shop"}, "role"),
        ({"name": "shop", "role": "king"}, "role"),
        ({"name": 7, "role": "consumer"}, "name"),
        ([], "object"),
    ],
)
async def test_a_faulty_body_is_refused_with_the_field_named(
    standing: Standing, body: object, field: str
) -> None:
    answer = await standing.operator.http.post("/api/accounts", json=body)
    assert field in str(assert_problem(answer, 400, "request_malformed")["detail"])


@pytest.mark.parametrize(
    ("method", "path", "body", "detail"),
    [
        ("POST", "accounts", {"name": "a", "role": "king"}, "role: 'king' is none of consumer,"),
        ("POST", "accounts", {"a": 1}, "body: Object contains unknown field `a`"),
        ("POST", "accounts", None, "body: is missing"),
        ("GET", "accounts?role=king", None, "role: 'king' is none of consumer, provider, operator"),
    ],
)
async def test_what_may_stand_where_something_else_stood_is_told(
    standing: Standing, method: str, path: str, body: object, detail: str
) -> None:
    answer = await standing.operator.http.request(method, f"/api/{path}", json=body)
    told = assert_problem(answer, 400, "request_malformed")
    assert str(told["detail"]).startswith(detail)
    assert detail.startswith(f"{told['fields'][0]['field']}: ")


DEEP = b'{"name":' + b"[" * 100_000 + b"]" * 100_000 + b"}"


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff\xfe", b'{"name": "a"', b"null", DEEP, b'"\xff"']
)
async def test_a_body_that_is_no_json_is_refused(standing: Standing, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    answer = await standing.operator.http.post("/api/accounts", content=body, headers=headers)
    assert_problem(answer, 400, "request_malformed")


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/api/accounts?limit=0", "limit"),
        ("/api/accounts?limit=many", "limit"),
        ("/api/accounts?cursor=1", "cursor"),
        ("/api/accounts?role=king", "role"),
        ("/api/accounts?colour=red", "colour"),
        ("/api/audit?limit=1001", "limit"),
        ("/api/prices/history?from=yesterday&endpoint=a/b", "from"),
        ("/api/prices/history", "endpoint"),
    ],
)
async def test_a_faulty_query_is_refused_with_the_parameter_named(
    standing: Standing, path: str, field: str
) -> None:
    answer = await standing.operator.http.get(path)
    assert answer.status_code == 400
    assert field in answer.json()["detail"]


async def test_paths_and_methods_that_are_not_are_told_so(standing: Standing) -> None:
    operator = standing.operator
    nothing = assert_problem(await operator.http.get("/api/nothing"), 404, "not_found")
    assert "/api/nothing" in nothing["detail"]
    assert_problem(await operator.http.get("/nothing"), 404, "not_found")
    assert_problem(await operator.http.put("/api/accounts"), 405, "method_not_allowed")


async def test_what_a_path_takes_is_told_to_who_may_go_there(
    stranger: httpx.AsyncClient, consumer: Person, operator: Person
) -> None:
    assert_problem(await stranger.options("/api/balance"), 401, "invalid_api_key")
    assert_problem(await operator.http.options("/api/balance"), 403, "not_allowed")
    assert (await consumer.http.options("/api/balance")).status_code == 204


def test_no_body_has_a_member_named_like_what_its_handler_is_given(stage: Stage) -> None:
    """Litestar takes what is wrong with such a member for a fault of the broker's own: 500."""
    bodies, alike = set(), []
    for route in stage.api.routes:
        for handler in getattr(route, "route_handlers", ()):
            told = handler.parsed_fn_signature.parameters.get("data")
            kind = told and next(iter(told.inner_types), told).annotation
            if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
                bodies.add(kind)
                names = set(handler.resolve_dependencies()) & set(kind.__struct_fields__)
                alike += [(kind.__name__, name) for name in names]
    assert {QuoteWanted, SimulationAsked} <= bodies
    assert alike == []


async def test_a_body_that_is_too_large_is_413_and_says_what_it_may_be(standing: Standing) -> None:
    answer = await standing.operator.http.post(
        "/api/accounts", json={"name": "a" * (1 << 20), "role": "consumer"}
    )
    assert_problem(answer, 413, "body_too_large")
    assert answer.json()["detail"] == "A body has at most 1,048,576 bytes here."


async def test_a_dead_database_is_503_and_never_401(broker: SmallBroker, consumer: Person) -> None:
    away = create_engine("postgresql://nobody@127.0.0.1:1/none")
    async with client_of(create_api(dataclasses.replace(broker, engine=away))) as client:
        answer = await client.get(
            "/api/balance", headers={"authorization": f"Bearer {consumer.key}"}
        )
        assert_problem(answer, 503, "unavailable")
        assert answer.headers["retry-after"] == "1"
        ready = await client.get("/health/ready")
        assert (ready.status_code, ready.json()["database"]) == (503, "cannot be reached")
        assert (await client.get("/health")).status_code == 200
    await away.dispose()


async def test_what_no_database_keeps_is_the_callers_fault_and_moves_nothing(
    operator: Person, consumer: Person
) -> None:
    nul, late = "a\0b", "9999-12-31T23:59:59-14:00"
    place = f"/api/accounts/{consumer.account.name}"
    for answer in (
        await operator.http.post(
            f"{place}/topups",
            json={"amount_usd": "1.00", "reason": nul},
            headers={"idempotency-key": "k"},
        ),
        await operator.http.get("/api/accounts/a%00b/balance"),
        await operator.http.get("/api/audit", params={"author": nul}),
        await consumer.http.post(f"{place}/keys", json={"label": nul}),
        await consumer.http.post(f"{place}/keys", json={"expires_at": late}),
        await consumer.http.get("/api/statement", params={"from": late}),
    ):
        assert_problem(answer, 400, "value_unkeepable")
    assert (await consumer.http.get("/api/balance")).json()["posted_usd"] == "0.00"
    again = await operator.http.post(
        f"{place}/topups",
        json={"amount_usd": "1.00", "reason": "paid"},
        headers={"idempotency-key": "k"},
    )
    assert again.status_code == 201, "the key was free again"


async def test_what_breaks_inside_is_logged_and_not_told(
    broker: SmallBroker, operator: Person
) -> None:
    def broken() -> float:
        raise RuntimeError("the secret inside")

    async with client_of(create_api(dataclasses.replace(broker, now_s=broken))) as client:
        headers = {"authorization": f"Bearer {operator.key}"}
        with capture_logs() as logs:
            answer = await client.get("/api/prices", headers=headers)
    problem = assert_problem(answer, 500, "internal_error")
    assert "secret" not in str(problem)
    assert "Traceback" not in answer.text
    assert [each["event"] for each in logs] == ["request_broke"]
