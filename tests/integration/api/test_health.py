"""Health, metrics, and the description of the interface: open to all, telling nothing private."""

from __future__ import annotations

import httpx

from broker.api.docs_page import yaml_of
from broker.api.metrics.market_gauges import MarketGauges
from tests.integration.api.conftest import Person, SmallBroker
from tests.integration.api.listing import list_endpoints, publish
from tests.integration.catalog.offers import endpoint_offer


async def test_health_and_readiness_need_no_key(
    broker: SmallBroker, stranger: httpx.AsyncClient
) -> None:
    assert (await stranger.get("/health")).json() == {"status": "ok"}
    ready = await stranger.get("/health/ready")
    assert (ready.status_code, ready.json()["ready"]) == (200, True)
    assert ready.headers["x-broker-version"]
    broker.settles = False
    stuck = await stranger.get("/health/ready")
    assert (stuck.status_code, stuck.json()["database"]) == (503, "takes no writes")
    broker.stopping = broker.settles = True
    stopping = await stranger.get("/health/ready")
    assert (stopping.status_code, stopping.json()["process"]) == (503, "stopping")


def balances_told(text: str) -> float:
    """How many balances the metrics have counted."""
    counter = 'broker_api_answers_total{method="GET",route="/api/balance",status="200"} '
    [count] = [line for line in text.splitlines() if line.startswith(counter)]
    return float(count.removeprefix(counter))


async def test_metrics_count_by_route_and_name_no_private_endpoint(
    broker: SmallBroker, stranger: httpx.AsyncClient, provider: Person, consumer: Person
) -> None:
    hidden = endpoint_offer(name="hidden", visible_to=["shop"])
    shelved = endpoint_offer(name="hidden-from-all", visible_to=[])
    await list_endpoints(broker, provider.account, endpoint_offer(), hidden, shelved)
    await publish(broker, 3, 250_000)
    await consumer.http.get("/api/balance")
    before = balances_told((await stranger.get("/metrics")).text)
    await consumer.http.get("/api/balance")
    await stranger.get("/api/nothing/secret-path")
    text = (await stranger.get("/metrics")).text
    assert balances_told(text) == before + 1
    assert 'broker_endpoint_price_in_micros{endpoint="acme/law"} 250000.0' in text
    assert 'broker_endpoints{health="ready"} 3.0' in text
    assert "broker_price_version 3.0" in text
    assert "hidden" not in text
    assert "secret-path" not in text


async def test_a_market_that_takes_long_to_show_is_shown_alike_to_all_who_ask_soon(
    broker: SmallBroker, provider: Person
) -> None:
    await list_endpoints(broker, provider.account, endpoint_offer())
    await publish(broker, 3, 250_000)
    large, small = MarketGauges(broker, little_s=0.0, share=1e-9), MarketGauges(broker)
    first = [await large.text(), await small.text()]
    assert first[0] == first[1]
    await publish(broker, 4, 260_000)
    assert await large.text() is first[0]
    assert b"broker_price_version 4.0" in await small.text()


async def test_the_interface_describes_itself(stranger: httpx.AsyncClient) -> None:
    described = (await stranger.get("/api/docs/openapi.json")).json()
    assert {"/api/balance", "/api/prices/stream", "/health"} <= described["paths"].keys()
    told = described["paths"]["/api/prices"]["get"]["responses"]["200"]["content"]
    assert told["application/json"]["schema"]["$ref"].endswith("Prices"), "written beside, as typed"
    written = await stranger.get("/api/docs/openapi.yaml")
    assert written.headers["content-type"].startswith("application/vnd.oai.openapi")
    assert written.text == yaml_of(described)
    page = await stranger.get("/api/docs")
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert all(path in page.text for path in described["paths"]), "nothing is left out for people"
    assert "<script" not in page.text
    assert "<code>amount_usd</code> <small>body, needed</small>" in page.text


async def test_times_have_the_same_names_wherever_they_are_asked_for_or_told(
    stranger: httpx.AsyncClient,
) -> None:
    described = (await stranger.get("/api/docs/openapi.json")).json()
    names = {
        name: {*kind.get("properties", ())}
        for name, kind in described["components"]["schemas"].items()
    }
    spans = {name for name, fields in names.items() if "to" in fields}
    assert spans >= {"PriceAdvice", "LostCallsShown"}
    assert all("from" in names[name] for name in spans)
    assert {name for name, fields in names.items() if "valid_from" in fields} >= {
        *("ChoiceAsked", "ChoiceShown", "PlanAsked", "PlanShown")
    }
    others = {"until", "effective_from", "effective_to", "starts_at", "ends_at"}
    assert not {name for name, fields in names.items() if others & fields}
