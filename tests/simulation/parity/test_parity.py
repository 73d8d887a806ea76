"""The live broker and a simulator make the same attempts of the same failures."""

from __future__ import annotations

import pytest

from broker.core.outcome import Fault
from tests.simulation.parity.failures import FIRST_BYTE_S, Failures, drawn
from tests.simulation.parity.live import live_broker, providers
from tests.simulation.parity.stub import Ended, Stub, same

SEED = 11

STORIES: dict[str, Failures] = {
    "the first that answers ends the call": Failures(
        False, 1, (("fails",), ("overloaded",), ("answers",))
    ),
    "a refusal of the request is final": Failures(False, 1, (("fails",), ("refuses",), ())),
    "a size that is refused is final": Failures(False, 1, (("refuses the size",), ())),
    "all fail, and the best that may have recovered is tried again": Failures(
        False, 1, (("locked out",), ("breaks off", "answers"), ("talks nonsense",))
    ),
    "all fail for good": Failures(
        False, 1, (("locked out",), ("forgot the model",), ("says nothing",))
    ),
    "a lone provider is tried again and again": Failures(
        False, 1, (("unavailable", "times out", "fails", "answers"),)
    ),
    "a lone provider says how long to wait": Failures(False, 1, (("asks to wait", "answers"),)),
    "one that is not there is left": Failures(False, 4, (("is not there",) * 20, ("fails",), ())),
    "one that stalls is left": Failures(False, 1, (("stalls",), ("answers",))),
    "one that keeps failing is ejected": Failures(False, 6, (("fails",) * 3, ())),
    "a lone provider is tried though it is ejected": Failures(False, 2, (("fails",) * 6,)),
    "a stream fails over before its first content": Failures(
        True, 1, (("breaks off",), ("streams nothing",), ("answers",))
    ),
    "a stream does not fail over after it": Failures(
        True, 2, (("breaks off late", "fails late"), ())
    ),
    "a stream that is refused is final": Failures(True, 1, (("refuses",), ())),
}
DRAWN = {
    f"drawn {'streams' if streams else 'calls'} {seed}": drawn(
        seed, streams=streams, endpoints=3, calls=8
    )
    for seed in (1, 2)
    for streams in (False, True)
}


async def both(
    failures: Failures, urls: tuple[str, str], gap_s: float, deadline_s: float = 30.0
) -> tuple[list[Ended], list[Ended]]:
    """Return what the live broker did, and what the simulator did."""
    async with (
        providers(failures) as servers,
        live_broker(*urls, servers, SEED, gap_s) as broker,
    ):
        live = await broker.run(failures, deadline_s)
        stub = Stub(broker.runtime.market, failures, SEED, gap_s)
        simulated = stub.run(broker.wanted[0], failures.calls, deadline_s)
        assert [each.calls for each in servers] == _work(live, len(servers))
        return live, simulated


def _work(runs: list[Ended], servers: int) -> list[int]:
    attempts = [
        each.endpoint
        for run in runs
        for each in run.attempts
        if each.outcome != Fault.CONNECT_FAILED
    ]
    return [attempts.count(number) for number in range(servers)]


@pytest.mark.parametrize("name", [*STORIES, *DRAWN])
async def test_the_same_failures_make_the_same_attempts(
    name: str, database_url: str, valkey_url: str
) -> None:
    failures = (STORIES | DRAWN)[name]
    live, simulated = await both(failures, (database_url, valkey_url), gap_s=0.1)
    assert same(live, simulated), f"\nlive      {live}\nsimulated {simulated}"


async def test_an_ejection_that_is_over_ends_in_both(database_url: str, valkey_url: str) -> None:
    failures = Failures(False, 6, (("fails",) * 3, ()))
    live, simulated = await both(failures, (database_url, valkey_url), gap_s=0.4)
    assert same(live, simulated), f"\nlive      {live}\nsimulated {simulated}"
    firsts = [each.attempts[0].endpoint for each in live]
    assert firsts == [0, 0, 0, 1, 1, 0]


async def test_a_deadline_that_passes_ends_the_call_in_both(
    database_url: str, valkey_url: str
) -> None:
    failures = Failures(False, 1, (("fails",), ("stalls past the deadline",), ()))
    live, simulated = await both(
        failures, (database_url, valkey_url), gap_s=0.0, deadline_s=FIRST_BYTE_S / 2
    )
    assert same(live, simulated), f"\nlive      {live}\nsimulated {simulated}"
    assert live[0].end == "deadline"


async def test_the_scripts_tell_calls_apart(database_url: str, valkey_url: str) -> None:
    """A comparison that everything passes would prove nothing."""
    failures = STORIES["the first that answers ends the call"]
    live, simulated = await both(failures, (database_url, valkey_url), gap_s=0.0)
    assert [(each.endpoint, each.outcome) for each in live[0].attempts] == [
        (0, "server_error"),
        (1, "overloaded"),
        (2, "delivered"),
    ]
    other = STORIES["all fail for good"]
    elsewhere, _ = await both(other, (database_url, valkey_url), gap_s=0.0)
    assert same(live, simulated)
    assert not same(live, elsewhere)
