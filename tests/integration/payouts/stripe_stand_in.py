"""A stand-in for the transfers of Stripe's API on a free port of 127.0.0.1, with its faults."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit


@dataclass
class StripeStandIn:
    """Keeps transfers as Stripe does: once for each idempotency key, found by their group."""

    transfers: list[dict[str, Any]] = field(default_factory=list)
    keys: dict[str, dict[str, Any]] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    authorizations: set[str] = field(default_factory=set)
    lose_answers: int = 0
    """So many transfers are made, and the connection cut before they are told."""
    refusals: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    """Status and error of the next answers to a transfer."""
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @contextlib.asynccontextmanager
    async def serving(self):
        """Listen for the block."""
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            yield self

    def forget_keys(self) -> None:
        """What happens to idempotency keys after a day."""
        self.keys.clear()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                line, *rest = head.decode().split("\r\n")
                headers = dict(each.lower().split(": ", 1) for each in rest if each)
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                status, answer = self._serve(line, headers, body.decode())
                if status == 0:
                    break
                content = json.dumps(answer).encode()
                writer.write(
                    f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n"
                    f"content-length: {len(content)}\r\n\r\n".encode()
                    + content
                )
                await writer.drain()
        writer.close()

    def _serve(self, line: str, headers: dict[str, str], body: str) -> tuple[int, Any]:
        method, target, _ = line.split(" ")
        self.authorizations.add(headers["authorization"])
        path = urlsplit(target)
        assert path.path == "/v1/transfers"
        if method == "GET":
            [group] = parse_qs(path.query)["transfer_group"]
            found = [each for each in self.transfers if each["transfer_group"] == group]
            return 200, {"object": "list", "data": found, "has_more": False, "url": path.path}
        if self.refusals:
            status, error = self.refusals.pop(0)
            return status, {"error": error}
        made = self._transfer(headers["idempotency-key"], dict(parse_qsl(body)))
        if self.lose_answers:
            self.lose_answers -= 1
            return 0, None
        return 200, made

    def _transfer(self, key: str, asked: dict[str, str]) -> dict[str, Any]:
        self.asked.append((key, asked))
        if key not in self.keys:
            self.keys[key] = {
                "id": f"tr_{len(self.transfers) + 1}",
                "object": "transfer",
                "amount": int(asked["amount"]),
                "currency": asked["currency"],
                "destination": asked["destination"],
                "transfer_group": asked["transfer_group"],
                "reversed": False,
            }
            self.transfers.append(self.keys[key])
        return self.keys[key]
