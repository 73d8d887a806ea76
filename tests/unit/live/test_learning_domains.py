"""Domains are learned beside the calls: first to recognise them, and only what is new is read."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from zlib import crc32

import numpy as np

from broker.core.quality.domains import Recogniser
from broker.core.quality.groups import Groups
from broker.core.quality.syllabus import Domain
from broker.encoding.encoder import Encoder, Vector
from broker.encoding.strangers import STRANGERS
from broker.flows.quality.learn_domains import DomainSchool

AT = datetime(2026, 1, 1, tzinfo=UTC)
WITHIN_S = 30.0


class CountingEncoder:
    """Tells prompts apart by their first word, and counts what it is asked."""

    name, length, meaning = "counting", 12, 8

    def __init__(self) -> None:
        self.read: list[str] = []

    def encode(self, prompt: str) -> Vector:
        self.read.append(prompt)
        own, word = (np.random.default_rng(crc32(each.encode())) for each in (prompt, prompt[:3]))
        return (own.normal(0.0, 0.3, 12) + word.normal(0.0, 1.0, 12)).astype(np.float32)


class Pupils:
    """Write down what they are told, in its order."""

    def __init__(self, school: DomainSchool) -> None:
        self._school = school
        self.told: list[str] = []
        self.groups: list[Groups] = []
        self.next: list[tuple[Domain, ...]] = []
        """What is asked for as soon as the one before it is recognised."""

    async def serve(self, recogniser: Recogniser | None, encoder: Encoder | None) -> None:
        self.told.append(" ".join(("recognised", *(recogniser.names if recogniser else ()))))
        if self.next:
            self._school.ask(self.next.pop(0))

    def regroup(self, groups: Groups) -> None:
        self.told.append(" ".join(("grouped", *groups.recogniser.names)))
        self.groups.append(groups)

    async def hear(self, count: int) -> list[str]:
        async with asyncio.timeout(WITHIN_S):
            while len(self.told) < count:  # noqa: ASYNC110 - nothing tells it
                await asyncio.sleep(0.001)
        return self.told


@contextlib.asynccontextmanager
async def running(school: DomainSchool) -> AsyncIterator[Pupils]:
    pupils = Pupils(school)
    task = asyncio.create_task(school.run(pupils.serve, pupils.regroup))
    yield pupils
    task.cancel()
    await asyncio.wait([task])


def domain(name: str, count: int = 20) -> Domain:
    return Domain(name, None, tuple(f"{name} {at}" for at in range(count)), "test", AT)


LAW, TAX, ART = map(domain, ("law", "tax", "art"))


async def test_a_domain_is_recognised_before_groups_are_made_and_nothing_old_is_read_again() -> (
    None
):
    encoder = CountingEncoder()
    school = DomainSchool(load=lambda: encoder)
    async with running(school) as pupils:
        school.ask((LAW, TAX))
        await pupils.hear(2)
        assert len(encoder.read) == len(STRANGERS) + 40
        school.ask((ART, LAW, TAX))
        assert await pupils.hear(4) == [
            *("recognised law tax", "grouped law tax"),
            *("recognised art law tax", "grouped art law tax"),
        ]
        assert encoder.read[len(STRANGERS) + 40 :] == list(ART.examples)
        school.ask(())
        assert (await pupils.hear(5))[4:] == ["recognised"]
    first, second = pupils.groups
    assert first.key != second.key
    assert first.read(second.told([1])) is None


async def test_what_is_taught_while_groups_are_to_be_made_is_recognised_first() -> None:
    school = DomainSchool(load=CountingEncoder)
    async with running(school) as pupils:
        pupils.next = [(LAW, TAX), (ART, LAW, TAX)]
        school.ask((LAW,))
        assert await pupils.hear(4) == [
            *("recognised law", "recognised law tax", "recognised art law tax"),
            "grouped art law tax",
        ]


async def test_of_many_that_are_taught_at_once_all_are_learned_at_one_go() -> None:
    school = DomainSchool(load=CountingEncoder)
    for many in ((LAW,), (LAW, TAX), (ART, LAW, TAX)):
        school.ask(many)
    async with running(school) as pupils:
        assert await pupils.hear(2) == ["recognised art law tax", "grouped art law tax"]


async def test_groups_of_the_same_examples_have_one_key_whoever_makes_them() -> None:
    keys = []
    for taught in ((LAW, TAX), (LAW, TAX), (LAW, domain("tax", 21)), (LAW, domain("dog"))):
        school = DomainSchool(load=CountingEncoder)
        async with running(school) as pupils:
            school.ask(taught)
            await pupils.hear(2)
        keys.append(pupils.groups[0].key)
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3


async def test_who_could_not_learn_once_learns_the_next_time() -> None:
    tries = []

    def load() -> Encoder:
        tries.append(1)
        if len(tries) == 1:
            raise MemoryError
        return CountingEncoder()

    school = DomainSchool(load=load)
    async with running(school) as pupils:
        school.ask((LAW,))
        async with asyncio.timeout(WITHIN_S):
            while not tries:  # noqa: ASYNC110 - nothing tells it
                await asyncio.sleep(0.001)
        school.ask((LAW, TAX))
        assert await pupils.hear(2) == ["recognised law tax", "grouped law tax"]
