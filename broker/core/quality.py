"""How well each model answers a prompt, from what was counted: q = q_dom + gain of its groups.

Evidence is scores within 0..1, counted as Beta(good, bad). `q_dom` is the mean of the domains'
cells by p(domain | prompt), each shrunk towards what the model's overall ability and the domain's
difficulty make one expect, for of nine models the luckiest would win. The gain is by how much
better or worse than that all models did in the groups that a prompt is of, and each beyond all,
shrunk and scaled by how well it foretells (`broker.core.groups`). What is strange to all domains is
judged by the nearest. Domain means and k-means equal learned routers (Zhang et al.,
"Avengers-Pro", 2025).

By cross-validation on three to five tables nothing of this chose better beyond its noise, though
some foretold better how hard a prompt is: ridge and kernel regression on the vectors, other numbers
of groups and groupings, scales of each model or principal component, cells fitted to the odds,
logistic and quadratic discriminants, words weighed by rarity or place. On a table of fourteen alike
tasks, of a hundred prompts 0.4 more would be answered right if no task were taken for another.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from broker.core.columns import Bools, Floats, Numbers
from broker.core.domains import Recogniser, among_held_out
from broker.core.groups import Answers, Groups, gains

DOMAIN_PRIOR = 40.0
"""A cell's prior weighs as much as so many answers."""


@dataclass(frozen=True, slots=True, eq=False)
class Learned:
    """All that was learned of the models' answers, as plain numbers. Build with `learn_quality`."""

    groups: Groups
    by_domain: Floats
    """(domains, models)"""
    gain: Floats
    """(groups, models): what the prompts of a group add to what their domains make one expect."""
    local_share: float = 1.0
    """How much of the gain counts."""

    @property
    def recogniser(self) -> Recogniser:
        """Tells the domains."""
        return self.groups.recogniser

    def estimate(self, vectors: Floats) -> Floats:
        """Return the expected score of each model: (n, models), for vectors as encoded."""
        standard = self.recogniser.standardise(vectors)
        odds = self.recogniser.among_known(standard)
        quality = odds @ self.by_domain
        if self.local_share > 0.0:
            own = self.groups.nearest(standard, odds)
            quality += self.local_share * self.gain[own].mean(axis=1)
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


def learn_quality(groups: Groups, seen: Evidence) -> Learned:
    """Count what was seen of the examples that groups were made of, or some of them."""
    recogniser = groups.recogniser
    by_domain = _by_domain(len(recogniser.names), seen)
    standard = recogniser.standardise(seen.vectors)
    odds = among_held_out(recogniser, standard, seen.labels, np.arange(len(seen.labels)))
    own = groups.nearest(standard, odds)
    models = seen.scores.shape[1]
    rows, asked = np.nonzero(seen.asked)
    answers = Answers(
        groups=own[rows],
        models=asked,
        prompts=rows,
        apart=seen.scores[rows, asked] - (odds @ by_domain)[rows, asked],
        weights=np.ones(rows.size),
    )
    return Learned(groups, by_domain, gains(answers, (groups.count, models)))


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
