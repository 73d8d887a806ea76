"""What a server can do at most, as a fluid: seconds of it that a call takes when it is full.

    work of a call = tokens out * step / batch + tokens in * prefill,   step at the largest batch

A fuller batch makes every step longer and each token cheaper, so a server is most productive when
it is full; that is what these figures stand for, and no policy can get more out of it.
"""

from __future__ import annotations

import numpy as np

from pricing.book import FloatArray
from simulations.supply import (
    BatchingServer,
    ClassifierServer,
    EndpointSpec,
    QueueingServer,
    Server,
    SharingServer,
)


def work_s(
    server: Server, tokens_in: FloatArray, tokens_out: FloatArray, together_max: float
) -> FloatArray:
    """Seconds of a whole full server that calls of these lengths take, no more than
    `together_max` of them at once."""
    together = float(np.clip(together_max, 1.0, getattr(server, "batch_max", together_max)))
    match server:
        case SharingServer():
            step_s = server.c0_s + server.c1_s * together
            return tokens_out * (step_s / together) + tokens_in * server.prefill_s
        case BatchingServer():
            kept = float(np.mean(tokens_in + tokens_out / 2.0))
            together = max(min(together, server.kv_tokens_max / kept), 1.0)
            step_s = server.c0_s + together * (server.c1_s + server.c2_s * kept)
            return tokens_out * (step_s / together) + tokens_in * server.c3_s
        case QueueingServer():
            return np.full(tokens_out.shape, server.mean_service_s / server.servers)
        case ClassifierServer():
            run_s = server.c0_s + server.c1_s * together
            return np.full(tokens_out.shape, run_s / together / server.instances)


def alone_s(server: Server, tokens_in: FloatArray, tokens_out: FloatArray) -> FloatArray:
    """Seconds until the end of the answer where a call has the server for itself."""
    match server:
        case SharingServer():
            return tokens_in * server.prefill_s + tokens_out * (server.c0_s + server.c1_s)
        case BatchingServer():
            step_s = server.c0_s + server.c1_s
            return tokens_in * server.c3_s + tokens_out * step_s
        case QueueingServer():
            return np.full(tokens_out.shape, server.mean_service_s)
        case ClassifierServer():
            return np.full(tokens_out.shape, server.c0_s + server.c1_s)


def breaks_s(endpoint: EndpointSpec) -> list[float]:
    """The moments at which what it can do changes."""
    spans = [(endpoint.enters_s, endpoint.exits_s)]
    spans += [(each.from_s, each.to_s) for each in endpoint.outages]
    spans += [(each.from_s, each.to_s) for each in endpoint.brownouts]
    return [moment for span in spans for moment in span]


def share_there(endpoint: EndpointSpec, at_s: float) -> float:
    """The share of its full speed that it has at a moment; 0 while it is away or fails."""
    if not endpoint.enters_s <= at_s < endpoint.exits_s:
        return 0.0
    if any(each.from_s <= at_s < each.to_s for each in endpoint.outages):
        return 0.0
    share = 1.0
    for each in endpoint.brownouts:
        if each.from_s <= at_s < each.to_s:
            share /= each.slowdown
    return share
