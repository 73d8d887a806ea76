"""Suites over HTTP: who brings them, who may read them, and how far examinations are."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import event

from tests.integration.api.beside import done_beside
from tests.integration.api.conftest import Person, SmallBroker
from tests.integration.api.listing import list_endpoints
from tests.integration.catalog.offers import endpoint_offer
from tests.integration.routing.examples import COOKING

ROW = json.dumps({"prompt": "2+2?", "reference": 4, "metric": "numeric"})
JUDGED = json.dumps({"prompt": "Why?", "metric": "judge"})


async def test_an_operator_brings_a_suite_and_broken_rows_are_named(
    operator: Person, provider: Person
) -> None:
    lines = "\n".join([ROW, "no json", JUDGED])
    brought = await operator.http.put("/api/suites/law?judge=acme/judge", content=lines)
    assert brought.status_code == 200, brought.text
    assert (brought.json()["rows"], [each["line"] for each in brought.json()["broken"]]) == (2, [2])
    shown = (await operator.http.get("/api/suites/law")).json()
    assert [each["metric"] for each in shown["items"]] == ["numeric", "judge"]
    assert shown["items"][1]["judge"] == "acme/judge"
    # Who is examined on it must not read it.
    assert (await provider.http.get("/api/suites")).json() == {"suites": []}
    assert (await provider.http.get("/api/suites/law")).status_code == 404
    assert (await provider.http.delete("/api/suites/law")).status_code == 404
    none = await operator.http.put("/api/suites/law", content="no json")
    assert (none.status_code, none.json()["code"]) == (400, "suite_empty")
    entries = (await operator.http.get("/api/audit")).json()["entries"]
    assert entries[0]["detail"] == {"rows": 2, "broken": 1}
    assert (await operator.http.delete("/api/suites/law")).status_code == 204
    assert (await operator.http.get("/api/suites")).json() == {"suites": []}


async def test_of_suites_in_a_list_no_row_is_read_and_one_is_shown_beside_the_calls(
    operator: Person, broker: SmallBroker
) -> None:
    asked: list[str] = []

    def note(*told: Any) -> None:
        if "FROM suites" in told[2]:
            asked.append(told[2])

    await operator.http.put("/api/suites/law", content="\r\n".join([ROW, "", ROW]))
    event.listen(broker.engine.sync_engine, "before_cursor_execute", note)
    listed = (await operator.http.get("/api/suites")).json()["suites"]
    event.remove(broker.engine.sync_engine, "before_cursor_execute", note)
    assert [each["rows"] for each in listed] == [2]
    assert len(asked) == 1
    assert "items" not in asked[0]
    with done_beside() as done:
        shown = await operator.http.get("/api/suites/law")
    assert shown.content in done.results()
    assert len(shown.json()["items"]) == 2


async def test_a_provider_brings_suites_for_domains_of_its_own_without_a_judge(
    operator: Person, provider: Person, other_provider: Person
) -> None:
    await provider.http.put("/api/domains/food", json={"examples": COOKING})
    assert (await other_provider.http.put("/api/suites/food", content=ROW)).status_code == 403
    assert (await provider.http.put("/api/suites/law", content=ROW)).status_code == 403
    judged = await provider.http.put("/api/suites/food?judge=a/b", content=JUDGED)
    assert judged.status_code == 403
    assert (await provider.http.put("/api/suites/food", content=ROW)).is_success
    assert (await provider.http.get("/api/suites/food")).json()["rows"] == 1
    assert (await operator.http.put("/api/suites/food", content=ROW + "\n" + ROW)).is_success
    taken = await provider.http.put("/api/suites/food", content=ROW)
    assert (taken.status_code, taken.json()["code"]) == (403, "not_allowed")


async def test_examinations_are_ordered_by_who_owns_the_endpoint_and_shown_as_they_stand(
    operator: Person,
    provider: Person,
    other_provider: Person,
    consumer: Person,
    broker: SmallBroker,
) -> None:
    await list_endpoints(broker, provider.account, endpoint_offer(domains={"law": 0.9}))
    asked = {"endpoint": "acme/law"}
    missing = await provider.http.post("/api/examinations", json=asked)
    assert (missing.status_code, missing.json()["code"]) == (400, "suite_missing")
    await operator.http.put("/api/suites/law", content=ROW)
    assert (await other_provider.http.post("/api/examinations", json=asked)).status_code == 404
    ordered = await provider.http.post("/api/examinations", json=asked)
    assert (ordered.status_code, len(ordered.json()["ids"])) == (202, 1)
    assert (await operator.http.post("/api/examinations", json=asked)).json() == {"ids": []}
    [shown] = (await consumer.http.get("/api/examinations?endpoint=acme/law")).json()[
        "examinations"
    ]
    assert (shown["status"], shown["claimed"], shown["claim"]) == ("waiting", 0.9, None)
