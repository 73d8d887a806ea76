"""Makes a scenario of what a broker tells of its market and its calls, as files to be changed.

    market.toml   providers as they are listed now, with servers that fit the calls they served
    calls-1.csv   when the calls of the first class came, and how long they were

What answers are worth nobody tells. Who was served found them worth what was paid: such values are
taken to spread above it with one elasticity of demand, value = paid * u^(-1 / elasticity). Who
named a limit is taken by its word. What serving costs is taken from the floor, below which, by the
provider's own word, nothing is sold. Endpoints of one deployment share its capacity by the time
that their calls took.
"""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from broker.errors import BrokerError
from simulations.replay.servers import server_of
from simulations.replay.writing import toml_of

CLASSES_MAX = 40
"""Of classes with fewer calls than these, none is played."""
TICKS_MAX = 50_000
DEADLINE_LEAST_S = 60.0
Told = Mapping[str, Any]
Call = Mapping[str, Any]
_MONEY = (
    ("in_usd", "in_micros", 1e6),
    ("out_usd", "out_micros", 1e6),
    ("call_usd", "call_nanos", 1e9),
)


class NothingToPlay(BrokerError):
    """The broker lists no endpoint, or had no call in this time."""

    status = 422
    code = "nothing_to_play"


def write_market(told: Told, folder: Path, elasticity: float) -> Path:
    """Write the files of a market into a folder; return the path of the scenario.

    `told` is as `broker.flows.market.tell_market` tells it. Raises NothingToPlay.
    """
    calls = sorted(told["calls"], key=lambda each: each["at_s"])
    if not told["endpoints"] or not calls:
        raise NothingToPlay("The broker lists no endpoint, or had no call in this time.")
    folder.mkdir(parents=True, exist_ok=True)
    begin_s = calls[0]["at_s"]
    horizon_s = round(calls[-1]["at_s"] - begin_s + 1.0, 3)
    scenario: dict[str, Any] = {
        "name": "market",
        "description": _description(begin_s, calls, elasticity),
        "horizon_s": horizon_s,
        "warm_up_s": round(min(3_600.0, horizon_s / 20.0), 3),
        "start_s": float(round(begin_s)),
        "prices": {"tick_s": round(max(1.0, horizon_s / TICKS_MAX), 3)},
        "providers": _providers(told["endpoints"], calls),
        "classes": _classes(calls, folder, elasticity),
    }
    path = folder / "market.toml"
    path.write_text(toml_of(scenario), encoding="utf-8")
    return path


def _description(begin_s: float, calls: Sequence[Call], elasticity: float) -> str:
    when = datetime.fromtimestamp(begin_s, UTC).strftime("%Y-%m-%d %H:%M")
    return (
        f"The market as it is listed now, and the {len(calls):,} calls that came from {when} UTC "
        f"on. Servers are fitted to what they served; values of calls are a guess: worth what was "
        f"paid and more, with an elasticity of {elasticity:g}."
    )


def _providers(endpoints: Sequence[Told], calls: Sequence[Call]) -> list[dict[str, Any]]:
    served = defaultdict(list)
    for each in calls:
        if each["served"] and each["endpoint"]:
            served[each["endpoint"]].append(each)
    busy_s: dict[int, float] = defaultdict(float)
    for each in endpoints:
        busy_s[each["deployment"]] += _busy_s(served[_name(each)])
    providers: dict[str, list[dict[str, Any]]] = {}
    for each in endpoints:
        mine = served[_name(each)]
        alike = sum(other["deployment"] == each["deployment"] for other in endpoints)
        whole_s = busy_s[each["deployment"]]
        share = _busy_s(mine) / whole_s if whole_s > 0.0 else 1.0 / alike
        capacity = max(round(each["capacity"] * share), 1)
        offered = _endpoint(each) | {"capacity": capacity, "server": server_of(mine, capacity)}
        providers.setdefault(each["provider"], []).append(offered)
    return [{"name": name, "endpoints": offered} for name, offered in providers.items()]


def _name(endpoint: Told) -> str:
    return f"{endpoint['provider']}/{endpoint['name']}"


