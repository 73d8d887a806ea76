"""Learns how well endpoints answer from single pieces of evidence, which are of one endpoint each.

Counts are Beta(good, bad) by domain x endpoint, faded (`broker.core.quality.fading`) and shrunk:
towards the endpoint's ability and the domain's difficulty, the more the better these are known, for
of nine endpoints the luckiest would win, and towards what the provider declares, as DECLARED
answers. Right-or-wrong and graded scores have counts of their own; a domain's two estimates are
blended by how much there is of each, for all endpoints alike. Failed checks of form make an answer
worthless; a passed one proves nothing, and so counts against failures alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from broker.core.cascade import Other
from broker.core.catalog import Endpoint
from broker.core.columns import Bools, Floats, Numbers
from broker.core.quality.confidence import Curves, Told, fit_agreements, fit_curves
from broker.core.quality.domains import Recogniser
from broker.core.quality.fading import (
    ALARM,
    OUTDATED,
    SAID_MAX,
    VOICE_MAX,
    capped,
    changed_at,
    expected_before,
    faded,
)
from broker.core.quality.gains import NO_GAINS, Answers, Gains, find_gains
from broker.core.quality.groups import Groups
from broker.core.quality.lessons import Lessons
from broker.core.quality.notebook import NOBODY, OTHERS, UNKNOWN, Heard
from broker.core.quality.own_words import hear_own
from broker.core.quality.syllabus import DOMAINS_MAX

DECLARED: Final = 10.0
"""What a provider says of its own endpoint counts as so many answers."""
UNDECLARED: Final = 0.5
"""The quality of what nothing is said of."""
DOMAIN_PRIOR: Final = 20.0
"""What a model's ability and a domain's difficulty make one expect counts as so many answers. By
cross-validation on four tables none of 10, 20 and 40 chooses better beyond its noise."""
EASE_PRIOR: Final = 10.0
SWEEPS: Final = 5
FORM_PRIOR: Final = 20.0
_TINY: Final = 1e-12


@dataclass(frozen=True, slots=True, eq=False)
class Catalog:
    """What is declared: of each domain and endpoint, and in general."""

    places: Mapping[str, int]
    declared: Floats
    """(domains, endpoints)"""
    general: Floats
    """(endpoints,)"""


@dataclass(frozen=True, slots=True, eq=False)
class Beside:
    """What is known beside the evidence."""

    tokens_out: Floats
    """(domains + 1, endpoints), as `broker.core.quality.lengths` has it."""
    recogniser: Recogniser | None = None
    groups: Groups | None = None
    """Those that `Heard.groups` are of."""


@dataclass(frozen=True, slots=True, eq=False)
class Estimate:
    """Of one grade of scores."""

    told: Floats
    """(domains, endpoints): how much evidence there is."""
    quality: Floats
    """(domains + 1, endpoints); the last row is in general."""


def told_apart(
    taught: Collection[str], spoken: Counter[str], endpoints: Sequence[Endpoint]
) -> list[str]:
    """Return the domains of which something is learned apart: those that are taught, and of those
    that are claimed as many as there is room for, first whatever is `spoken` of most. What else
    callers name is of no domain: a row takes 32 bytes for each endpoint."""
    claimed = Counter(name for each in endpoints for name in each.domains if name not in taught)
    ranked = sorted(claimed, key=lambda name: (-spoken[name], -claimed[name], name))
    return sorted({*taught, *ranked[: max(DOMAINS_MAX - len(taught), 0)]})


def read_catalog(endpoints: Sequence[Endpoint], names: Sequence[str], size: int) -> Catalog:
    """Lay out what endpoints declare for these domains, for numbers below `size`."""
    declared, general = np.zeros((len(names), size)), np.zeros(size)
    for each in endpoints:
        general[each.number] = each.quality
        declared[:, each.number] = [each.domains.get(name, each.quality) for name in names]
    return Catalog({name: at for at, name in enumerate(names)}, declared, general)


def undeclared(names: Sequence[str], size: int) -> Catalog:
    """Lay out that nothing is declared for these domains, of so many endpoints."""
    places = {name: at for at, name in enumerate(names)}
    return Catalog(places, np.full((len(names), size), UNDECLARED), np.full(size, UNDECLARED))


def learn(heard: Heard, catalog: Catalog, beside: Beside, now_s: float) -> Lessons:
    """Learn anew from all that was heard, at a moment in seconds of the clock of `heard`."""
    weights, uncut = _weights(heard, catalog, now_s)
    judged = (heard.endpoints != UNKNOWN) & ~heard.checks
    curves, agreements = _curves(heard, weights * judged)
    exact, graded = (
        _estimate(heard, catalog, weights, judged & (heard.graded == kind))
        for kind in (False, True)
    )
    quality = _blended(exact, graded)
    told = exact.told + graded.told
    told = np.vstack((told, told.sum(axis=0)))
    return Lessons(
        places=catalog.places,
        table=quality * _form(heard, catalog, weights),
        doubt=DECLARED / (DECLARED + told),
        weight=told + DOMAIN_PRIOR * told[-1] / (told[-1] + DOMAIN_PRIOR),
        tokens_out=beside.tokens_out,
        recogniser=beside.recogniser,
        groups=beside.groups,
        gains=_gains(heard, beside.groups, weights * judged, (exact, graded, quality)),
        curves=curves,
        agreements=agreements,
        own=hear_own(heard, (exact.quality, graded.quality), uncut),
    )


def _curves(heard: Heard, weights: Floats) -> tuple[Curves, Mapping[Other, Curves]]:
    """Learn how sure answers are to be read, and what agreement adds by whose the other answer was,
    of all but checks of form."""
    columns = (heard.endpoints, heard.domains, heard.graded, heard.confidences, heard.scores)
    told = Told(*columns, weights, heard.accounts != NOBODY)
    curves = fit_curves(told)
    return curves, {
        other: fit_agreements(told, np.where(heard.others == at, heard.agreements, np.nan), curves)
        for at, other in enumerate(OTHERS)
    }


def _blended(exact: Estimate, graded: Estimate) -> Floats:
    """Blend two grades' estimates, for all endpoints of a domain alike."""
    amounts = np.array([exact.told.sum(axis=1), graded.told.sum(axis=1)])
    amounts = np.hstack((amounts, amounts.sum(axis=1, keepdims=True)))
    total = amounts.sum(axis=0)
    share = np.where(total > 0.0, amounts[0] / np.maximum(total, _TINY), 1.0)[:, None]
    return np.asarray(share * exact.quality + (1.0 - share) * graded.quality)


