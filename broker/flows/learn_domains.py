"""Learns to recognise the domains that are taught, beside the calls and not in their way."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import msgspec
import numpy as np

from broker.core.columns import Floats
from broker.core.domains import Recogniser, learn
from broker.core.syllabus import Domain
from broker.encoding.encoder import Encoder, Vector
from broker.encoding.strangers import STRANGERS
from broker.encoding.words import load_encoder

_KEY_DIGITS: Final = 12


class DomainSchool:
    """Holds the encoder, which is loaded once there is a domain, and the examples' vectors."""

    def __init__(self) -> None:
        self.encoder: Encoder | None = None
        self._vectors: dict[str, Vector] = {}
        self._turn = asyncio.Lock()

    async def learn(self, domains: Sequence[Domain]) -> Recogniser | None:
        """Return what recognises these domains; None where there is none to recognise."""
        async with self._turn:
            return await asyncio.to_thread(self._learn, domains) if domains else None

    def _learn(self, domains: Sequence[Domain]) -> Recogniser:
        if self.encoder is None:
            self.encoder = load_encoder()
        known, encode = self._vectors, self.encoder.encode
        self._vectors = {
            text: known[text] if text in known else encode(text)
            for each in domains
            for text in each.examples
        }
        labels = np.repeat(np.arange(len(domains)), [len(each.examples) for each in domains])
        rows = [self._vectors[text] for each in domains for text in each.examples]
        vectors, strangers = np.array(rows, np.float64), encode_strangers(self.encoder)
        names, meaning = [each.name for each in domains], self.encoder.meaning
        learned = learn(names, labels, vectors, strangers, meaning)
        return replace(learned, key=_key(domains, self.encoder.name))


def _key(domains: Sequence[Domain], encoder: str) -> str:
    """Return what is the same wherever the same was learned: of texts, for the last digits of
    their vectors differ from machine to machine."""
    told = msgspec.json.encode([encoder, [(each.name, each.examples) for each in domains]])
    return hashlib.sha256(told).hexdigest()[:_KEY_DIGITS]


def encode_strangers(encoder: Encoder) -> Floats:
    """Return the vectors of general prompts."""
    return np.array([encoder.encode(each) for each in STRANGERS], dtype=np.float64)
