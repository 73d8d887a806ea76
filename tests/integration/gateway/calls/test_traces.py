"""Calls told as spans to a collector: what is in them, and that content is not."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from structlog.testing import capture_logs

from broker.embedded.port import free_port
from broker.errors import SettingInvalid
from broker.outbound.traces import open_traces
from broker.settings import Settings
from broker.store import ledger
from provider_sdk.testing.scripted import Script, ScriptedProvider
from tests.integration.gateway.house import Consumer, House, Stall, open_house
from tests.waiting import until

NEEDED = {"DATABASE_URL": "d", "VALKEY_URL": "v", "BROKER_SECRET_KEY": "ab" * 32}
PROMPT = "nobody else is to read this"


TRACE_ID, CALLERS_SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def _traceparent(provider: ScriptedProvider) -> list[str]:
    """Return the parts of the header of the one call that a provider had."""
    [received] = provider.received
    return received.headers["traceparent"].split("-")


class Collector:
    """Takes spans over HTTP, as they are."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        """The bodies of requests."""
        self.port = 0
        self.refusals = 0
        """So many requests more are refused."""

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                lines = head.lower().split(b"\r\n")
                [length] = [each for each in lines if each.startswith(b"content-length:")]
                self.heard.append(await reader.readexactly(int(length.split(b":")[1])))
                status = b"400 Bad Request" if self.refusals else b"200 OK"
                self.refusals = max(self.refusals - 1, 0)
                writer.write(b"HTTP/1.1 %b\r\ncontent-length: 0\r\n\r\n" % status)
        writer.close()

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        server = await asyncio.start_server(self._take, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield
        finally:
            server.close()


def _spans(bodies: Sequence[bytes]) -> list[dict[str, Any]]:
    """Return the spans of what a collector heard: their own fields, and all attributes by name."""
    service = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
    told = []
    for body in bodies:
        request = service.ExportTraceServiceRequest.FromString(body)
        for resource in request.resource_spans:
            who = _attributes(resource.resource.attributes)
            spans = [each for scope in resource.scope_spans for each in scope.spans]
            told += [{"span": each, **who, **_attributes(each.attributes)} for each in spans]
    return told


def _attributes(pairs: Iterable[Any]) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in pairs}


@contextlib.asynccontextmanager
async def traced_house(
    database_url: str, valkey_server: Any, monkeypatch: pytest.MonkeyPatch, *, absent: bool = False
) -> AsyncIterator[tuple[House, Collector]]:
    """A house all of whose calls are told to a collector, or to where none is."""
    pytest.importorskip("opentelemetry.sdk.trace")
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http.trace_exporter")
    collector = Collector()
    async with collector.listening():
        port = free_port() if absent else collector.port
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        monkeypatch.setenv("OTEL_SERVICE_NAME", "our-broker")
        async with open_house(database_url, valkey_server.url, traces_share=1.0) as house:
            await house.enrol(
                Stall(name="acme/frail", model="pair"), Stall(name="globex/sound", model="pair")
            )
            house.providers["acme/frail"].script = Script(models=("upstream-name",), status=500)
            yield house, collector


async def test_a_call_and_its_attempts_arrive_at_the_collector_without_content(
    database_url: str, valkey_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with traced_house(database_url, valkey_server, monkeypatch) as (house, collector):
        shop = await house.consumer("shop")
        body = {
            "model": "pair",
            "stream": True,
            "max_tokens": 20,
            "messages": [{"role": "user", "content": PROMPT}],
            "broker": {"providers": {"order": ["acme", "globex"]}, "session_id": "talk-1"},
        }
        sent = {"traceparent": f"00-{TRACE_ID}-{CALLERS_SPAN}-00"}
        answer = await shop.http.post("/v1/chat/completions", json=body, headers=sent)
        assert answer.status_code == 200
        parents = [_traceparent(house.providers[each]) for each in ("acme/frail", "globex/sound")]
        call_id = answer.headers["x-broker-call-id"]
        await until(lambda: call_id.encode() in b"".join(collector.heard))
    told = _spans(collector.heard)
    [call] = [each for each in told if "broker.attempt" not in each]
    attempts = [each for each in told if each is not call]
    for each in (call, *attempts):
        assert each["span"].trace_id.hex() == TRACE_ID, "the call and its attempts join the trace"
        assert each["service.name"] == "our-broker", "as the operator has it"
    assert call["span"].parent_span_id.hex() == CALLERS_SPAN
    assert {each["span"].parent_span_id for each in attempts} == {call["span"].span_id}
    by_endpoint = {each["broker.endpoint"]: each for each in attempts}
    failed, served = by_endpoint["acme/frail"], by_endpoint["globex/sound"]
    assert (call["span"].name, served["span"].name) == ("chat pair", "chat upstream-name")
    assert failed["error.type"] == "server_error"
    assert "error.type" not in served | call
    _is_told_by_the_conventions(call, served)
    for (version, trace_id, span_id, flags), sent_as in zip(parents, (failed, served), strict=True):
        assert (version, trace_id, flags) == ("00", TRACE_ID, "01")
        assert span_id == sent_as["span"].span_id.hex(), (
            "the provider hangs its spans on an attempt's"
        )
    heard = b"".join(collector.heard)
    assert PROMPT.encode() not in heard
    words = re.findall(r'"content": ?"(\w{5,})', answer.text)
    assert words
    assert not [each for each in words if each.encode() in heard]


def _is_told_by_the_conventions(call: dict[str, Any], served: dict[str, Any]) -> None:
    """What OpenTelemetry's conventions for generative AI require and recommend."""
    known = pytest.importorskip("opentelemetry.semconv._incubating.attributes.gen_ai_attributes")
    names = {each for each in vars(known).values() if isinstance(each, str)}
    for each in (call, served):
        assert {name for name in each if name.startswith("gen_ai.")} <= names
        assert each["gen_ai.operation.name"] == "chat"
        assert each["gen_ai.request.stream"] is True
        assert each["gen_ai.usage.output_tokens"] > 0
        assert 0 < each["gen_ai.response.time_to_first_chunk"] < 20
    assert (call["gen_ai.provider.name"], served["gen_ai.provider.name"]) == (
        "model-broker",
        "globex",
    )
    assert (call["gen_ai.request.model"], call["gen_ai.response.model"]) == ("pair", "globex/sound")
    assert call["gen_ai.request.max_tokens"] == 20
    assert call["gen_ai.conversation.id"] == "talk-1"
    assert served["server.address"] == "127.0.0.1"


