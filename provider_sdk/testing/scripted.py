"""The scripted provider: a real HTTP server that behaves as told, for tests of what can go wrong.

In a test: `async with ScriptedProvider(Script(ttft_ms=50)) as provider: ... provider.url ...`; the
behaviour changes with `provider.script = Script(status=500)`. As a process:
`python -m provider_sdk.testing.scripted --port 9001 --script script.json`.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import signal
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote

import msgspec

from provider_sdk.exchange import Exchange
from provider_sdk.listener import Listener
from provider_sdk.protocol import WELL_KNOWN_PATH
from provider_sdk.testing import answers, kserve
from provider_sdk.testing.answers import Answer, Told, answer_text, chat_prompt, embedding_vector
from provider_sdk.testing.delivery import deliver
from provider_sdk.testing.script import Playback, Script, ScriptWrong, read_script
from provider_sdk.testing.slots import QueueFull, Slots

__all__ = [
    "Received",
    "Script",
    "ScriptedProvider",
    "answer_text",
    "chat_prompt",
    "embedding_vector",
]

_MODEL = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?(?:/(ready|infer))?")
_OPENAI_WORK = {
    "/v1/chat/completions": answers.chat,
    "/v1/completions": answers.completion,
    "/v1/embeddings": answers.embeddings,
}


@dataclass(frozen=True, slots=True)
class Received:
    """A request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body decoded."""
        return msgspec.json.decode(self.body)


class ScriptedProvider:
    """A provider on a real socket that does what its script says."""

    def __init__(
        self, script: Script | None = None, *, host: str = "127.0.0.1", port: int = 0
    ) -> None:
        self._playback = Playback(script or Script())
        self._slots = Slots()
        self._listener = Listener(self._handle, host=host, port=port)
        self.url = f"http://{host}:{self._listener.port}"
        self.port = self._listener.port
        self.calls = 0
        """Work calls that have come."""
        self.finished = 0
        """Work calls whose answer was handed over whole, error answers included."""
        self.cancelled = 0
        """Work calls whose caller left before the end."""
        self.received: deque[Received] = deque(maxlen=1000)
        """The last requests, work calls and others, oldest first."""

    @property
    def script(self) -> Script:
        """What it is told now; setting it takes effect at once and rewinds the sequence."""
        return self._playback.script

    @script.setter
    def script(self, script: Script) -> None:
        self._playback = Playback(script)
        self._obey()

    def _obey(self) -> None:
        self._slots.capacity = self.script.capacity
        self._slots.queue_limit = self.script.queue_limit
        self._slots.admit()
        if self.script.refuse:
            self._listener.refuse()
        else:
            self._listener.open()

    @property
    def in_flight(self) -> int:
        """Work calls being served or queued now."""
        return self._slots.running + self._slots.waiting

    @property
    def running(self) -> int:
        """Work calls being served now."""
        return self._slots.running

    @property
    def waiting(self) -> int:
        """Work calls queued now."""
        return self._slots.waiting

    @property
    def work_received(self) -> list[Received]:
        """The last work calls, oldest first."""
        return [r for r in self.received if _is_work(r.method, r.path)]

    def kill(self) -> None:
        """Die as a killed process does; setting `script` revives it."""
        self._listener.refuse()
        self._listener.reset_all()

    async def __aenter__(self) -> Self:
        self._obey()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._listener.close()

    async def _handle(self, exchange: Exchange) -> None:
        body = await exchange.body()
        headers = {name.decode(): value.decode("latin-1") for name, value in exchange.headers}
        received = Received(exchange.method, exchange.path, headers, body)
        self.received.append(received)
        if _is_work(received.method, received.path):
            await self._work(exchange, received)
        else:
            await self._side(exchange, received)

    async def _work(self, exchange: Exchange, received: Received) -> None:
        self.calls += 1
        try:
            if not self._authorized(received):
                await self._error(exchange, 401, "wrong API key")
                return
            script = self._playback.next()
            async with self._slots.place():
                await self._serve(exchange, received, script)
        except QueueFull:
            await self._error(exchange, 429, "too many requests", retry_after_s=1.0)
        except (asyncio.CancelledError, ConnectionError):
            self.cancelled += 0 if exchange.ended else 1
            raise
        finally:
            self.finished += 1 if exchange.ended else 0

    async def _serve(self, exchange: Exchange, received: Received, script: Script) -> None:
        if script.status != 200:
            await asyncio.sleep(script.latency_ms / 1000)
            text = script.body if script.body is not None else "scripted failure"
            raw = script.body is not None
            await self._error(
                exchange, script.status, text, retry_after_s=script.retry_after_s, raw=raw
            )
            return
        try:
            answer = self._answer(received, script)
        except (
            *(answers.BadRequest, kserve.BadInference),
            *(msgspec.DecodeError, TypeError, KeyError),
        ) as error:
            await self._error(exchange, 400, f"bad request: {error}")
            return
        if answer is None:
            await self._error(exchange, 404, "no such model")
            return
        await deliver(exchange, answer, script)

    def _answer(self, received: Received, script: Script) -> Answer | None:
        if received.path in _OPENAI_WORK:
            request = msgspec.json.decode(received.body, type=dict[str, Any])
            model = request.get("model", self.script.models[0])
            if model not in self.script.models:
                return None
            prompt = "another question" if script.wrong_answer else _prompt(request)
            told = Told(script, request, model, prompt)
            return _OPENAI_WORK[received.path](told)
        match = _MODEL.fullmatch(received.path)
        model = unquote(match[1]) if match is not None else ""
        if match is None or model not in self.script.models:
            return None
        named = (model, match[2] or "1")
        return kserve.infer(named, received.headers, received.body, script)

    async def _side(self, exchange: Exchange, received: Received) -> None:
        """Everything that is no work call."""
        path = received.path
        if path == WELL_KNOWN_PATH and self.script.nonce is not None:
            await exchange.answer(200, self.script.nonce.encode(), "text/plain")
        elif path in ("/health", "/v2/health/live", "/v2/health/ready"):
            await asyncio.sleep(self.script.slow_heartbeat_ms / 1000)
            await exchange.answer(200 if self.script.healthy else 503)
        elif path in ("/metrics", "/v1/models") and not self._authorized(received):
            await self._error(exchange, 401, "wrong API key")
        elif path == "/metrics" and self.script.metrics:
            await asyncio.sleep(self.script.slow_heartbeat_ms / 1000)
            await exchange.answer(200, self._metrics(), "text/plain; version=0.0.4")
        else:
            value = self._description(path)
            if value is None:
                await self._error(exchange, 404, f"no such path: {path}")
            else:
                await exchange.answer(200, msgspec.json.encode(value) if value else b"")

    def _description(self, path: str) -> dict[str, Any] | None:
        """The JSON of a descriptive path; empty for a bare 200, `None` for a 404."""
        if self.script.kind == "openai":
            if path != "/v1/models":
                return None
            card = {"object": "model", "created": answers.CREATED_S, "owned_by": "scripted"}
            return {"object": "list", "data": [{"id": m, **card} for m in self.script.models]}
        if path in ("/v2", "/v2/"):
            return kserve.server_metadata()
        match = _MODEL.fullmatch(path)
        model = unquote(match[1]) if match is not None else ""
        if match is None or model not in self.script.models:
            return None
        return {} if match[3] == "ready" else kserve.model_metadata(model, self.script.datatype)

    def _metrics(self) -> bytes:
        if self.script.kind == "kserve":
            lines = [
                f'nv_inference_pending_request_count{{model="{model}",version="1"}} '
                f"{self.waiting if index == 0 else 0}"
                for index, model in enumerate(self.script.models)
            ]
        else:
            label = f'{{engine="0",model_name="{self.script.models[0]}"}}'
            share = min(1.0, self.running / (self.script.capacity or 100))
            lines = [
                f"vllm:num_requests_running{label} {self.running}.0",
                f"vllm:num_requests_waiting{label} {self.waiting}.0",
                f"vllm:kv_cache_usage_perc{label} {share}",
            ]
        return ("\n".join(lines) + "\n").encode()

    def _authorized(self, received: Received) -> bool:
        key = self.script.api_key
        return key is None or received.headers.get("authorization") == f"Bearer {key}"

    async def _error(
        self,
        exchange: Exchange,
        status: int,
        text: str,
        *,
        retry_after_s: float | None = None,
        raw: bool = False,
    ) -> None:
        headers = []
        if retry_after_s is not None:
            headers.append((b"retry-after", f"{retry_after_s:g}".encode()))
        openai = {"message": text, "type": "scripted", "code": status}
        error = text if self.script.kind == "kserve" else openai
        body = text.encode() if raw else msgspec.json.encode({"error": error})
        await exchange.answer(status, body, headers=headers)


def _is_work(method: str, path: str) -> bool:
    return method == "POST" and (path in _OPENAI_WORK or path.endswith("/infer"))


def _prompt(request: dict[str, Any]) -> str:
    if "messages" in request:
        return chat_prompt(request["messages"])
    asked = request.get("prompt", request.get("input", ""))
    return asked if isinstance(asked, str) else " ".join(map(str, asked))


async def _main(port: int, host: str, script: Script) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with ScriptedProvider(script, host=host, port=port) as provider:
        print(provider.url, flush=True)  # noqa: T201 - the one thing a parent process needs to know
        await stop.wait()


def main(arguments: list[str] | None = None) -> None:
    """The process form; prints its URL when it listens, stops on SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 picks a free one (default)")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--script", type=Path, help="a JSON file with the fields of Script")
    told = parser.parse_args(arguments)
    try:
        script = read_script(told.script) if told.script else Script()
    except ScriptWrong as error:
        parser.error(str(error))
    asyncio.run(_main(told.port, told.host, script))


if __name__ == "__main__":
    main()