def _busy_s(calls: Sequence[Call]) -> float:
    return math.fsum(each["duration_s"] for each in calls)


def _endpoint(told: Told) -> dict[str, Any]:
    kept = ("name", "model", "tasks", "quality", "domains", "region", "take_bps", "tiers_bps")
    offered = {name: told[name] for name in kept if told[name]}
    for name in ("context_tokens", "output_tokens_max"):
        if told[name] is not None:
            offered[name] = told[name]
    priced = [(usd, told[name], per) for usd, name, per in _MONEY if told[name][2]]
    offered["band"] = {usd: [edge / per for edge in edges] for usd, edges, per in priced}
    offered["cost"] = {usd: edges[0] / per for usd, edges, per in priced}
    return offered


def _classes(calls: Sequence[Call], folder: Path, elasticity: float) -> list[dict[str, Any]]:
    """Callers who ask for the same, apart those with a limit, and those who send several texts at
    once; the most frequent ones first."""
    groups: dict[tuple[Any, ...], list[Call]] = defaultdict(list)
    for each in calls:
        apart = each["limit_nanos"] is not None, each["longest_part"] < 1.0
        key = (each["model"], each["task"], each["domain"] or "", each["tier"], apart)
        groups[key].append(each)
    ranked = sorted(groups.items(), key=lambda pair: (-len(pair[1]), pair[0]))[:CLASSES_MAX]
    begin_s = calls[0]["at_s"]
    return [
        _class((place, *key), mine, folder, (begin_s, elasticity))
        for place, (key, mine) in enumerate(ranked, start=1)
    ]


def _class(
    key: tuple[Any, ...], calls: Sequence[Call], folder: Path, terms: tuple[float, float]
) -> dict[str, Any]:
    place, model, task, domain, tier, (has_limit, has_several) = key
    begin_s, elasticity = terms
    answered = [each for each in calls if each["tokens_out"]]
    usual = round(np.mean([each["tokens_out"] for each in answered])) if answered else 1
    file = folder / f"calls-{place}.csv"
    with file.open("w", newline="", encoding="utf-8") as out:
        rows = csv.writer(out)
        rows.writerow(("at_s", "tokens_in", "tokens_out"))
        for each in calls:
            # Of who was turned away nobody knows how long the answer would have been.
            length = each["tokens_out"] or usual
            rows.writerow((f"{each['at_s'] - begin_s:.3f}", each["tokens_in"], length))
    seconds = [each["duration_s"] for each in answered] or [0.0]
    made = {
        "name": f"{place} {' '.join(str(each) for each in (model, domain) if each)}",
        "model": model,
        "task": task,
        "tier": tier,
        "arrivals": {"kind": "trace", "file": file.name},
        "tokens_in": {"mean": float(max(np.mean([each["tokens_in"] for each in calls]), 1.0))},
        "tokens_out": {"mean": float(usual)},
        "value": _value(calls, has_limit=has_limit, elasticity=elasticity),
        "deadline_s": round(max(3.0 * float(np.quantile(seconds, 0.99)), DEADLINE_LEAST_S), 1),
        "accounts": len({each["caller"] for each in calls}),
        "stream": bool(np.mean([each["stream"] for each in calls]) >= 0.5),
    }
    if has_several:
        made["longest_part"] = round(float(np.mean([each["longest_part"] for each in calls])), 4)
    return made | ({"domain": domain} if domain else {})


def _value(calls: Sequence[Call], *, has_limit: bool, elasticity: float) -> dict[str, Any]:
    """In USD, of a call of the usual length."""
    if has_limit:
        limits = np.array([each["limit_nanos"] for each in calls]) / 1e9
        mean = max(float(limits.mean()), 1e-9)
        spread = round(float(limits.std()) / mean, 3)
        return {"shape": "lognormal", "mean_usd": mean, "cv": spread}
    paid = [each["charge_nanos"] for each in calls if each["charge_nanos"]]
    least = float(np.mean(paid)) / 1e9 if paid else 1e-6
    return {
        "shape": "isoelastic",
        "mean_usd": least,
        "elasticity": elasticity,
        # Without an end a few calls would be worth more than all others together.
        "most_usd": 100.0 * least,
    }
