"""Learns the domains that are taught, beside the calls and not in their way.

First to recognise them, which is served at once; then groups of their examples, which take ten
times as long, step by step and only for as long as nothing else is taught.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec
import numpy as np
import structlog
from numpy.typing import NDArray

from broker.core.columns import Floats, Numbers
from broker.core.quality.domains import Recogniser, learn
from broker.core.quality.groups import Groups, making
from broker.core.quality.syllabus import Domain
from broker.encoding.encoder import Encoder
from broker.encoding.strangers import STRANGERS
from broker.encoding.words import load_encoder

_KEY_DIGITS: Final = 12
_GROUPS_VERSION: Final = 2
"""Of the way in which groups are made: another way makes other groups."""

_log = structlog.get_logger(__name__)

Serve = Callable[[Recogniser | None, Encoder | None], Awaitable[None]]
Regroup = Callable[[Groups], None]


@dataclass(frozen=True, slots=True, eq=False)
class _Read:
    """Examples as they were encoded."""

    vectors: NDArray[np.float32]
    digest: str
    """Of their texts, for the last digits of vectors differ from machine to machine."""


@dataclass(frozen=True, slots=True, eq=False)
class _Learned:
    recogniser: Recogniser
    vectors: Floats
    labels: Numbers
    key: str
    """The same wherever the same was learned."""


@dataclass(slots=True, eq=False)
class DomainSchool:
    """Holds the encoder, which is loaded once there is a domain, and the vectors of examples."""

    load: Callable[[], Encoder] = load_encoder
    encoder: Encoder | None = None
    _strangers: Floats | None = None
    _read: dict[tuple[str, ...], _Read] = field(default_factory=dict)
    _taught: Sequence[Domain] = ()
    _asked: asyncio.Event = field(default_factory=asyncio.Event)
    _tried: asyncio.Event = field(default_factory=asyncio.Event)

    def ask(self, domains: Sequence[Domain]) -> None:
        """Have these domains learned, in place of any that were asked for before."""
        self._taught = domains
        self._asked.set()

    async def first(self, within_s: float) -> None:
        """Wait until what was asked for first is served, at most so long; else it comes later."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._tried.wait()

    async def run(self, serve: Serve, regroup: Regroup) -> None:
        """Learn what is asked for, on and on until cancelled. `serve` gets what recognises the
        domains, None where there are none, and the encoder; `regroup` gets their groups."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            try:
                await self._learn_all(self._taught, serve, regroup)
            except Exception:  # what is wrong with one domain must not end all learning
                _log.exception("domains were not learned")
            self._tried.set()

    async def _learn_all(self, domains: Sequence[Domain], serve: Serve, regroup: Regroup) -> None:
        if not domains:
            await serve(None, self.encoder)
            return
        learned = await asyncio.to_thread(self._learn, domains)
        await serve(learned.recogniser, self.encoder)
        self._tried.set()
        steps = making(learned.recogniser, learned.vectors, learned.labels, learned.key)
        while not self._asked.is_set():
            groups = await asyncio.to_thread(next, steps)
            if groups is not None:
                regroup(groups)
                return

    def _learn(self, domains: Sequence[Domain]) -> _Learned:
        if self.encoder is None:
            self.encoder = self.load()
        encoder, known = self.encoder, self._read
        if self._strangers is None:
            self._strangers = encode_strangers(encoder)
        self._read = {
            each.examples: known.get(each.examples) or _encode(encoder, each.examples)
            for each in domains
        }
        read = [self._read[each.examples] for each in domains]
        vectors = np.concatenate([each.vectors for each in read], dtype=np.float64)
        labels = np.repeat(np.arange(len(read)), [len(each.vectors) for each in read])
        names = [each.name for each in domains]
        recogniser = learn(names, labels, vectors, self._strangers, encoder.meaning)
        made_of = list(zip(names, (each.digest for each in read), strict=True))
        key = _digest([encoder.name, _GROUPS_VERSION, made_of])[:_KEY_DIGITS]
        return _Learned(recogniser, vectors, labels, key)


def _encode(encoder: Encoder, examples: Sequence[str]) -> _Read:
    return _Read(np.array([encoder.encode(each) for each in examples]), _digest(examples))


def _digest(told: object) -> str:
    return hashlib.sha256(msgspec.json.encode(told)).hexdigest()


def encode_strangers(encoder: Encoder) -> Floats:
    """Return the vectors of general prompts."""
    return np.array([encoder.encode(each) for each in STRANGERS], dtype=np.float64)
