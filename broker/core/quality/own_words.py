"""What an account's words add to what is expected of endpoints on its own calls.

In what is learned for all one account weighs little, or it could talk down whom it likes. Where its
own calls go its words count in full: of each domain x endpoint, by how much its scores were better
than is expected for all, shrunk: `sum(w * (score - q)) / (sum(w) + OWN_PRIOR)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from uuid import UUID

import numpy as np

from broker.core.columns import Floats, Numbers
from broker.core.quality.notebook import NOBODY, UNKNOWN, Heard
from broker.core.requirements import Prompt

OWN_PRIOR: Final = 10.0
"""What is expected for all counts as so many answers."""

OwnWords = Mapping[int, tuple[Numbers, Floats]]
"""By the place of a domain, UNKNOWN for none: endpoint numbers, rising, and what is added."""
Own = Mapping[UUID, OwnWords]


def hear_own(heard: Heard, expected: tuple[Floats, Floats], weights: Floats) -> Own:
    """Return what each account's words add. `expected` is of right and wrong, and of scales, each
    of shape (domains + 1, endpoints); `weights` with no account's words cut short."""
    spoken = (heard.accounts != NOBODY) & (heard.endpoints != UNKNOWN) & ~heard.checks
    at = np.flatnonzero(spoken & (weights > 0.0))
    if not at.size or not heard.voices:
        return {}
    cells = np.stack((heard.accounts[at], heard.domains[at], heard.endpoints[at]), axis=1)
    exact, graded = (each[heard.domains[at], heard.endpoints[at]] for each in expected)
    apart = heard.scores[at] - np.where(heard.graded[at], graded, exact)
    cells, inverse = np.unique(cells, axis=0, return_inverse=True)
    inverse = inverse.ravel()
    told = np.bincount(inverse, weights[at])
    added = np.bincount(inverse, weights[at] * apart) / (told + OWN_PRIOR)
    begins = np.flatnonzero((cells[1:, :2] != cells[:-1, :2]).any(axis=1)) + 1
    own: dict[UUID, dict[int, tuple[Numbers, Floats]]] = {}
    for part, gains in zip(np.split(cells, begins), np.split(added, begins), strict=True):
        account_id = heard.voices[int(part[0, 0])]
        if account_id is not None:
            own.setdefault(account_id, {})[int(part[0, 1])] = part[:, 2].copy(), gains.copy()
    return own


def add_own(
    words: OwnWords, prompt: Prompt, domains: int, numbers: Numbers, quality: Floats
) -> None:
    """Add an account's words to the expected scores of endpoints, whose numbers rise; `domains` is
    how many are told apart."""
    if not numbers.size:
        return
    for cell, share in zip(prompt.cells, prompt.shares, strict=True):
        found = words.get(UNKNOWN if cell == domains else cell)
        if cell > domains or found is None:
            continue
        spoken, gains = found
        at = np.minimum(numbers.searchsorted(spoken), numbers.size - 1)
        there = numbers[at] == spoken
        quality[at[there]] += share * gains[there]
    np.maximum(quality, 0.0, out=quality)  # half the time of `clip`
    np.minimum(quality, 1.0, out=quality)
