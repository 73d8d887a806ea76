"""How long a caller may take, and how much of what it sends is kept."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """Seconds and bytes for each connection, but for what is said of all."""

    head_bytes_max: int = 64 * 2**10
    head_s: float = 20.0
    """The head of a request has so long to come, from its first byte or the connection's begin."""
    body_bytes_max: int = 16 * 2**20
    body_s: float = 120.0
    stalled_s: float = 5.0
    stalled_bytes: int = 2_500
    """Who sends fewer bytes of a body in `stalled_s` is let go first where there is no room. Apache
    asks for as many (mod_reqtimeout, MinRate=500), but always and of everybody."""
    bodies_bytes_max: int = 2**30
    """Of all bodies together: of large ones until they are answered, of others until they have come
    whole."""
    ahead_max: int = 256
    """So many requests may be sent ahead of the one that is served."""
    discarded_bytes_max: int = 16 * 2**20
    """Of a body that nobody wants any more, so much is read, so that the answer arrives."""
    connections_max: int = 2**31
    """Of all callers; who asks nothing is let go for who comes."""
    keep_alive_s: float = 75.0
    """A connection on which nothing is asked is kept for so long."""
