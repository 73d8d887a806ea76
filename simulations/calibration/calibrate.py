"""Fits the model of continuous batching to a real run: its four numbers, and its limits.

A span of a request is made of steps, and what the steps worked on is known from the model itself:

    first - arrival, last - first = c0 steps + c1 sequences + c2 kv_tokens + c3 prefill_tokens

summed over the steps in the span. So the run is simulated, the spans seen are regressed on the
simulated sums (non-negative least squares, reweighted to a sum of absolute relative errors), and
that is repeated with the numbers found, half of the way each time, for what is in the batch
together depends on them. The limits (KV cache, places, tokens of a step) are whole numbers that
no derivative knows: they are searched, the ones that bind first.

Only spans of requests in `known` are looked at. Of the others, arrivals and lengths are used: they
are the demand that is simulated.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from pricing.book import FloatArray
from simulations.calibration.observed import ObservationMalformed, Observed
from simulations.servers.batching import Batcher, Worked
from simulations.servers.job import Job
from simulations.supply import BatchingServer

REQUESTS_MIN = 20
E2E_MISSED_MAX, TTFT_MISSED_MAX = 0.05, 0.2
"""By how much a fit that can be relied on misses, in the median, what it had not seen."""
UNBOUND_BATCH = 4_096
STEP_TOKENS = (512, 1_024, 2_048, 4_096, 8_192, 16_384)
KV_SHARES = (
    *(0.5, 0.55, 0.6, 0.66, 0.72, 0.79, 0.86, 0.9, 0.94, 0.97),
    *(1.0, 1.04, 1.1, 1.25, 1.5),
)
"""Of the most tokens that seem to have been in the cache together. Who gave its place up for a
while seems to have been there, so it may have been less."""
TTFT_WEIGHT = 0.25
_FIT_ROUNDS = 7
_REWEIGHTED = 4
_DAMPING = 0.5
_UNBOUND_SHARE = 0.9
_OVERTIME = 1.5
"""A server that takes longer than this for what is known is not followed to its end."""
_KEPT = 3
"""Servers that are looked into further, of those tried: the best so far may lead nowhere."""
_RELATIVE_MIN = 0.01
"""Relative errors below this are all alike to the fit."""


@dataclass(frozen=True, slots=True)
class Errors:
    """Shares by which predictions miss, without sign."""

    e2e_median: float
    e2e_p90: float
    ttft_median: float
    ttft_p90: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """`server` is fitted to all requests; the errors are those of a fit to the first half alone,
    `from_half`: on the half it was fitted to, and on the other, which it had to predict."""

    server: BatchingServer
    from_half: BatchingServer
    fitted: Errors
    predicted: Errors
    requests: int
    skipped: int
    is_cache_bound: bool
    """False where the cache never was in the way, so what it holds is not known."""

    @property
    def doubt(self) -> str | None:
        """What to tell who would rely on the fit; None where it predicted well."""
        e2e, ttft = self.predicted.e2e_median, self.predicted.ttft_median
        if e2e <= E2E_MISSED_MAX and ttft <= TTFT_MISSED_MAX:
            return None
        return (
            f"Do not rely on this fit: what it had not seen it missed by {e2e:.1%} (end to end) "
            f"and {ttft:.1%} (first token) in the median, where {E2E_MISSED_MAX:.0%} and "
            f"{TTFT_MISSED_MAX:.0%} are the most. A longer run under the same kind of load, by a "
            "server that does nothing else, tells more."
        )


def calibrate(run: Observed) -> Calibration:
    """Fit a run, and prove the fit on its second half. Raises ObservationMalformed."""
    if run.size < REQUESTS_MIN:
        raise ObservationMalformed(f"A fit needs {REQUESTS_MIN} served requests, not {run.size}.")
    half = run.size // 2
    first, second = np.arange(half), np.arange(half, run.size)
    from_half = fit(run, first)
    server = fit(run, np.arange(run.size), from_half)
    return Calibration(
        server=server,
        from_half=from_half,
        fitted=errors(run, from_half, first),
        predicted=errors(run, from_half, second),
        requests=run.size,
        skipped=run.skipped,
        is_cache_bound=server.kv_tokens_max < _UNBOUND_SHARE * _unbound_kv(run),
    )


def predict(run: Observed, server: BatchingServer) -> tuple[FloatArray, FloatArray]:
    """(first, last): when each request's first and last token come, by the model."""
    return _played(run, Batcher(server), np.inf)