def _weights(heard: Heard, catalog: Catalog, now_s: float) -> tuple[Floats, Floats]:
    """What each piece weighs: as given, faded, less where its endpoint got worse since, and what
    one account says of an endpoint so much at most in all; and without that last.

    All together tell that it got worse, with no account heard too much; and what one account says
    tells it of what the same one said before.
    """
    judged = np.flatnonzero((heard.endpoints != UNKNOWN) & ~heard.checks)
    numbers, accounts = heard.endpoints[judged], heard.accounts[judged]
    told, voices = heard.weights[judged], numbers * (accounts.max(initial=0) + 1) + accounts

    def shared(weights: Floats, most: float) -> Floats:
        return np.where(accounts == NOBODY, weights, capped(weights, voices, most))

    still = np.ones(judged.size)
    for streams, trust in ((numbers, shared(told, VOICE_MAX)), (voices, told)):
        short = _short(heard, catalog, judged, (streams, trust))
        by_stream = np.argsort(streams, kind="stable")
        for places in np.split(by_stream, np.flatnonzero(np.diff(streams[by_stream])) + 1):
            if places.size > ALARM:
                still[places[: changed_at(short[places])]] = OUTDATED
    uncut = heard.weights * faded(now_s - heard.at_s)
    uncut[judged] *= still
    weights = uncut.copy()
    weights[judged] = shared(uncut[judged], SAID_MAX)
    return weights, uncut


def _short(heard: Heard, catalog: Catalog, judged: Numbers, told: tuple[Numbers, Floats]) -> Floats:
    """Return what each score falls short of what was told before it in its stream, by weight."""
    (streams, trust), scores = told, heard.scores[judged]
    domains, rows = heard.domains[judged], len(catalog.places) + 1
    declared = np.vstack((catalog.declared, catalog.general))[domains, heard.endpoints[judged]]
    cells = (streams * rows + domains + 1) * 2 + heard.graded[judged]
    return np.asarray((expected_before(scores, trust, cells, declared, DECLARED) - scores) * trust)


