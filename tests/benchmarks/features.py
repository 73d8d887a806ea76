"""What a call costs in CPU by what it asks for, next to a plain one in the same run.

    GATEWAY_BENCH=DIR python -m tests.benchmarks.features [--market 100] [--taught 0] [NAME ...]

DIR holds `upstream.py`. Needs `wrk`. One broker is loaded by turns with calls of each kind (or of
those named): by keys with rates and budgets, in conversations, under an `Idempotency-Key`, to
families and `auto`, in stages. With --taught the market knows ten domains and so many pieces of
evidence, and prompts to `auto` are about them. The servers' CPU, PostgreSQL's and Valkey's, is told
beside. The last line is one JSON object: each kind's CPU to that of a plain call.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from broker.cli.local import OPERATOR
from broker.core.key_terms import KeyTerms, Rates
from broker.embedded.port import free_port
from broker.flows.access.issue_key import issue_key
from broker.store.books.budgets import Budgets
from broker.store.database import create_engine
from tests.benchmarks.gateway import NAMED, _upstream
from tests.benchmarks.gateways import PROMPT, broker
from tests.benchmarks.processes import stop_when_told
from tests.benchmarks.side_by_side import Gateway, Load, one_round, up
from tests.benchmarks.stand import CONSUMER, FAMILY, Stand, open_stand
from tests.benchmarks.taught import teach

ENDPOINTS = 100
CONNECTIONS = 32
PLAIN = "plain"
_RATES = Rates(requests_per_minute=100_000_000, tokens_per_minute=10**12)
_BUDGETS = Budgets(10**14, 10**15, 10**16)
"""So much of both that none is ever reached."""
_NUMBERED = """
local begun, made = tostring(math.random(1e12)) .. os.time(), 0
request = function()
  made = made + 1
  wrk.headers["%s"] = begun .. "-" .. made
  return wrk.format()
end
"""
_IN_TURN = """
local bodies, made = {%s}, 0
request = function()
  made = made + 1
  return wrk.format(nil, nil, nil, bodies[1 + made %% #bodies])
end
"""


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="of kinds; all if none is named")
    parser.add_argument("--market", type=int, default=ENDPOINTS, help="registered endpoints")
    parser.add_argument("--taught", type=int, default=0, help="pieces of evidence, of ten domains")
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    stop_when_told()
    print(json.dumps(asyncio.run(_run(parser.parse_args()))))


async def _run(options: argparse.Namespace) -> dict[str, object]:
    bench = Path(os.environ["GATEWAY_BENCH"])
    with tempfile.TemporaryDirectory(prefix="broker-bench-", ignore_cleanup_errors=True) as name:
        folder, port = Path(name), free_port()
        folder.chmod(0o711)
        async with (
            _upstream(bench, port),
            open_stand(folder, f"http://127.0.0.1:{port}", options.market) as stand,
        ):
            prompts = await teach(stand, options.taught) if options.taught else [PROMPT]
            scripts = await _scripts(stand, prompts)
            if unknown := set(options.names) - scripts.keys():
                raise SystemExit(
                    f"There is no {', '.join(unknown)}; there are {', '.join(scripts)}."
                )
            kinds = {PLAIN, *options.names} if options.names else scripts.keys()
            gateway = broker(stand, script=scripts[PLAIN])
            gateways = [replace(gateway, name=kind, script=scripts[kind]) for kind in kinds]
            load = Load(options.seconds, options.rounds, CONNECTIONS)
            return await _by_turns(gateways, stand, load, folder)


async def _by_turns(
    gateways: Sequence[Gateway], stand: Stand, load: Load, folder: Path
) -> dict[str, object]:
    cpu_us: dict[str, list[float]] = {each.name: [] for each in gateways}
    beside_us: dict[str, list[float]] = {each.name: [] for each in gateways}
    warm_up = replace(load, seconds=1)
    async with up(gateways[0]) as process:
        for each in gateways:
            await one_round(each, process.pid, warm_up, folder)
        for _ in range(load.rounds):
            for each in gateways:
                before_s = stand.cpu_s()
                seen = await one_round(each, process.pid, load, folder)
                cpu_us[each.name].append(seen.cpu_us)
                beside_us[each.name].append((stand.cpu_s() - before_s) / max(seen.calls, 1) * 1e6)
    ratios = {}
    for name, rows in cpu_us.items():
        pairs = zip(rows, cpu_us[PLAIN], strict=True)
        ratios[name] = round(statistics.median(row / plain for row, plain in pairs), 2)
        own, beside = statistics.median(rows), statistics.median(beside_us[name])
        print(f"{name:12} {own:6.0f} us {ratios[name]:6.2f} x, beside {beside:5.0f} us")
    return {"cpu_us_plain": round(statistics.median(cpu_us[PLAIN]), 1), "ratio_to_plain": ratios}


async def _scripts(stand: Stand, prompts: Sequence[str]) -> dict[str, str]:
    """Return a wrk script of each kind of calls, by name; the plain ones first."""
    key, (rated, budgeted) = stand.key, await _keys(stand)

    def of(body: dict[str, Any], more: str = "", key: str = key) -> str:
        return "\n".join((*_head(key), f"wrk.body = {json.dumps(_body(PROMPT, body))}", more))

    def about(body: dict[str, Any]) -> str:
        bodies = ", ".join(json.dumps(_body(each, body)) for each in prompts[:500])
        return "\n".join((*_head(key), _IN_TURN % bodies))

    auto = {"model": "auto"}
    return {
        PLAIN: of({}),
        "rates": of({}, key=rated),
        "budgets": of({}, key=budgeted),
        "max_cost": of({"broker": {"max_cost": 0.5}}),
        "labels": of({"broker": {"task": "triage", "labels": {"team": "north"}}}),
        "session": of({}, _NUMBERED % "x-broker-session-id"),
        "idempotent": of({}, _NUMBERED % "Idempotency-Key"),
        "family": of({"model": FAMILY}),
        "hedge": of({"model": FAMILY, "broker": {"hedge": True}}),
        "order": of({"model": FAMILY, "broker": {"providers": {"order": ["benchmark-provider"]}}}),
        "auto": about(auto),
        "auto_session": of(auto, _NUMBERED % "x-broker-session-id"),
        "auto_value": about(auto | {"broker": {"value_usd": 0.01}}),
        "models": of({"model": FAMILY, "models": ["auto"]}),
        "cascade": about(auto | {"broker": {"cascade": {}}}),
        "refused": of(auto | {"broker": {"max_cost": 0.000000001}}),
        "stream": of({"stream": True, "stream_options": {"include_usage": True}}),
    }


def _head(key: str) -> tuple[str, ...]:
    return (
        'wrk.method = "POST"',
        'wrk.headers["Content-Type"] = "application/json"',
        f'wrk.headers["Authorization"] = "Bearer {key}"',
    )


def _body(prompt: str, more: dict[str, Any]) -> str:
    messages = [{"role": "user", "content": prompt}]
    plain = {"model": NAMED, "max_tokens": 64, "messages": messages}
    return json.dumps(plain | more, separators=(",", ":"))


async def _keys(stand: Stand) -> tuple[str, str]:
    """Make a key with rates and one with budgets."""
    engine, now = create_engine(stand.postgres.url, connections_max=2), datetime.now(UTC)
    try:
        rated = await issue_key(engine, OPERATOR, CONSUMER, KeyTerms(rates=_RATES), now)
        budgeted = await issue_key(engine, OPERATOR, CONSUMER, KeyTerms(), now, _BUDGETS)
    finally:
        await engine.dispose()
    return rated.text, budgeted.text


if __name__ == "__main__":
    main()
