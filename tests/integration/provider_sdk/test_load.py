"""The state of a local server is read, whatever the server lacks."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from provider_sdk.exchange import Exchange
from provider_sdk.listener import Listener
from provider_sdk.load import LoadReader, metrics_urls
from provider_sdk.protocol import LoadReport
from provider_sdk.testing.scripted import Script, ScriptedProvider

Answers = dict[str, tuple[int, bytes]]


def server_with(answers: Answers, key: str = "") -> Listener:
    async def handle(exchange: Exchange) -> None:
        if key and exchange.path != "/health" and exchange.header("authorization") != key:
            await exchange.answer(401)
        else:
            status, body = answers.get(exchange.path, (404, b""))
            await exchange.answer(status, body)

    return Listener(handle)


async def test_a_server_like_vllm_is_known_by_its_metrics(provider: ScriptedProvider) -> None:
    reader = LoadReader(provider.url, "openai")
    state = await reader.read()
    assert (state.alive, state.backend) == (True, "vllm")
    assert state.load == LoadReport(running=0, waiting=0, kv_usage=0.0)
    await reader.close()


async def test_a_server_like_triton_is_known_by_its_metrics() -> None:
    async with ScriptedProvider(Script(kind="kserve", models=("a", "b"))) as provider:
        reader = LoadReader(provider.url, "kserve")
        state = await reader.read()
        assert (state.alive, state.backend) == (True, "triton")
        assert state.load == LoadReport(waiting=0)
        await reader.close()


async def test_the_key_is_shown_when_metrics_are_guarded_and_slots_are_read() -> None:
    answers = {
        "/health": (200, b"{}"),
        "/metrics": (200, b"llamacpp:requests_processing 2\nllamacpp:requests_deferred 1\n"),
        "/props": (200, b'{"total_slots": 4}'),
    }
    async with server_with(answers, "Bearer sk") as listener:
        url = f"http://127.0.0.1:{listener.port}"
        reader = LoadReader(url, "openai", credential="sk")
        assert (await reader.read()).load == LoadReport(running=2, waiting=1)
        assert await reader.capacity() == 4
        await reader.close()
        stranger = LoadReader(url, "openai")
        state = await stranger.read()
        assert (state.alive, state.backend, state.load) == (True, "none", LoadReport())
        await stranger.close()


async def test_a_server_without_metrics_or_health_path_still_lives() -> None:
    async with server_with({"/v1/models": (200, b"{}")}) as listener:
        reader = LoadReader(f"http://127.0.0.1:{listener.port}", "openai")
        state = await reader.read()
        assert (state.alive, state.load) == (True, LoadReport())
        assert "health only" in state.detail
        assert await reader.capacity() is None
        await reader.close()


@pytest.mark.parametrize(
    "spoil", [lambda: Script(healthy=False, api_key="k"), lambda: Script(refuse=True)]
)
async def test_a_server_that_does_not_answer_is_down_and_says_why(
    provider: ScriptedProvider, spoil: Callable[[], Script]
) -> None:
    provider.script = spoil()
    reader = LoadReader(provider.url, "openai")
    state = await reader.read()
    assert not state.alive
    assert provider.url in state.detail
    await reader.close()


async def test_a_named_backend_and_metrics_url_are_used() -> None:
    metrics = b"tgi_queue_size 3\nvllm:num_requests_running 9\n"
    answers = {"/health": (200, b""), "/m": (200, metrics)}
    async with server_with(answers) as listener:
        url = f"http://127.0.0.1:{listener.port}"
        reader = LoadReader(url, "openai", backend="tgi", metrics_url=f"{url}/m")
        assert (await reader.read()).load == LoadReport(waiting=3)
        await reader.close()
        silent = LoadReader(url, "openai", backend="none", metrics_url=f"{url}/m")
        assert (await silent.read()).load == LoadReport()
        await silent.close()


def test_the_metrics_of_triton_are_looked_for_on_their_default_port() -> None:
    at_default = metrics_urls("http://127.0.0.1:8000", "kserve")
    assert at_default[-1] == "http://127.0.0.1:8002/metrics"
    assert metrics_urls("http://h:9000", "kserve") == ["http://h:9000/metrics"]
