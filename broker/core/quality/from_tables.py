"""How well each model answers a prompt, learned of a table as brokers learn of what they are told.

Evidence is scores within 0..1, of which `broker.core.quality.learning` makes q = q_dom + gain:
`q_dom` is the mean of the domains' cells by p(domain | prompt), and the gain is by how much better
or worse than that all models did in the groups that a prompt is of, and each beyond all
(`broker.core.quality.groups`). What is strange to all domains is judged by the nearest. Domain
means and k-means equal learned routers (Zhang et al., "Avengers-Pro", 2025).

By cross-validation on three to five tables nothing of this chose better beyond its noise, though
some foretold better how hard a prompt is: ridge and kernel regression on the vectors, other numbers
of groups and groupings, scales of each model or principal component, cells fitted to the odds,
logistic and quadratic discriminants, words weighed by rarity or place. On a table of fourteen alike
tasks, of a hundred prompts 0.4 more would be answered right if no task were taken for another.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from broker.core.columns import Bools, Floats, Numbers
from broker.core.quality.domains import Recogniser, among_held_out
from broker.core.quality.groups import Groups
from broker.core.quality.learning import DECLARED, Beside, Catalog, learn, undeclared
from broker.core.quality.notebook import Placed, by_place, heard_together

_GOLDEN = (5.0**0.5 - 1.0) / 2.0


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
    def asked(self) -> Bools:
        """Who was asked."""
        return np.asarray(~np.isnan(self.scores))

    @property
    def graded(self) -> Bools:
        """Of each domain, whether its answers are right or wrong, or have degrees."""
        degrees = self.asked & ~np.isin(self.scores, (0.0, 1.0))
        return np.bincount(self.labels, degrees.any(axis=1)) > 0.0


def learn_quality(groups: Groups, seen: Evidence) -> Learned:
    """Learn of what was seen of the examples that groups were made of, or some of them; nothing is
    declared of any model: all are thought alike until they are told apart."""
    recogniser = groups.recogniser
    standard = recogniser.standardise(seen.vectors)
    odds = among_held_out(recogniser, standard, seen.labels, np.arange(len(seen.labels)))
    own = groups.nearest(standard, odds)
    prompts, models = np.nonzero(seen.asked)
    # Apart: rows that lie together are alike, and would tell of a model that got worse.
    order = np.argsort(np.arange(prompts.size) * _GOLDEN % 1.0)
    prompts, models = prompts[order], models[order]
    labels, (domains, size) = seen.labels[prompts], (len(recogniser.names), seen.scores.shape[1])
    heard = heard_together(models, labels, seen.scores[prompts, models], seen.graded[labels])
    catalog = _alike(seen, undeclared(recogniser.names, size))
    taken_for = by_place(odds, recogniser.names, catalog.places)[prompts]
    placed = Placed(np.arange(prompts.size), own[prompts], prompts, taken_for)
    beside = Beside(np.full((domains + 1, size), np.nan), groups=groups)
    known = learn(replace(heard, placed=placed), catalog, beside, 0.0)
    return Learned(groups, known.table[:domains], known.gains.table(np.arange(size)))


def _alike(seen: Evidence, catalog: Catalog) -> Catalog:
    """Declare that each model does as all do together: in a domain, and in general.

    All models are declared the same, which prefers none; half of what may be scored, in place of
    that, makes too little of easy domains, and too much of hard ones, where there is little to
    learn from.
    """
    asked, (domains, size) = seen.asked, catalog.declared.shape
    told = np.bincount(seen.labels, asked.sum(axis=1), domains)
    good = np.bincount(seen.labels, np.where(asked, seen.scores, 0.0).sum(axis=1), domains)
    usual = good.sum() / told.sum()
    by_domain = (good + DECLARED * size * usual) / (told + DECLARED * size)
    return replace(
        catalog,
        declared=np.repeat(by_domain[:, None], size, axis=1),
        general=np.full(size, usual),
    )
