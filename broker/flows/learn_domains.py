"""Learns to recognise the domains that are taught, beside the calls and not in their way."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np

from broker.core.columns import Floats
from broker.core.domains import Recogniser, learn
from broker.core.syllabus import Domain
from broker.encoding.encoder import Encoder, Vector
from broker.encoding.strangers import STRANGERS
from broker.encoding.words import load_encoder


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
        return learn([each.name for each in domains], labels, vectors, strangers)


def encode_strangers(encoder: Encoder) -> Floats:
    """Return the vectors of general prompts."""
    return np.array([encoder.encode(each) for each in STRANGERS], dtype=np.float64)
