"""What a brokered call costs in CPU, next to vllm-router in the same run.

    GATEWAY_BENCH=DIR python -m tests.benchmarks.gateway [--stream] [--auto] [--peers] [--seconds 6]
    python -m tests.benchmarks.gateway --tensor
    python -m tests.benchmarks.gateway --latency
    python -m tests.benchmarks.gateway --stalls
    python -m tests.benchmarks.gateway --market 10000

DIR holds `gateway_cost.py` and `upstream.py`. Needs `wrk`, and `vllm-router` on PATH or named by
VLLM_ROUTER. The whole path is on: key, decision among 100 endpoints, durable hold, forward, meter,
capture, call record, with prices ticking. PostgreSQL and Valkey run apart; their CPU is reported
beside. Without --auto `model` names one endpoint. With --peers Portkey and LiteLLM are measured
too, where PORTKEY names its `start-server.js` and LITELLM its command. The last line is one JSON
object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from broker.embedded.port import free_port
from tests.benchmarks import crowded, latencies, stalls, tensors
from tests.benchmarks.peers import peers
from tests.benchmarks.processes import stop_when_told, wait_gone
from tests.benchmarks.side_by_side import Load
from tests.benchmarks.stand import Stand, open_stand

ENDPOINTS = 100
NAMED = "benchmark-provider/e0"
RUN_LIMIT_S = 540


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--stream", action="store_true", help="64-chunk streams")
    parser.add_argument("--tensor", action="store_true", help="600 kB inferences, beside nginx")
    parser.add_argument("--latency", action="store_true", help="what is added at half load")
    parser.add_argument("--stalls", action="store_true", help="gaps between paced chunks")
    parser.add_argument("--peers", action="store_true", help="Portkey and LiteLLM too")
    parser.add_argument("--auto", action="store_true", help="model 'auto' instead of a named one")
    parser.add_argument(
        "--market", type=int, default=ENDPOINTS, help="registered endpoints, beside 100 if more"
    )
    parser.add_argument("--seconds", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=32)
    stop_when_told()
    with asyncio.Runner(loop_factory=latencies.fine_loop) as runner:
        print(json.dumps(runner.run(run(parser.parse_args()))))


async def run(options: argparse.Namespace) -> dict[str, object]:
    """Bring everything up, measure, and return the figures."""
    with tempfile.TemporaryDirectory(prefix="broker-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o711)
        load = Load(options.seconds, options.rounds, options.connections)
        if options.latency:
            return await latencies.measure(folder, load, options.market)
        if options.stalls:
            return await stalls.measure(folder, options.rounds * stalls.STREAMS, options.market)
        if options.market > ENDPOINTS:
            return await crowded.measure(folder, load, options.market)
        if options.tensor:
            return await tensors.measure(folder, load, options.market)
        return await _beside_router(folder, options)


async def _beside_router(folder: Path, options: argparse.Namespace) -> dict[str, object]:
    bench = Path(os.environ["GATEWAY_BENCH"])
    upstream = free_port()
    async with (
        _upstream(bench, upstream),
        open_stand(folder, f"http://127.0.0.1:{upstream}", options.market) as stand,
    ):
        gateways = folder / "gateways.json"
        others = peers(upstream, folder) if options.peers else []
        gateways.write_text(json.dumps(_gateways(stand, upstream, options) + others))
        stores_before_s = stand.cpu_s()
        printed = await _measure(bench, gateways, options)
        stores_s = stand.cpu_s() - stores_before_s
    print(printed)
    return _figures(printed, stores_s, options)


def _gateways(stand: Stand, upstream: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    router_port, broker_port = free_port(), free_port()
    router = os.environ.get("VLLM_ROUTER") or shutil.which("vllm-router")
    if router is None:
        raise SystemExit("vllm-router is neither on PATH nor named by VLLM_ROUTER")
    listening = ["--host", "127.0.0.1", "--port", str(router_port)]
    body = {
        "model": "auto" if options.auto else NAMED,
        "max_tokens": 64,
        "messages": [
            {
                "role": "user",
                "content": "Classify this support ticket: my order 12345 has not arrived "
                "and I want a refund. What category is it?",
            }
        ],
    }
    return [
        {
            "name": "vllm-router",
            "start": [
                *(router, *listening, "--worker-urls", f"http://127.0.0.1:{upstream}"),
                *("--policy", "round_robin", "--log-level", "error"),
                *("--prometheus-port", str(free_port())),
            ],
            "port": router_port,
            "ready": "/health",
        },
        {
            "name": "broker",
            "start": [
                *(sys.executable, "-m", "broker.cli.main", "serve"),
                *("--port", str(broker_port)),
            ],
            "env": stand.env,
            "port": broker_port,
            "ready": "/health/ready",
            "settle_s": 2,
            "headers": {"Authorization": f"Bearer {stand.key}"},
            "body": body,
        },
    ]


async def _measure(bench: Path, gateways: Path, options: argparse.Namespace) -> str:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(bench / "gateway_cost.py"), str(gateways)),
        *("--seconds", str(options.seconds), "--rounds", str(options.rounds)),
        *("--connections", str(options.connections), *(["--stream"] if options.stream else [])),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(RUN_LIMIT_S):
            output, _ = await process.communicate()
    except TimeoutError:
        raise SystemExit("the measurement took too long") from None
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)  # it stops the gateways, which a kill would leave
            await wait_gone(process, 30)
    if process.returncode:
        raise SystemExit(process.returncode)
    return output.decode()


def _figures(printed: str, stores_s: float, options: argparse.Namespace) -> dict[str, object]:
    rows = {line.split()[0]: line.split()[1:] for line in printed.splitlines()[1:] if line.strip()}
    cpu_us, ratio, per_s, p50, p99, rss_mb, failed = rows["broker"]
    calls = float(per_s) * (options.seconds + 2) * options.rounds
    return {
        "mode": "stream" if options.stream else "completion",
        "model": "auto" if options.auto else "named",
        "endpoints": options.market,
        "cpu_us": float(cpu_us),
        "ratio_to_vllm_router": float(ratio),
        "vllm_router_cpu_us": float(rows["vllm-router"][0]),
        "calls_per_s": float(per_s),
        "p50": p50,
        "p99": p99,
        "rss_mb": float(rss_mb),
        "failed": float(failed),
        **{
            f"{name}_to_broker": round(float(row[0]) / float(cpu_us), 1)
            for name, row in rows.items()
            if name in ("portkey", "litellm")
        },
        "stores_cpu_us": round(stores_s / max(calls, 1) * 1e6, 1),
    }


@asynccontextmanager
async def _upstream(bench: Path, port: int) -> AsyncIterator[None]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(bench / "upstream.py"), "--port", str(port)
    )
    try:
        yield
    finally:
        process.terminate()
        await wait_gone(process, 5)


if __name__ == "__main__":
    main()
