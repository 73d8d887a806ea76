"""Each process of arrivals has the rate, the bursts and the course that it says."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pricing.book import FloatArray
from simulations.chance import generator
from simulations.demand import (
    Arrivals,
    ConsumerClass,
    DayNight,
    GammaBursts,
    Mmpp,
    Poisson,
    Steps,
    Trace,
)
from simulations.fluid.atoms import LENGTHS, atoms_of, calls_between
from simulations.traffic.arrivals import moments


def until(arrivals: Arrivals, to_s: float, seed: int = 1) -> FloatArray:
    blocks = []
    for block in moments(arrivals, generator(seed, "arrivals")):
        blocks.append(block)
        if block[-1] > to_s:
            break
    every = np.concatenate(blocks)
    return every[every < to_s]


PROCESSES: tuple[Arrivals, ...] = (
    Poisson(2.0),
    GammaBursts(2.0, 0.5),
    GammaBursts(2.0, 3.0),
    Mmpp((0.5, 8.0), (30.0, 10.0)),
    DayNight(2.0, 0.9, period_s=1_000.0, peak_s=300.0),
    Steps((100.0, 500.0, 700.0), (1.0, 9.0, 2.0)),
)


@pytest.mark.parametrize("arrivals", PROCESSES, ids=lambda each: type(each).__name__)
def test_as_many_come_as_the_fluid_expects_and_in_order(arrivals: Arrivals) -> None:
    came = until(arrivals, 20_000.0)
    assert (np.diff(came) >= 0.0).all()
    assert came.size == pytest.approx(calls_between(arrivals, 0.0, 20_000.0), rel=0.05)
    np.testing.assert_array_equal(came, until(arrivals, 20_000.0))
    assert came.size != until(arrivals, 20_000.0, seed=2).size


@pytest.mark.parametrize("cv", [0.0, 0.5, 1.0, 3.0])
def test_gaps_of_bursts_have_the_spread_that_is_told(cv: float) -> None:
    gaps = np.diff(until(GammaBursts(5.0, cv), 20_000.0))
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.05, abs=1e-9)


def test_a_rate_that_changes_at_random_makes_counts_burstier_than_poisson() -> None:
    def dispersion(arrivals: Arrivals) -> float:
        counts, _ = np.histogram(until(arrivals, 40_000.0), 2_000)
        return float(counts.var() / counts.mean())

    assert dispersion(Poisson(2.0)) == pytest.approx(1.0, abs=0.15)
    assert dispersion(Mmpp((0.5, 8.0), (30.0, 10.0))) > 10.0


def test_a_day_has_its_peak_where_it_says_and_silence_opposite() -> None:
    came = until(DayNight(2.0, 1.0, period_s=1_000.0, peak_s=300.0), 100_000.0) % 1_000.0
    counts, _ = np.histogram(came, 10, (0.0, 1_000.0))
    assert counts.argmax() in (2, 3)
    assert counts[7:9].max() < 0.1 * counts.max()
    angle = np.angle(np.exp(2j * math.pi * came / 1_000.0).mean()) / (2.0 * math.pi)
    assert angle * 1_000.0 == pytest.approx(300.0, abs=10.0)


def test_where_no_state_has_calls_there_are_none() -> None:
    assert list(moments(Mmpp((0.0, 0.0), (1.0, 2.0)), generator(1, "arrivals"))) == []


def test_a_trace_comes_as_it_came_only_faster() -> None:
    came = until(Trace((0.0, 1.0, 5.0), speed=2.0), 100.0)
    assert came.tolist() == [0.0, 0.5, 2.5]


@pytest.mark.parametrize("lengths", [(8,), (8, 39), (900, 8, 39, 40), tuple(range(7, 107))])
def test_atoms_are_as_long_as_the_calls_of_a_trace_however_few(lengths: tuple[int, ...]) -> None:
    came = Trace(tuple(map(float, range(len(lengths)))), lengths, lengths[::-1])
    atoms = atoms_of(ConsumerClass("replayed", came))
    for bins in (atoms.tokens_in, atoms.tokens_out):
        assert bins.mean() == pytest.approx(sum(lengths) / len(lengths))
        assert np.unique(bins).size == (LENGTHS if len(lengths) > 1 else 1)
