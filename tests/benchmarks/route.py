"""What a decision costs: routing, the story of a call, and reading a request.

    python -m tests.benchmarks.route

`p50_us_100` is a decision among 100 candidates; `p50_us_100_learned` one of `auto`, by what was
learned of a prompt's domains and groups. `p50_us_10000` is `auto` over 10,000 registered endpoints
of which a region and a quality leave 100; `p50_us_10000_named` names a family of 100 of them,
`p50_us_10000_in_doubt` the same while a thousand others are in doubt;
`first_us_10000` is the first decision of its kind in a new market, `first_us_10000_one` the first
about each of a thousand that are asked for by name. The last line is one JSON object; the figures
are medians in microseconds.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np

from broker.core import story
from broker.core.call import Payer
from broker.core.candidates.view import RoutingLimits
from broker.core.catalog import Endpoint
from broker.core.decision import Decision
from broker.core.dispatch import Dispatch
from broker.core.market import Market
from broker.core.outcome import DELIVERED
from broker.core.quality.lessons import Lessons
from broker.core.requirements import Prompt
from broker.core.retries import RetryBudget
from broker.core.routing import route
from broker.gateway import openai
from broker.gateway.admit import admit
from broker.settings import Limits
from pricing.book import Rate
from tests.fakes import ACCOUNT, endpoint, market, pulse, requirements

ROUNDS = 3_000
BODY = json.dumps(
    {
        "model": "small",
        "messages": [{"role": "user", "content": "How long may a notice period be? " * 10}],
        "max_tokens": 100,
        "temperature": 0.2,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
).encode()
PATH = "/v1/chat/completions"
PROMPT = Prompt((0, 1, 2, 9, 20, 40, 80, 90, 130), (0.7, 0.2, 0.1) + (0.08,) * 6)
HEADERS = [(b"host", b"x"), (b"authorization", b"y")]


def registered(count: int, eligible: int) -> list[Endpoint]:
    """So many endpoints, of which the first `eligible` are of the family and the region asked."""
    random = Random(1)
    return [
        endpoint(
            number,
            f"provider-{number % 977}/endpoint-{number}",
            model="small" if number < eligible else f"family-{number % 100}",
            quality=random.uniform(0.5, 0.9),
            rate=Rate(random.randrange(10**5, 10**6), random.randrange(10**5, 10**6), 0),
            domains={"law": 0.9} if number % 3 == 0 else None,
            deployment={"region": "eu" if number < eligible else "us"},
        )
        for number in range(count)
    ]


def decider(where: Market, **demands: Any) -> Callable[[], Decision | None]:
    """A function that decides once more."""
    live, random, limits = pulse(where), Random(1), RoutingLimits()
    wanted = requirements(**demands)
    return lambda: route(wanted, where, live, limits, (random, 0.0))


def in_doubt(where: Market) -> Callable[[], Decision | None]:
    """A function that decides once more, while the breakers of others are open."""
    live, random, limits = pulse(where), Random(1), RoutingLimits()
    for number in range(len(where.endpoints) - 1_000, len(where.endpoints)):
        live.suspect(number, 0.0)
    wanted = requirements()
    return lambda: route(wanted, where, live, limits, (random, 0.0))


def newcomer(where: Market) -> Callable[[], Decision | None]:
    """A function that decides about the next endpoint by name."""
    live, random, limits = pulse(where), Random(1), RoutingLimits()
    asked = iter([requirements(model=name) for name in where.by_name])
    return lambda: route(next(asked), where, live, limits, (random, 0.0))


def taught(where: Market) -> Market:
    """The market with lessons of three domains and of groups, as any: what they say is chance."""
    random, size = np.random.default_rng(1), len(where.endpoints)
    lessons = Lessons(
        places={"law": 0, "food": 1, "code": 2},
        table=random.random((4 + 4 * 64, size)),
        doubt=random.random((4, size)),
        weight=random.uniform(0.0, 50.0, (4, size)),
        tokens_out=random.uniform(50.0, 500.0, (4, size)),
    )
    return replace(where, lessons=lessons)


def teller(decide: Callable[[], Decision | None]) -> Callable[[], bytes]:
    """A function that tells the story of a call of one attempt."""
    decision = decide()
    assert decision is not None
    calls = Dispatch(
        decision.plan, RetryBudget(0.0), deadline_s=9.0, attempts_max=4, random=Random(1)
    )
    calls.next_attempt(0.0)
    calls.record(DELIVERED, 0.5)
    wanted = requirements()
    return lambda: story.encode(wanted, decision, calls.attempts, "delivered", 0.0)


def reader() -> Callable[[], object]:
    """A function that reads a request and admits it."""
    payer = Payer(ACCOUNT, "key", ACCOUNT)
    runtime: Any = SimpleNamespace(
        traces=None,
        settings=SimpleNamespace(limits=Limits()),
        now_s=time.monotonic,
        clock=lambda: datetime.now(UTC),
    )
    return lambda: admit(openai.parse(PATH, HEADERS, BODY), payer, runtime)


def p50_us(work: Callable[[], object], rounds: int = ROUNDS) -> float:
    """The median time of one round."""
    laps = []
    for _ in range(rounds):
        begun = time.perf_counter()
        work()
        laps.append(time.perf_counter() - begun)
    return round(statistics.median(laps) * 1e6, 1)


def main() -> None:
    """Measure, print a line for each figure and the JSON at the end."""
    few = market(registered(100, 100))
    begun = time.perf_counter()
    many = market(registered(10_000, 100))
    build_ms = (time.perf_counter() - begun) * 1e3
    eligible = {"model": "auto", "regions": frozenset({"eu"}), "quality_min": 0.5}
    begun = time.perf_counter()
    decider(many, **eligible)()
    first_us = round((time.perf_counter() - begun) * 1e6, 1)
    figures = {
        "p50_us_100": p50_us(decider(few)),
        "p50_us_100_domain": p50_us(decider(few, domain="law")),
        "p50_us_100_learned": p50_us(
            decider(taught(few), model="auto", prompt=PROMPT, preset="balanced")
        ),
        "p50_us_10000": p50_us(decider(many, **eligible)),
        "p50_us_10000_named": p50_us(decider(many)),
        "p50_us_10000_in_doubt": p50_us(in_doubt(many)),
        "first_us_10000": first_us,
        "first_us_10000_one": p50_us(newcomer(many), 1_000),
        "story_us_100": p50_us(teller(decider(few))),
        "story_us_10000": p50_us(teller(decider(many, **eligible))),
        "parse_admit_us": p50_us(reader()),
        "build_ms_10000": round(build_ms, 1),
    }
    for name, figure in figures.items():
        sys.stdout.write(f"{name:22} {figure:9.1f}\n")
    sys.stdout.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()
