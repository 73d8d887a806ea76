"""Asks two endpoints the same, again and again, to tell whether they serve the same model."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from random import Random
from typing import Final

import numpy as np
from sqlalchemy.ext.asyncio import AsyncEngine
from uuid_utils.compat import uuid7

from broker.core.answers.same_model import SAMPLES_MIN, Comparison, Drawn, compare
from broker.core.answers.suites import Form, sample
from broker.core.catalog import Endpoint
from broker.errors import NotFound, RequestMalformed, Unavailable
from broker.flows.calls.ask_endpoint import Asker, Question, can_be_asked
from broker.store.market import catalog
from broker.store.quality import examinations, suites
from broker.store.sealing import Sealer
from broker.upstream.faults import AttemptFailed

PROMPTS: Final = 10
SAMPLES: Final = 8
"""Answers of each endpoint to each prompt."""
TOKENS_OUT: Final = 50
TEMPERATURE: Final = 1.0
AT_ONCE: Final = 4
_SEED: Final = 1


@dataclass(frozen=True, slots=True)
class Means:
    """What comparing takes."""

    engine: AsyncEngine
    sealer: Sealer
    asker: Asker
    clock: Callable[[], datetime]


async def compare_models(
    means: Means, names: tuple[str, str], domain: str, prompts: int = PROMPTS
) -> Comparison:
    """Compare an endpoint with a reference, both `provider/endpoint`, on a suite's prompts.

    Nobody is charged. Raises NotFound for an endpoint or suite that is not, RequestMalformed for
    one that does not answer in words, Unavailable where too few answers come, saying what came of
    whom instead.
    """
    async with means.engine.connect() as connection:
        _, listed = await catalog.load_market(connection, means.sealer)
        suite = await suites.find(connection, domain)
    pair = [_named(name, listed) for name in names]
    if suite is None:
        raise NotFound(f"There is no suite for '{domain}'.")
    random = Random(_SEED)  # noqa: S311 - keeps no secret
    asked, _ = suite.part(Form.WORDS).split()  # what canaries put stays unseen
    items = sample(asked, prompts, random)
    drawn: list[Drawn] = []
    troubles: Counter[tuple[str, str]] = Counter()
    for item in items:
        own, reference = await asyncio.gather(
            *(_draw(means, endpoint, item.prompt, troubles) for endpoint in pair)
        )
        if min(len(own), len(reference)) >= SAMPLES_MIN:
            drawn.append((own, reference))
    if len(drawn) * 2 < len(items):
        why = "".join(f"; {name}: {fault}" for (name, fault), _ in troubles.most_common())
        raise Unavailable(f"Only {len(drawn)} of {len(items)} prompts were answered by both{why}.")
    return compare(drawn, np.random.default_rng(_SEED))


def _named(name: str, listed: list[Endpoint]) -> Endpoint:
    endpoint = next((each for each in listed if each.name == name), None)
    if endpoint is None:
        raise NotFound(f"There is no endpoint '{name}' on the market.")
    if not can_be_asked(endpoint):
        raise RequestMalformed(f"'{name}' does not answer in words.")
    return endpoint


async def _draw(
    means: Means, endpoint: Endpoint, prompt: str, troubles: Counter[tuple[str, str]]
) -> list[str]:
    """Return answers to a prompt; of those that did not come, count why."""
    ids = [uuid7() for _ in range(SAMPLES)]
    async with means.engine.begin() as connection:
        await examinations.note_test_calls(connection, endpoint.id, ids, means.clock())
    places = asyncio.Semaphore(min(AT_ONCE, endpoint.deployment.capacity))
    question = Question(prompt, TOKENS_OUT, TEMPERATURE)
    answers: list[str] = []
    failed = 0

    async def one(place: int) -> None:
        nonlocal failed
        async with places:
            if failed > 1:
                return
            try:
                answers.append(await means.asker.ask(endpoint, question, ids[place]))
            except AttemptFailed as failure:
                failed += 1
                fault = failure.outcome.fault
                troubles[endpoint.name, "no answer" if fault is None else fault.value] += 1

    await asyncio.gather(*map(one, range(SAMPLES)))
    return answers
