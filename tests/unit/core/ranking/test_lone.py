"""The decision about one endpoint in plain numbers is the decision in arrays."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from broker.core.candidates.eligibility import shortlist
from broker.core.catalog import Task
from broker.core.decision import Decision
from broker.core.market import Market
from broker.core.outcome import Fault, Outcome
from broker.core.requirements import Weights
from pricing.book import Rate
from tests.fakes import decide, endpoint, market, pulse, requirements

weights = st.builds(Weights, *[st.floats(0, 10)] * 5)
demands = st.fixed_dictionaries(
    {
        "tokens_in_bound": st.integers(64, 40_000),
        "tokens_in_expected": st.integers(1, 10_000),
        "tokens_out_max": st.none() | st.integers(1, 5_000),
        "choices": st.integers(1, 4),
        "domain": st.sampled_from([None, "law", "medicine"]),
        "max_cost_nanos": st.none() | st.integers(1, 10**7),
        "latency_ms_max": st.none() | st.floats(1, 10_000),
        "weights": weights,
    }
)
rates = st.builds(Rate, st.integers(1, 10**7), st.integers(1, 10**7), st.integers(0, 10**6))


def in_arrays(where: Market, **asked: Any) -> Market:
    """The same market, in which the shortlist of one hides that it is one."""
    other = replace(where, shortlists={}, rates={})
    shortlist(requirements(**asked), other)
    for key, listed in other.shortlists.items():
        assert listed is not None
        other.shortlists[key] = replace(listed, lone=None)
    return other


def assert_same(one: Decision, other: Decision) -> None:
    assert one.plan == other.plan
    assert one.price_version == other.price_version
    for name in ("eligible", "rejected", "reasons"):
        assert getattr(one, name).tolist() == getattr(other, name).tolist()
    for name in ("scores", "parts", "costs_picos"):
        mine, theirs = getattr(one, name), getattr(other, name)
        assert mine.shape == theirs.shape
        np.testing.assert_allclose(mine, theirs, rtol=1e-12)


@given(asked=demands, rate=rates, load=st.integers(0, 20), failures=st.integers(0, 4))
def test_one_endpoint_is_decided_about_alike_in_numbers_and_in_arrays(
    asked: dict[str, Any], rate: Rate, load: int, failures: int
) -> None:
    where = market([endpoint(0, rate=rate, domains={"law": 0.9}, deployment={"capacity": 7})])
    live = pulse(where)
    live.ttft_ms[0], live.tpot_ms[0] = 120.0, 9.0
    for _ in range(load):
        live.begin(0, 0, 0.0)
    for _ in range(min(failures, load)):
        live.end(0, 0, Outcome(Fault.RESET), 0.0, None)
    assert_same(decide(where, live, **asked), decide(in_arrays(where, **asked), live, **asked))


@given(rate=rates, tokens_out_max=st.none() | st.integers(1, 5_000))
def test_a_task_without_output_is_decided_about_alike(
    rate: Rate, tokens_out_max: int | None
) -> None:
    where = market([endpoint(0, rate=rate, tasks=[Task.EMBEDDING])])
    asked = {"task": Task.EMBEDDING, "tokens_out_max": tokens_out_max}
    assert_same(decide(where, **asked), decide(in_arrays(where, **asked), **asked))


def test_the_numbers_are_used_where_there_is_one_endpoint_and_only_there() -> None:
    one, two = market([endpoint(0)]), market([endpoint(0), endpoint(1)])
    for where in (one, two):
        shortlist(requirements(), where)
    assert [each.lone is not None for each in one.shortlists.values() if each] == [True]
    assert [each.lone is not None for each in two.shortlists.values() if each] == [False]
