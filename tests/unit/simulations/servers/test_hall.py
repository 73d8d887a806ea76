"""Many servers from slice to slice are the servers that go from event to event."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass

import numpy as np
import pytest

from simulations.servers.hall import Came, Hall
from simulations.servers.job import Job
from simulations.servers.sharing import Sharer
from simulations.supply import SharingServer

HORIZON_S = 60.0


@dataclass
class Load:
    """Calls for three unlike servers."""

    specs: list[SharingServer]
    server: np.ndarray
    at_s: np.ndarray
    tokens_in: np.ndarray
    tokens_out: np.ndarray
    deadline_s: np.ndarray


def load(rate_per_s: float, places: int, patience_s: float, seed: int = 1) -> Load:
    rng = np.random.default_rng(seed)
    size = rng.poisson(3 * rate_per_s * HORIZON_S)
    at_s = np.sort(rng.random(size) * HORIZON_S)
    return Load(
        [SharingServer(0.012, 3e-4 * (1 + each), 8e-5, places) for each in range(3)],
        rng.integers(0, 3, size),
        at_s,
        rng.integers(50, 600, size),
        rng.integers(20, 200, size),
        at_s + patience_s,
    )


def one_by_one(of: Load) -> tuple[np.ndarray, np.ndarray]:
    """(first, end) of each call; NaN where it is cut or still there."""
    servers = [Sharer(each) for each in of.specs]
    jobs = [Job(None, int(x), int(y)) for x, y in zip(of.tokens_in, of.tokens_out, strict=True)]
    due: list[tuple[float, int]] = []
    moments = [*zip(of.at_s.tolist(), range(len(jobs)), strict=True), (HORIZON_S, -1)]
    for at_s, place in moments:
        while due and due[0][0] <= at_s:
            late_s, late = heapq.heappop(due)
            servers[of.server[late]].cancel(jobs[late], late_s)
        if place >= 0:
            servers[of.server[place]].submit(jobs[place], at_s)
            heapq.heappush(due, (float(of.deadline_s[place]), place))
    for each in servers:
        each.ended(HORIZON_S)
    ends_s = np.array([each.end_s for each in jobs])
    return np.where(np.isnan(ends_s), math.nan, [each.first_s for each in jobs]), ends_s


def sliced(of: Load, slice_s: float) -> tuple[np.ndarray, np.ndarray]:
    """The same by slices."""
    hall, now_s, begun = Hall(of.specs), 0.0, 0
    first_s, ends_s = np.full((2, of.at_s.size), math.nan)
    while now_s < HORIZON_S:
        now_s = min(now_s + slice_s, HORIZON_S)
        end = int(np.searchsorted(of.at_s, now_s))
        part = np.arange(begun, end)
        columns = (of.at_s, of.tokens_in, of.tokens_out, of.deadline_s)
        came = Came(part, of.server[part], *(each[part] for each in columns))
        gone = hall.advance(now_s, came)
        assert (np.diff(gone.at_s) >= 0.0).all()
        whole = gone.left == 0.0
        first_s[gone.slot[whole]], ends_s[gone.slot[whole]] = gone.first_s[whole], gone.at_s[whole]
        begun = end
    return first_s, ends_s


@pytest.mark.parametrize(
    ("rate_per_s", "places", "patience_s"),
    [(5.0, 64, math.inf), (20.0, 64, math.inf), (12.0, 8, math.inf), (8.0, 64, 4.0)],
    ids=["room for all", "full", "a long line", "deadlines"],
)
@pytest.mark.parametrize("slice_s", [0.05, 0.2])
def test_calls_end_when_they_do_from_event_to_event(
    rate_per_s: float, places: int, patience_s: float, slice_s: float
) -> None:
    of = load(rate_per_s, places, patience_s)
    first_s, ends_s = sliced(of, slice_s)
    exact_first_s, exact_ends_s = one_by_one(of)
    assert np.isfinite(ends_s).sum() == pytest.approx(np.isfinite(exact_ends_s).sum(), rel=0.02)
    both = np.isfinite(ends_s) & np.isfinite(exact_ends_s)
    took_s, exact_s = (ends_s - of.at_s)[both], (exact_ends_s - of.at_s)[both]
    assert took_s.mean() == pytest.approx(exact_s.mean(), rel=0.01)
    assert np.quantile(np.abs(took_s / exact_s - 1.0), 0.95) < 0.08
    waited_s, exact_s = (first_s - of.at_s)[both], (exact_first_s - of.at_s)[both]
    assert waited_s.mean() == pytest.approx(exact_s.mean(), rel=0.02)


def test_who_is_to_leave_soon_is_foreseen_by_time() -> None:
    hall = Hall([SharingServer(0.01, 0.0, 0.0, 8)])
    both, none = np.arange(2), np.zeros(2, dtype=np.int64)
    hall.advance(0.1, Came(both, none, np.zeros(2), none, np.array([40, 20]), np.full(2, 9.0)))
    server, leaves_s = hall.foreseen(0.3)
    assert server.tolist() == [0]
    assert leaves_s.tolist() == pytest.approx([0.2])
    assert hall.foreseen(1.0)[1].tolist() == pytest.approx([0.2, 0.4])


def test_a_slow_server_takes_so_many_times_as_long() -> None:
    hall = Hall([SharingServer(0.01, 0.0, 0.0, 8)])
    one = np.zeros(1, dtype=np.int64)
    hall.slow(0, 3.0)
    gone = [
        hall.advance(0.1 * step, Came(one, one, np.zeros(1), one, one + 20, np.full(1, np.inf)))
        if step == 1
        else hall.advance(0.1 * step, Came.none())
        for step in range(1, 8)
    ]
    assert [each.slot.size for each in gone] == [0, 0, 0, 0, 0, 1, 0]
    assert gone[5].at_s.tolist() == pytest.approx([0.6])
