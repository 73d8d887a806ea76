"""Endpoints on one server are one server: to who draws by free capacity, and to who fails over.

A provider may list a thousand endpoints on a server. Were each counted with all of its capacity,
nearly every call would go there; and a plan of nobody but them has nobody to ask where it is down.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np

from broker.core.columns import Bools, Floats, Numbers

ON_ONE_SERVER: Final = 2
"""So many of a plan may be on one server, while others are left: the second for where what failed
is one model of several."""


def servers_of(deployments: Numbers) -> Numbers | None:
    """Return the server of each as a small number; None, as mostly, where each has its own."""
    known, servers = np.unique(deployments, return_inverse=True)
    return servers if known.size < deployments.size else None


def parted(free: Floats, servers: Numbers) -> Floats:
    """Return free capacity, that of each server parted among its endpoints."""
    return np.asarray(free / np.bincount(servers)[servers])


def parted_among_few(free: Sequence[float], servers: Sequence[int]) -> list[float]:
    """The same in plain numbers."""
    counts = Counter(servers)
    return [each / counts[server] for each, server in zip(free, servers, strict=True)]


def plan_length(servers: Numbers, most: int) -> int:
    """Return how long a plan of these can be, as far as `most`, with no server in it too often."""
    return min(int(np.minimum(np.bincount(servers), ON_ONE_SERVER).sum()), most)


def spread(ranked: Iterable[int], servers: Sequence[int], most: int) -> list[int]:
    """Return the first places to be tried, `most` at most; `servers` are by place."""
    chosen: list[int] = []
    later: list[int] = []
    counts = Counter[int]()
    for place in ranked:
        if len(chosen) == most:
            break
        counts[servers[place]] += 1
        (chosen if counts[servers[place]] <= ON_ONE_SERVER else later).append(place)
    return (chosen + later)[:most]


def taken(chosen: Sequence[int], servers: Numbers) -> Bools:
    """Say who is on a server of which enough have been chosen."""
    counts = Counter(servers[place].item() for place in chosen)
    full = [server for server, count in counts.items() if count >= ON_ONE_SERVER]
    among = np.zeros(servers.size, dtype=np.bool_)
    for server in full:
        among |= servers == server
    return among