def errors(run: Observed, server: BatchingServer, places: np.ndarray) -> Errors:
    """By how much the model misses these requests."""
    first_s, last_s = predict(run, server)
    e2e = np.abs((last_s - run.arrival_s) / run.e2e_s - 1.0)[places]
    ttft = np.abs((first_s - run.arrival_s) / run.ttft_s - 1.0)[places]
    return Errors(
        float(np.median(e2e)),
        float(np.quantile(e2e, 0.9)),
        float(np.median(ttft)),
        float(np.quantile(ttft, 0.9)),
    )


def fit(run: Observed, known: np.ndarray, before: BatchingServer | None = None) -> BatchingServer:
    """The server that explains best when the tokens of the requests in `known` came; `before` is
    one that was found for some of them."""
    known_before = () if before is None else (before,)
    best = _best(run, known, (*known_before, *_by_limits(run, known)))
    for vary in (_around, _by_steps, _around):
        best = _best(run, known, (each for found in best for each in vary(run, found)))
    return best[0]


def _best(
    run: Observed, known: np.ndarray, tried: Iterable[BatchingServer]
) -> list[BatchingServer]:
    """Of several servers, each with its numbers fitted, the few that miss least, the best first.
    Of those that miss by the same one is kept: they differ in a limit that is in nobody's way."""
    found: dict[float, BatchingServer] = {}
    for each in tried:
        missed, server = _fitted(run, known, each)
        found.setdefault(missed, server)
    return [found[missed] for missed in sorted(found)[:_KEPT]]


def _by_limits(run: Observed, known: np.ndarray) -> Iterator[BatchingServer]:
    """Servers bound by the tokens of a step, by places, by the cache, or by none of these."""
    together, tokens = _together(run, known)
    free = replace(_guessed(run, known, together), kv_tokens_max=_unbound_kv(run))
    for each in STEP_TOKENS:
        yield replace(free, step_tokens_max=each)
    powers = {2**each for each in range(13)}
    for places in sorted({together} | {each for each in powers if together <= each < 8 * together}):
        yield replace(free, batch_max=places)
    for share in KV_SHARES:
        yield _with_cache(run, free, share * tokens)


def _around(run: Observed, server: BatchingServer) -> Iterator[BatchingServer]:
    """Caches a little smaller and larger."""
    yield server
    for share in (0.98, 0.99, 0.995, 1.005, 1.01, 1.02):
        yield _with_cache(run, server, share * server.kv_tokens_max)


def _with_cache(run: Observed, server: BatchingServer, tokens: float) -> BatchingServer:
    """The server with another cache, in which the largest request has room by itself."""
    single = int((run.tokens_in + run.tokens_out).max())
    return replace(server, kv_tokens_max=max(round(tokens), single))


def _by_steps(_: Observed, server: BatchingServer) -> Iterator[BatchingServer]:
    """Other limits of a step."""
    for ahead in (0, 1):
        for tokens in STEP_TOKENS:
            yield replace(server, step_tokens_max=tokens, steps_ahead=ahead)


def _unbound_kv(run: Observed) -> int:
    return int((run.tokens_in + run.tokens_out).sum()) + UNBOUND_BATCH


def _together(run: Observed, known: np.ndarray) -> tuple[int, int]:
    """The most requests, and the most tokens, that were in service together at a first token."""
    first_s, last_s = run.first_s[known], run.last_s[known]
    made = (first_s[:, np.newaxis] - first_s) / np.maximum(last_s - first_s, 1e-9)
    there = (made >= 0.0) & (made < 1.0)
    tokens = run.tokens_in[known] + np.clip(made, 0.0, 1.0) * run.tokens_out[known]
    return int(there.sum(axis=1).max()), int((tokens * there).sum(axis=1).max())


def _guessed(run: Observed, known: np.ndarray, together: int) -> BatchingServer:
    """Numbers to begin with: half of what a step takes longer in a crowd is for its sequences."""
    decoding_s = (run.last_s - run.first_s)[known]
    step_s = decoding_s / np.maximum(run.tokens_out[known] - 1, 1)
    step_s = step_s[step_s > 0.0] if (step_s > 0.0).any() else np.array([0.01])
    fixed_s = 0.7 * float(step_s.min())
    crowd_s = max(float(np.median(step_s)) - fixed_s, 1e-5) / together
    # Who waits in line says little of reading, but all prompts were read until the last was.
    reading_s = run.first_s[known].max() - run.arrival_s[known].min()
    read_s = float(
        min(
            np.quantile(run.ttft_s[known] / run.tokens_in[known], 0.2),
            reading_s / run.tokens_in[known].sum(),
        )
    )
    return BatchingServer(
        c0_s=fixed_s,
        c1_s=crowd_s / 2.0,
        c2_s=crowd_s / 2_000.0,
        c3_s=0.7 * read_s,
        batch_max=UNBOUND_BATCH,
        step_tokens_max=8_192,
        steps_ahead=1,
    )


