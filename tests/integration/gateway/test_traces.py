"""Calls told as spans to a collector: what is in them, and that content is not."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from broker.errors import SettingInvalid
from broker.outbound.traces import open_traces
from broker.settings import Settings
from provider_sdk.testing.scripted import Script, ScriptedProvider
from tests.integration.gateway.house import Consumer, House, Stall, open_house, until

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
        self.heard = b""
        self.port = 0

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                lines = head.lower().split(b"\r\n")
                [length] = [each for each in lines if each.startswith(b"content-length:")]
                self.heard += await reader.readexactly(int(length.split(b":")[1]))
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        writer.close()

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        server = await asyncio.start_server(self._take, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield
        finally:
            server.close()


async def test_a_call_and_its_attempts_arrive_at_the_collector_without_content(
    database_url: str, valkey_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("opentelemetry.sdk.trace")
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http.trace_exporter")
    collector = Collector()
    async with collector.listening():
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.port}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        async with open_house(database_url, valkey_server.url, traces_share=1.0) as house:
            await house.enrol(
                Stall(name="acme/frail", model="pair"), Stall(name="globex/sound", model="pair")
            )
            house.providers["acme/frail"].script = Script(models=("upstream-name",), status=500)
            shop = await house.consumer("shop")
            body = {
                "model": "pair",
                "messages": [{"role": "user", "content": PROMPT}],
                "broker": {"providers": {"order": ["acme", "globex"]}},
            }
            sent = {"traceparent": f"00-{TRACE_ID}-{CALLERS_SPAN}-00"}
            answer = await shop.http.post("/v1/chat/completions", json=body, headers=sent)
            assert answer.status_code == 200
            parents = [_traceparent(each) for each in house.providers.values()]
            call_id = answer.headers["x-broker-call-id"].encode()
            await until(lambda: call_id in collector.heard)
    heard = collector.heard
    for told in (b"chat pair", b"gen_ai.operation.name", b"gen_ai.usage.output_tokens"):
        assert told in heard
    for told in (b"acme/frail", b"server_error", b"globex/sound", b"chat upstream-name"):
        assert told in heard
    assert heard.count(bytes.fromhex(TRACE_ID)) == 3, "the call and its attempts join the trace"
    assert bytes.fromhex(CALLERS_SPAN) in heard
    for version, trace_id, span_id, flags in parents:
        assert (version, trace_id, flags) == ("00", TRACE_ID, "01")
        assert bytes.fromhex(span_id) in heard, "the provider hangs its spans on an attempt's"
    assert len({span_id for _, _, span_id, _ in parents}) == 2
    assert PROMPT.encode() not in heard
    assert answer.json()["choices"][0]["message"]["content"].encode() not in heard


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
