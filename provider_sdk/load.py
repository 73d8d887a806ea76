"""Asks a local inference server how it is: alive, how busy, how wide."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

import httpx
import msgspec

from provider_sdk.backends import BACKENDS, NONE, detect
from provider_sdk.backends.prometheus import Scrape, parse
from provider_sdk.backends.signals import Signals
from provider_sdk.protocol import Kind, LoadReport

log = logging.getLogger(__name__)

METRICS_LIMIT_BYTES = 8 * 1024 * 1024
TIMEOUT_S = 2.0
HEALTH_PATHS: dict[Kind, tuple[str, ...]] = {
    "openai": ("/health", "/v1/models"),
    "kserve": ("/v2/health/ready", "/v2/health/live"),
}
TRITON_PORT, TRITON_METRICS_PORT = 8000, 8002
NOTHING_KNOWN = LoadReport()


@dataclass(frozen=True, slots=True)
class ServerState:
    """What is known of a server at one moment."""

    alive: bool
    load: LoadReport = NOTHING_KNOWN
    backend: str = "none"
    detail: str = ""
    """Why it is not thought alive, or where its load was read."""


class LoadReader:
    """Reads one server's state; remembers what kind of server it is."""

    def __init__(
        self,
        server: str,
        kind: Kind,
        *,
        backend: str = "auto",
        credential: str | None = None,
        metrics_url: str | None = None,
    ) -> None:
        self._server = server.rstrip("/")
        self._kind: Kind = kind
        self._signals: Signals | None = None if backend == "auto" else BACKENDS[backend]
        self._metrics_urls = [metrics_url] if metrics_url else metrics_urls(self._server, kind)
        # llama.cpp guards its metrics with the same key as its calls
        headers = {"authorization": f"Bearer {credential}"} if credential else {}
        self._http = httpx.AsyncClient(headers=headers, timeout=TIMEOUT_S, trust_env=False)

    async def read(self) -> ServerState:
        """The state now; never fails, at worst the server is not alive."""
        alive, detail = await self._health()
        if not alive:
            return ServerState(alive=False, detail=detail)
        if self._signals is NONE:
            return ServerState(alive=True, detail="health only")
        url, scrape = await self._scrape()
        if scrape is None:
            return ServerState(alive=True, detail=f"health only: no metrics at {url}")
        signals = self._signals or detect(scrape)
        return ServerState(
            alive=True, load=signals.read(scrape), backend=signals.backend, detail=url
        )

    async def capacity(self) -> int | None:
        """How many calls the server says it serves at once, where it says so."""
        _url, scrape = await self._scrape()
        signals = self._signals or detect(scrape or {})
        if signals.capacity_path is None:
            return None
        content, _detail = await self._get(self._server + signals.capacity_path)
        try:
            value = msgspec.json.decode(content or b"{}", type=dict[str, object])
        except msgspec.DecodeError:
            return None
        slots = value.get(signals.capacity_field)
        return slots if isinstance(slots, int) and slots > 0 else None

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _health(self) -> tuple[bool, str]:
        """Alive when any health path answers; a busy server's 503 on all of them is "no"."""
        detail = ""
        for path in HEALTH_PATHS[self._kind]:
            content, detail = await self._get(self._server + path)
            if content is not None:
                return True, ""
        return False, detail

    async def _scrape(self) -> tuple[str, Scrape | None]:
        for url in self._metrics_urls:
            content, _detail = await self._get(url)
            if content is not None:
                return url, parse(content.decode("utf-8", "replace"))
        return self._metrics_urls[-1], None

    async def _get(self, url: str) -> tuple[bytes | None, str]:
        """The body of a 200, at most `METRICS_LIMIT_BYTES` of it; else `None` and why."""
        try:
            async with self._http.stream("GET", url) as response:
                if response.status_code != 200:
                    return None, f"{url} answered {response.status_code}"
                parts = bytearray()
                async for data in response.aiter_bytes():
                    parts += data
                    if len(parts) > METRICS_LIMIT_BYTES:
                        return None, f"{url} answered more than {METRICS_LIMIT_BYTES} bytes"
                return bytes(parts), ""
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return None, f"{url}: {str(error) or type(error).__name__}"


def metrics_urls(server: str, kind: Kind) -> list[str]:
    """Where a server's metrics may be; Triton has them two ports above its default port."""
    parts = urlsplit(server)
    urls = [f"{server}/metrics"]
    if kind == "kserve" and parts.port == TRITON_PORT:
        netloc = f"{parts.hostname}:{TRITON_METRICS_PORT}"
        urls.append(urlunsplit((parts.scheme, netloc, "/metrics", "", "")))
    return urls