def _fitted(
    run: Observed, known: np.ndarray, server: BatchingServer
) -> tuple[float, BatchingServer]:
    """(how much it misses, the server) at the best of several rounds."""
    best = (np.inf, server)
    until_s = _OVERTIME * float(run.last_s[known].max())
    for _ in range(_FIT_ROUNDS):
        batcher = Batcher(server)
        batcher.log = []
        first_s, last_s = _played(run, batcher, until_s)
        missed = _missed(run, known, first_s, last_s)
        if missed < best[0]:
            best = (missed, server)
        moments = (run.arrival_s[known], first_s[known], last_s[known])
        works = [_work_until(batcher.log, each) for each in moments]
        server = _refitted(run, known, server, np.diff(works, axis=0))
    return best


def _missed(run: Observed, known: np.ndarray, first_s: FloatArray, last_s: FloatArray) -> float:
    took_s = (last_s - run.arrival_s)[known]  # of who is not known, some may not have arrived yet
    waited_s = (first_s - run.arrival_s)[known]
    e2e = np.abs(np.log(took_s / run.e2e_s[known]))
    waited = np.maximum(waited_s, 1e-6) / np.maximum(run.ttft_s[known], 1e-6)
    return float(e2e.mean() + TTFT_WEIGHT * np.abs(np.log(waited)).mean())


def _refitted(
    run: Observed, known: np.ndarray, server: BatchingServer, work: FloatArray
) -> BatchingServer:
    """The server, half of the way to what explains the spans by `work` (span, request, number)."""
    from scipy.optimize import nnls  # takes longer to import than all the rest of a command

    spans_s = np.concatenate((run.ttft_s[known], (run.last_s - run.first_s)[known]))
    seen = spans_s > 0.0
    work, spans_s = np.concatenate(work)[seen], spans_s[seen]
    trust = np.repeat([TTFT_WEIGHT, 1.0], known.size)[seen] / spans_s
    scale = np.maximum(work.max(axis=0), 1.0)
    weight = trust
    for _ in range(_REWEIGHTED):
        found, _ = nnls(work / scale * weight[:, np.newaxis], spans_s * weight)
        missed = np.abs(work @ (found / scale) / spans_s - 1.0)
        weight = trust / np.sqrt(np.maximum(missed, _RELATIVE_MIN))
    old = np.array([server.c0_s, server.c1_s, server.c2_s, server.c3_s])
    c0, c1, c2, c3 = (old + _DAMPING * (found / scale - old)).tolist()
    return replace(server, c0_s=c0, c1_s=c1, c2_s=c2, c3_s=c3)


def _work_until(log: list[Worked], moments_s: FloatArray) -> FloatArray:
    """(moments, 4): steps, sequences, KV tokens and prompt tokens worked on until then."""
    told = np.array(log, dtype=np.float64)
    done = np.cumsum(told[:, 2:], axis=0)
    at_s = told[:, :2].ravel()  # begin and end of each row, between which it was worked evenly
    steps = np.repeat(np.concatenate((np.zeros((1, 4)), done)), 2, axis=0)[1:-1]
    return np.stack([np.interp(moments_s, at_s, column) for column in steps.T], axis=1)


def _played(run: Observed, batcher: Batcher, until_s: float) -> tuple[FloatArray, FloatArray]:
    """(first, last) of each request, `until_s` for what has not come by then."""
    jobs = [
        Job(None, tokens_in, tokens_out)
        for tokens_in, tokens_out in zip(
            run.tokens_in.tolist(), run.tokens_out.tolist(), strict=True
        )
    ]
    for job, arrival_s in zip(jobs, run.arrival_s.tolist(), strict=True):
        batcher.submit(job, arrival_s)
    batcher.advance(until_s)
    first_s = np.array([each.first_s for each in jobs])
    last_s = np.array([each.end_s for each in jobs])
    return np.nan_to_num(first_s, nan=until_s), np.nan_to_num(last_s, nan=until_s)
