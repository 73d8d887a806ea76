"""How well each model answers a prompt, from what was counted: q = (q_dom + q_loc) / 2.

Evidence is scores within 0..1, counted as Beta(good, bad). `q_dom` is the mean of the domains'
cells by p(domain | prompt). `q_loc` is the same, moved by how much better or worse each model did
in the nearest groups of prompts than their domains make one expect. A domain's cell is shrunk
towards what the model's overall ability and the domain's difficulty make one expect, for of nine
models the luckiest would win; a group's towards its prompts' domains. What is strange to all
domains is judged by the nearest. Domain means and k-means equal learned routers (Zhang et al.,
"Avengers-Pro", 2025).
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import numpy as np

from broker.core.clusters import distances, group
from broker.core.columns import Bools, Floats, Numbers
from broker.core.domains import Recogniser

DOMAIN_PRIOR = 40.0
"""A cell's prior weighs as much as so many answers."""
GROUP_PRIOR = 30.0
PROMPTS_PER_GROUP = 30
GROUPS_MAX = 256
NEAREST = 3
GROUPINGS = 2
"""Where a group ends is chance: several groupings even it out."""


@dataclass(frozen=True, slots=True, eq=False)
class Grouping:
    """Groups of prompts, and how each model did within them."""

    centres: Floats
    """(groups, length)"""
    gain: Floats
    """(groups, models): mean score less what the prompts' domains make one expect, shrunk."""

    def nearest(self, vectors: Floats) -> Floats:
        """Return the mean gain of each model in the NEAREST groups: (n, models)."""
        apart = distances(vectors, self.centres)
        count = min(NEAREST, apart.shape[1])
        near = np.argpartition(apart, count - 1, axis=1)[:, :count]
        return np.asarray(self.gain[near].mean(axis=1))


@dataclass(frozen=True, slots=True, eq=False)
class Learned:
    """All that was learned of the models' answers, as plain numbers. Build with `learn_quality`."""

    recogniser: Recogniser
    by_domain: Floats
    """(domains, models)"""
    groupings: tuple[Grouping, ...]
    meaning: int
    """So many of a vector's numbers, the first, say what a prompt means: groups go by these."""
    local_share: float = 0.5
    """How much q_loc weighs."""

    def estimate(self, vectors: Floats) -> Floats:
        """Return the expected score of each model: (n, models), for vectors as encoded."""
        standard = self.recogniser.standardise(vectors)
        quality = self.recogniser.among_known(standard) @ self.by_domain
        if self.groupings and self.local_share > 0.0:
            gains = [each.nearest(standard[:, : self.meaning]) for each in self.groupings]
            quality += self.local_share * np.mean(gains, axis=0)
        return np.asarray(np.clip(quality, 0.0, 1.0))


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """Answered prompts: vectors as encoded, domains as places in the recogniser's names."""

    vectors: Floats
    labels: Numbers
    scores: Floats
    """(prompts, models), within 0..1; NaN where a model was not asked."""

    @property
    def good(self) -> Floats:
        """Scores, 0 where not asked."""
        return np.where(self.asked, self.scores, 0.0)

    @property
    def asked(self) -> Bools:
        """Who was asked."""
        return np.asarray(~np.isnan(self.scores))


def learn_quality(
    recogniser: Recogniser,
    seen: Evidence,
    meaning: int,
    random: Random,
) -> Learned:
    """Count what was seen; of its vectors the first `meaning` numbers say what prompts mean."""
    by_domain = _by_domain(len(recogniser.names), seen)
    vectors = recogniser.standardise(seen.vectors)[:, :meaning]
    apart = np.where(seen.asked, seen.good - by_domain[seen.labels], 0.0)
    count = min(max(len(vectors) // PROMPTS_PER_GROUP, 1), GROUPS_MAX)
    made = []
    for _ in range(GROUPINGS):
        centres, own = group(vectors, count, random)
        members = _members(own, len(centres))
        gain = (members @ apart) / (members @ seen.asked + GROUP_PRIOR)
        made.append(Grouping(centres, np.asarray(gain)))
    return Learned(recogniser, by_domain, tuple(made), meaning)


def _by_domain(domains: int, seen: Evidence) -> Floats:
    good, asked, members = seen.good, seen.asked, _members(seen.labels, domains)
    usual = (good.sum(axis=0) + 0.5) / (asked.sum(axis=0) + 1.0)
    told, reached = members @ asked, members @ good
    ease = (reached - told * usual).sum(axis=1) / np.maximum(told.sum(axis=1), 1.0)
    prior = np.clip(usual + ease[:, None], 0.01, 0.99)
    return np.asarray((reached + DOMAIN_PRIOR * prior) / (told + DOMAIN_PRIOR))


def _members(labels: Numbers, count: int) -> Floats:
    """Return a row for each label, 1 where a prompt has it."""
    members = np.zeros((count, len(labels)))
    members[labels, np.arange(len(labels))] = 1.0
    return members
