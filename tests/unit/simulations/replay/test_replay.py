"""A market that a broker told of: its servers are found again, and it is written as it is read."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simulations.files.load import load
from simulations.market import run
from simulations.measured.record import Code
from simulations.replay.market import write_market
from simulations.replay.servers import server_of
from simulations.replay.writing import toml_of
from simulations.scenario import Pace, Pacing

ENDPOINT: dict[str, Any] = {
    "provider": "acme",
    "deployment": 3,
    "name": "chat",
    "model": "small",
    "tasks": ["chat"],
    "domains": {"law": 0.9},
    "quality": 0.7,
    "capacity": 10,
    "region": "eu",
    "context_tokens": 8_192,
    "output_tokens_max": None,
    "take_bps": 800,
    "tiers_bps": {"flex": 5_000},
    "in_micros": [10_000, 50_000, 900_000],
    "out_micros": [40_000, 200_000, 1_000_000],
    "call_nanos": [0, 0, 0],
}


def call(at_s: float, **facts: Any) -> dict[str, Any]:
    return {
        "at_s": at_s,
        "caller": 0,
        "task": "chat",
        "model": "small",
        "domain": None,
        "tier": "standard",
        "stream": True,
        "endpoint": "acme/chat",
        "served": True,
        "tokens_in": 100,
        "longest_part": 1.0,
        "tokens_out": 50,
        "charge_nanos": 20_000,
        "limit_nanos": None,
        "ttft_s": 0.1,
        "duration_s": 1.0,
    } | facts


def test_the_server_behind_calls_is_found() -> None:
    rng = np.random.default_rng(7)
    c0, c1, prefill = 0.02, 0.002, 1e-4
    calls, at_s = [], 0.0
    for block in range(60):
        together = 1 + block % 8
        for _ in range(together):
            tokens_in, tokens_out = int(rng.integers(50, 2_000)), 101
            ttft_s = prefill * tokens_in
            rest_s = (c0 + c1 * together) * (tokens_out - 1)
            facts = {"tokens_in": tokens_in, "tokens_out": tokens_out}
            calls.append(call(at_s, ttft_s=ttft_s, duration_s=ttft_s + rest_s, **facts))
        at_s += 20.0
    found = server_of(calls, 8)
    assert found["batch_max"] == 8
    assert found["c0_s"] == pytest.approx(c0, rel=0.05)
    assert found["c1_s"] == pytest.approx(c1, rel=0.05)
    assert found["prefill_s"] == pytest.approx(prefill, rel=0.05)


@pytest.mark.parametrize("calls", [[], [call(0.0, ttft_s=None)], [call(0.0, duration_s=0.0)]])
def test_few_calls_make_a_server_too(calls: list[dict[str, Any]]) -> None:
    assert server_of(calls, 4)["c0_s"] > 0.0


def test_endpoints_of_one_deployment_share_its_capacity(tmp_path: Path) -> None:
    told = {
        "endpoints": [ENDPOINT, ENDPOINT | {"name": "long"}],
        "calls": [
            *(call(float(at)) for at in range(60)),
            *(call(at + 0.5, endpoint="acme/long", duration_s=4.0) for at in range(60)),
            call(3.25, served=False, tokens_out=0, endpoint=None, domain="law", tier="flex"),
        ],
    }
    scenario = load(str(write_market(told, tmp_path, 1.5))).build()
    assert [each.capacity for _, each in scenario.endpoints] == [2, 8]
    first, refused = scenario.classes
    assert first.arrivals.arrival_s[:3] == (0.0, 0.5, 1.0)  # type: ignore[union-attr]
    assert refused.arrivals.arrival_s == (3.25,)  # type: ignore[union-attr]
    assert (refused.domain, refused.tier.value) == ("law", "flex")
    assert first.value.elasticity == 1.5


@pytest.mark.parametrize("pace", [Pace.EVENTS, Pace.SLICES])
def test_several_texts_at_once_are_held_each_against_the_context(
    tmp_path: Path, pace: Pace
) -> None:
    several = {"tokens_in": 4_000, "tokens_out": 1, "longest_part": 0.1}
    told = {
        "endpoints": [ENDPOINT | {"context_tokens": 512}],
        "calls": [call(float(at), **several) for at in range(60)],
    }
    scenario = load(str(write_market(told, tmp_path, 1.5))).build()
    scenario = replace(scenario, pacing=Pacing(pace), warm_up_s=0.0)
    (several_texts,) = scenario.classes
    assert several_texts.longest_part == 0.1
    one_text = replace(several_texts, longest_part=1.0)
    unfit = [
        run(replace(scenario, classes=(x,)), 1).totals.count(Code.UNFIT)
        for x in (several_texts, one_text)
    ]
    assert unfit == [0, 60]


@pytest.mark.parametrize(
    "name", ['a "b"\\c', "tab\t", "line\nbreak", "\x7f", "ünïcode", "[[x]]", "#"]
)
def test_any_name_is_written_as_it_is_read(name: str) -> None:
    plain = {
        "name": name,
        "horizon_s": 1e-07,
        "prices": {"parameters": {name: 0.5}, "choices": []},
        "providers": [{"name": name, "endpoints": [{"n": 1, "flag": True, "domains": {}}]}],
    }
    assert tomllib.loads(toml_of(plain)) == plain