def _estimate(heard: Heard, catalog: Catalog, weights: Floats, which: Bools) -> Estimate:
    told, good = (_counted(heard, catalog, weights * which * each) for each in (1.0, heard.scores))
    own = told.sum(axis=0)
    ease = np.zeros(len(told))
    # By turns, for who was asked about easy domains only is not the better for that.
    for _ in range(SWEEPS):
        usual = ((good - told * ease[:, None]).sum(axis=0) + DECLARED * catalog.general) / (
            own + DECLARED
        )
        ease = (good - told * usual).sum(axis=1) / (told.sum(axis=1) + EASE_PRIOR)
    told, good, ease = told[:-1], good[:-1], ease[:-1]
    expected = np.clip(usual + ease[:, None], 0.01, 0.99)
    shrink = DOMAIN_PRIOR * own / (own + DOMAIN_PRIOR)
    quality = good + shrink * expected + DECLARED * catalog.declared
    return Estimate(told, np.vstack((quality / (told + shrink + DECLARED), usual)))


def _counted(heard: Heard, catalog: Catalog, amounts: Floats) -> Floats:
    """Sum amounts by domain and endpoint; the last row is of no domain."""
    size, rows = catalog.general.size, len(catalog.places) + 1
    listed = heard.endpoints != UNKNOWN
    places = heard.domains[listed] % rows * size + heard.endpoints[listed]
    sums = np.bincount(places, amounts[listed], rows * size)
    return np.asarray(sums.reshape(rows, size))


def _form(heard: Heard, catalog: Catalog, weights: Floats) -> Floats:
    """Return how likely an answer is to be of the right form: (domains + 1, endpoints)."""
    told = _counted(heard, catalog, weights * heard.checks)
    failed = _counted(heard, catalog, weights * heard.checks * (1.0 - heard.scores))
    failed[-1], told[-1] = failed.sum(axis=0), told.sum(axis=0)
    return np.asarray(1.0 - failed / (told + FORM_PRIOR))


def _gains(
    heard: Heard,
    groups: Groups | None,
    weights: Floats,
    known: tuple[Estimate, Estimate, Floats],
) -> Gains:
    """Return what each group adds to what is expected by domains. `known` is the estimates of both
    grades, and what they are blended to."""
    if groups is None:
        return NO_GAINS
    placed = heard.placed
    heavy = weights[placed.at] > 0.0
    at = placed.at[heavy]
    answers = Answers(
        groups=placed.groups[heavy],
        models=heard.endpoints[at],
        prompts=placed.prompts[heavy],
        apart=heard.scores[at] - _expected(heard, *known)[heavy],
        weights=weights[at],
    )
    return find_gains(answers, groups.count)


def _expected(heard: Heard, exact: Estimate, graded: Estimate, quality: Floats) -> Floats:
    """Return what those that are placed were expected to score, as far as domains tell: where the
    prompt is known, by all that it may be taken for, as it will be when calls like it come."""
    placed, mixed = heard.placed, len(heard.placed.odds)
    own = heard.domains[placed.at], heard.endpoints[placed.at]
    expected = np.where(heard.graded[placed.at], graded.quality[own], exact.quality[own])
    if mixed:
        domains, endpoints = (each[:mixed] for each in own)
        taken_for = (placed.odds * quality[:, endpoints].T).sum(axis=1)
        expected[:mixed] += taken_for - quality[domains, endpoints]
    return np.asarray(expected)


def taught_on(
    lessons: Lessons, recogniser: Recogniser | None, endpoints: Sequence[Endpoint]
) -> Lessons:
    """Return the same for who knows other domains, until all is learned anew: of those that nobody
    has spoken of is expected what is with no evidence, and groups stay what they are."""
    names = recogniser.names if recogniser else ()
    new = [each for each in names if each not in lessons.places]
    last, size = len(lessons.places), lessons.table.shape[1]
    declared = read_catalog([each for each in endpoints if each.number < size], new, size).declared
    own = DECLARED / lessons.doubt[-1] - DECLARED
    shrink = DOMAIN_PRIOR * own / (own + DOMAIN_PRIOR)
    expected = (shrink * lessons.table[last] + DECLARED * declared) / (shrink + DECLARED)
    alike = np.ones((len(new), 1))
    return replace(
        lessons,
        places={**lessons.places, **{name: last + at for at, name in enumerate(new)}},
        table=np.insert(lessons.table, [last] * len(new), expected, axis=0),
        doubt=np.insert(lessons.doubt, [last] * len(new), alike, axis=0),
        weight=np.insert(lessons.weight, [last] * len(new), alike * shrink, axis=0),
        tokens_out=np.insert(
            lessons.tokens_out, [last] * len(new), alike * lessons.tokens_out[-1], axis=0
        ),
        recogniser=recogniser,
    )