async def test_where_no_collector_takes_them_the_log_says_so_once_and_calls_are_served(
    database_url: str, valkey_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with capture_logs() as logs:
        async with traced_house(database_url, valkey_server, monkeypatch, absent=True) as (
            house,
            _,
        ):
            shop = await house.consumer("shop")
            body = {"model": "pair", "messages": [{"role": "user", "content": PROMPT}]}
            assert (await shop.http.post("/v1/chat/completions", json=body)).status_code == 200
            await until(lambda: any(each["event"] == "traces_not_sent" for each in logs))
            await asyncio.sleep(1.0)  # it tries again meanwhile
    [told] = [each for each in logs if each["event"] == "traces_not_sent"]
    assert "OTEL_EXPORTER_OTLP_ENDPOINT" in told["advice"]
    assert "Max retries" in told["error"]


async def test_when_a_collector_takes_them_again_the_log_says_so(
    database_url: str, valkey_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with capture_logs() as logs:
        async with traced_house(database_url, valkey_server, monkeypatch) as (house, collector):
            collector.refusals = 1
            shop = await house.consumer("shop")
            body = {"model": "pair", "messages": [{"role": "user", "content": PROMPT}]}
            assert (await shop.http.post("/v1/chat/completions", json=body)).status_code == 200
            # Another's spans, of a house before, may be what the log speaks of.
            await until(lambda: collector.refusals == 0)
            await until(lambda: any(each["event"] == "traces_not_sent" for each in logs))
            assert (await shop.http.post("/v1/chat/completions", json=body)).status_code == 200
            await until(lambda: any(each["event"] == "traces_sent_again" for each in logs))
    events = [each["event"] for each in logs]
    assert events.index("traces_not_sent") < events.index("traces_sent_again")


async def test_a_call_is_told_once_it_is_settled_and_as_it_was(
    database_url: str, valkey_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with traced_house(database_url, valkey_server, monkeypatch) as (house, collector):
        await house.enrol(Stall(name="acme/slow"))
        slow = house.providers["acme/slow"]
        slow.script = Script(models=("upstream-name",), ttft_ms=500)
        shop = await house.consumer("shop")
        body = {"model": "acme/slow", "messages": [{"role": "user", "content": PROMPT}]}
        calling = asyncio.create_task(shop.http.post("/v1/chat/completions", json=body))
        await until(lambda: slow.in_flight == 1)
        await house.database.execute("UPDATE open_holds SET expires_at = now()")
        assert await ledger.expire_holds(house.database, datetime.now(UTC), 10) == 1
        answer = await calling
        assert answer.status_code == 503, answer.text
        call_id = answer.headers["x-broker-call-id"]
        await until(lambda: call_id.encode() in b"".join(collector.heard))
    [call] = [each for each in _spans(collector.heard) if "broker.attempt" not in each]
    assert call["error.type"] == "hold_expired"
    assert call["http.response.status_code"] == 503
    assert call["broker.charge_usd"] == "0.00"


async def test_while_traces_are_off_no_provider_is_told_of_its_callers_trace(
    house: House, shop: Consumer
) -> None:
    await house.enrol(Stall(name="acme/untraced"))
    body = {"model": "acme/untraced", "messages": [{"role": "user", "content": PROMPT}]}
    sent = {"traceparent": f"00-{TRACE_ID}-{CALLERS_SPAN}-01"}
    answer = await shop.http.post("/v1/chat/completions", json=body, headers=sent)
    assert answer.status_code == 200
    [received] = house.providers["acme/untraced"].received
    assert TRACE_ID not in str(received.headers)


@pytest.mark.parametrize("text", ["-0.1", "1.1", "some"])
def test_a_share_lies_between_none_and_all(text: str) -> None:
    assert Settings.from_env(NEEDED).traces_share == 0.0
    assert Settings.from_env(NEEDED | {"BROKER_TRACES_SHARE": "0.01"}).traces_share == 0.01
    with pytest.raises(SettingInvalid, match="BROKER_TRACES_SHARE"):
        Settings.from_env(NEEDED | {"BROKER_TRACES_SHARE": text})


def test_without_a_share_nothing_is_opened() -> None:
    assert open_traces(0.0, lambda: 0.0) is None
