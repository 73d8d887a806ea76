"""A market that was taught domains and has been judged, for benchmarks: of suites, and by callers.

Prompts are of real words, each domain's half of its own and half of all, so that as many pieces of
words are met as in a market's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import cycle, islice
from pathlib import Path
from random import Random
from uuid import UUID

from sqlalchemy import text
from uuid_utils.compat import uuid7

from broker.cli.local import OPERATOR
from broker.core.quality.evidence import Grade, Piece, Source, pack
from broker.encoding.words import WordEncoder, load_encoder
from broker.flows.quality.teach_domain import teach_domain
from broker.store.database import create_engine
from broker.store.quality import evidence
from tests.benchmarks.stand import Stand

DOMAINS = 10
EXAMPLES = 100
SUITE = 40
"""Prompts of each domain's."""
_OF_SUITES = 0.6
_BATCH = 5_000
_ROOT = Path(__file__).parents[2]
_ROOMS = (".", "broker", "broker/gateway", "provider_sdk", "simulations", "tests/benchmarks")
"""Whose pages have the words."""


class Prompts:
    """Draws prompts about so many domains."""

    def __init__(self, random: Random) -> None:
        self._random = random
        text = "".join((_ROOT / each / "README.md").read_text() for each in _ROOMS)
        words = sorted(set(re.findall("[A-Za-z]{3,14}", text)))
        random.shuffle(words)
        self._words, self._each = words, len(words) // DOMAINS

    def draw(self, domain: int) -> str:
        """Return a prompt about a domain."""
        random, own = self._random, self._words[domain * self._each :][: self._each]
        length = random.randint(8, 60)
        return " ".join(random.choice(random.choice((own, self._words))) for _ in range(length))


async def teach(stand: Stand, pieces: int) -> list[str]:
    """Teach domains, and record so many pieces of evidence, of all endpoints alike; return prompts
    for callers to send."""
    random, encoder = Random(1), load_encoder()
    prompts, engine = Prompts(random), create_engine(stand.env["DATABASE_URL"], connections_max=2)
    now = datetime.now(UTC)
    try:
        for at in range(DOMAINS):
            examples = [prompts.draw(at) for _ in range(EXAMPLES)]
            async with engine.begin() as connection:
                await teach_domain(connection, OPERATOR, f"domain-{at}", examples, now)
        async with engine.begin() as connection:
            endpoints = list((await connection.execute(text("SELECT id FROM endpoints"))).scalars())
            of_caller = text("SELECT id FROM accounts WHERE role = 'consumer' LIMIT 1")
            caller = (await connection.execute(of_caller)).scalar_one()
        given = _given(random, prompts, encoder, (endpoints, caller, now))
        for begin in range(0, pieces, _BATCH):
            async with engine.begin() as connection:
                await evidence.record(connection, [*islice(given, min(_BATCH, pieces - begin))])
    finally:
        await engine.dispose()
    return [prompts.draw(at % DOMAINS) for at in range(1_000)]


def _given(
    random: Random,
    prompts: Prompts,
    encoder: WordEncoder,
    told: tuple[list[UUID], UUID, datetime],
) -> Iterator[Piece]:
    """Yield evidence, most of suites. `told` is endpoints, who speaks, and now."""
    endpoints, caller, now = told
    suite = [
        (f"domain-{at}", pack(encoder.encode(prompts.draw(at))))
        for at in range(DOMAINS)
        for _ in range(SUITE)
    ]
    grade, at = Grade.BINARY, now - timedelta(seconds=60)
    for endpoint in cycle(endpoints):
        (domain, vector), score = random.choice(suite), float(random.random() < 0.7)
        if random.random() < _OF_SUITES:
            told = {"encoder": encoder.name, "vector": vector}
            yield Piece(at, endpoint, Source.EVAL, grade, score, domain, **told)
        else:
            told = {"account_id": caller, "call_id": uuid7()}
            yield Piece(at, endpoint, Source.FEEDBACK, grade, score, domain, 0.5, **told)
