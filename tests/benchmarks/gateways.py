"""The broker as a gateway among others, the provider behind all, and what is asked of them."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from broker.embedded.port import free_port
from tests.benchmarks.processes import wait_gone
from tests.benchmarks.side_by_side import Gateway
from tests.benchmarks.stand import Stand

PROMPT: Final = (
    "Classify this support ticket: my order 12345 has not arrived and I want a refund. "
    "What category is it?"
)


def broker(
    stand: Stand, *, script: str, path: str = "/v1/chat/completions", name: str = "broker"
) -> Gateway:
    """Return a broker on a stand."""
    port = free_port()
    return Gateway(
        name=name,
        start=(sys.executable, "-m", "broker.cli.main", "serve", "--port", str(port)),
        port=port,
        script=script,
        path=path,
        ready="/health/ready",
        env=stand.env,
    )


def chat_script(key: str, model: str, *, stream: bool = False) -> str:
    """Return a wrk script of one chat completion, asked for again and again."""
    body: dict[str, object] = {
        "model": model,
        "max_tokens": 64,
        "messages": [{"role": "user", "content": PROMPT}],
    }
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    text = json.dumps(body, separators=(",", ":"))
    return "\n".join(
        [
            'wrk.method = "POST"',
            'wrk.headers["Content-Type"] = "application/json"',
            f'wrk.headers["Authorization"] = "Bearer {key}"',
            f"wrk.body = {json.dumps(text)}",
        ]
    )


@asynccontextmanager
async def provider(*options: str) -> AsyncIterator[int]:
    """Run a provider for benchmarks; yields its port."""
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.benchmarks.provider", str(port), *options
    )
    try:
        yield port
    finally:
        process.terminate()
        await wait_gone(process, 5)
