"""Remembers how each endpoint is addressed: origin and request head, all but what a call adds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from broker.core.catalog import Deployment, Endpoint
from broker.upstream.client import Origin, head_prefix

Headers = tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, slots=True)
class Target:
    """Where a request goes, and its head up to what changes by the call."""

    origin: Origin
    prefix: bytes


_JSON: Final = ((b"content-type", b"application/json"), (b"accept-encoding", b"identity"))


class Targets:
    """Targets by endpoint number and path, made on first use, anew when a deployment changes."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, bytes], tuple[Deployment, Headers, Target]] = {}

    def of(self, endpoint: Endpoint, path: bytes, headers: Headers = _JSON) -> Target:
        """Return the target of POST requests to `path` at an endpoint, of JSON if not told else.

        Raises RequestMalformed when a header or the path cannot be sent.
        """
        key = (endpoint.number, path)
        known = self._known.get(key)
        if known is not None and known[0] is endpoint.deployment and known[1] == headers:
            return known[2]
        target = make_target(endpoint.deployment, b"POST", path, headers)
        self._known[key] = (endpoint.deployment, headers, target)
        return target


def make_target(deployment: Deployment, method: bytes, path: bytes, headers: Headers) -> Target:
    """Build a target. Raises RequestMalformed when a header or the path cannot be sent."""
    origin, prefix = Origin.parse(deployment.url)
    if deployment.credential is not None:
        bearer = b"Bearer " + deployment.credential.encode()
        headers = (*headers, (b"authorization", bearer))
    head = head_prefix(method, prefix.encode() + path, origin.authority, headers)
    return Target(origin, head)
