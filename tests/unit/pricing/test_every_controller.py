"""What must hold of any controller, whatever it does with load."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pricing.book import FloatArray, PriceBook
from pricing.choice import CONTROLLERS
from pricing.controllers import Controller
from pricing.ensemble import Ensemble
from pricing.guardrails import clamp
from pricing.snapshot import Bands, MarketSnapshot
from tests.unit.pricing.markets import BY_CALL, TOKENS, bands, markets

controllers: dict[str, Controller[Any]] = {
    **{name: kind() for name, kind in CONTROLLERS.items()},
    "ensemble": Ensemble.of(CONTROLLERS["excess"]()),
}
every = pytest.mark.parametrize("controller", controllers.values(), ids=list(controllers))
loads = st.floats(0.0, 8.0)
anything = st.floats(allow_nan=True, allow_infinity=True)
scripts = st.lists(st.tuples(anything, st.floats(0.0, 90.0)), max_size=8)


def moment(at_s: float, dt_s: float, load: float, of: Bands, book: PriceBook) -> MarketSnapshot:
    return MarketSnapshot(at_s, dt_s, np.full(len(of), load), of, book, np.ones(len(of)))


def played(
    controller: Controller[Any], of: Bands, script: list[tuple[float, float]]
) -> list[FloatArray]:
    """What was proposed and published in turn, from list prices on."""
    book = PriceBook.from_matrix(1, of.listed)
    state, at_s, seen = controller.resume(book, of), 1e9, []
    for version, (load, dt_s) in enumerate(script):
        at_s += dt_s
        state, proposed = controller.step(state, moment(at_s, dt_s, load, of, book))
        book = clamp(book, proposed, of, version + 2)
        seen += [proposed.rates, book.matrix().astype(np.float64)]
    return seen


@every
@given(of=markets, script=scripts)
@settings(max_examples=30)
def test_whatever_the_load_proposals_are_numbers_within_the_band(
    controller: Controller[Any], of: Bands, script: list[tuple[float, float]]
) -> None:
    for rates in played(controller, of, script):
        assert (of.floor * (1 - 1e-9) <= rates).all()
        assert (rates <= of.ceiling * (1 + 1e-9)).all()


@every
@given(of=markets, script=scripts)
@settings(max_examples=30)
def test_a_replay_gives_the_same(
    controller: Controller[Any], of: Bands, script: list[tuple[float, float]]
) -> None:
    pairs = zip(played(controller, of, script), played(controller, of, script), strict=True)
    assert all(np.array_equal(one, other) for one, other in pairs)


@pytest.mark.parametrize("name", ["posted", "excess", "pi", "shadow", "ensemble"])
@given(of=markets, script=st.lists(st.tuples(loads, loads), min_size=1, max_size=8))
@settings(max_examples=30)
def test_more_load_never_means_a_lower_price(
    name: str, of: Bands, script: list[tuple[float, float]]
) -> None:
    """Of those that answer to load; a search for revenue answers to what it learns."""
    less = played(controllers[name], of, [(min(pair), 1.0) for pair in script])
    more = played(controllers[name], of, [(max(pair), 1.0) for pair in script])
    for low, high in zip(less[::2], more[::2], strict=True):
        assert (low <= high * (1 + 1e-9)).all()


@every
def test_a_newcomer_starts_at_its_list_price(controller: Controller[Any]) -> None:
    of = bands(TOKENS, BY_CALL)
    state = controller.resume(PriceBook.empty(), of)
    _, proposed = controller.step(state, moment(0.0, 1.0, 0.7, of, PriceBook.empty()))
    np.testing.assert_allclose(proposed.rates, of.listed)


@every
def test_who_was_gone_for_a_while_begins_at_its_list_price_again(
    controller: Controller[Any],
) -> None:
    of = bands(TOKENS, BY_CALL)
    state = controller.resume(PriceBook.from_matrix(1, of.listed), of)
    for second in range(5):
        state, _ = controller.step(state, moment(float(second), 1.0, 3.0, of, PriceBook.empty()))
    left = bands((0,) * 9, BY_CALL)
    state, _ = controller.step(state, moment(5.0, 1.0, 3.0, left, PriceBook.empty()))
    _, proposed = controller.step(state, moment(6.0, 1.0, 3.0, of, PriceBook.empty()))
    np.testing.assert_allclose(proposed.rates[:, 0], of.listed[:, 0])


@every
def test_a_new_leader_goes_on_from_the_published_book(controller: Controller[Any]) -> None:
    of = bands(TOKENS, BY_CALL)
    book = PriceBook.from_matrix(7, np.array([[3_000_000, 0], [6_000_000, 0], [0, 1_500_000]]))
    state = controller.resume(book, of)
    _, proposed = controller.step(state, moment(0.0, 0.0, 0.7, of, book))
    if controller is controllers["posted"]:
        return
    np.testing.assert_allclose(proposed.rates, book.matrix(), rtol=0.04)


@every
def test_a_market_without_endpoints_is_no_special_case(controller: Controller[Any]) -> None:
    none = bands()
    state = controller.resume(PriceBook.empty(), none)
    for _ in range(3):
        state, proposed = controller.step(state, moment(0.0, 60.0, 1.0, none, PriceBook.empty()))
        assert proposed.rates.shape == (3, 0)


@every
def test_endpoints_may_come_and_go(controller: Controller[Any]) -> None:
    sizes = [
        bands(TOKENS),
        bands(TOKENS, BY_CALL),
        bands((0,) * 9, BY_CALL),
        bands(),
        bands(TOKENS),
    ]
    book = PriceBook.empty()
    state = controller.resume(book, sizes[0])
    for at, of in enumerate(sizes):
        state, proposed = controller.step(state, moment(60.0 * at, 60.0, 0.9, of, book))
        book = clamp(book, proposed, of, at + 1)
        assert (book.matrix() >= of.floor).all()
        assert (book.matrix() <= of.ceiling).all()


@pytest.mark.parametrize(
    ("name", "field"),
    [
        (name, each.name)
        for name, kind in CONTROLLERS.items()
        for each in fields(kind)  # type: ignore[arg-type]
        if each.name != "seed"
    ],
)
def test_no_parameter_of_a_controller_may_be_absurd(name: str, field: str) -> None:
    for absurd in (math.nan, -1.0):
        with pytest.raises(ValueError, match=r"\w+"):
            CONTROLLERS[name](**{field: absurd})


EDGES: list[tuple[str, dict[str, float], dict[str, float]]] = [
    # The controller, settings at the edge of sense, and one that is beyond it.
    ("revenue", {}, {"half_s": math.inf}),
    ("revenue", {}, {"half_s": 0.0}),
    ("revenue", {"settle_share": 0.0}, {"settle_share": 1.0}),
    ("revenue", {"explore": 0.04}, {"explore": 0.039}),
    ("revenue", {"explore": 0.5}, {"explore": 0.51}),
    ("revenue", {"explore_min": 0.001}, {"explore_min": 0.0}),
    ("revenue", {"speed": 0.001}, {"speed": 0.0}),
    ("revenue", {"speed": 1.0}, {"speed": 1.01}),
    ("revenue", {"max_move": 0.001}, {"max_move": 0.0}),
    ("revenue", {"max_move": 0.5}, {"max_move": 0.51}),
    ("revenue", {"full": 0.001}, {"full": 0.0}),
    ("revenue", {"forgetting": 0.5}, {"forgetting": 0.49}),
    ("revenue", {"forgetting": 1.0}, {"forgetting": 1.01}),
    ("shadow", {"target": 0.001}, {"target": 0.0}),
    ("shadow", {"target": 7.99}, {"target": 8.0}),
    ("shadow", {"speed": 0.001}, {"speed": 0.0}),
    ("shadow", {"speed": 1.0}, {"speed": 1.01}),
    ("shadow", {"solve_every_s": 0.0}, {"solve_every_s": math.inf}),
    ("shadow", {"elasticity": 0.001}, {"elasticity": 0.0}),
    ("shadow", {}, {"elasticity": math.inf}),
]


@pytest.mark.parametrize(("name", "edge", "beyond"), EDGES)
def test_settings_at_the_edge_of_sense_are_taken_and_beyond_it_refused(
    name: str, edge: dict[str, float], beyond: dict[str, float]
) -> None:
    made = CONTROLLERS[name](**edge)
    assert {field: getattr(made, field) for field in edge} == edge
    with pytest.raises(ValueError, match=r"\w+"):
        CONTROLLERS[name](**beyond)
