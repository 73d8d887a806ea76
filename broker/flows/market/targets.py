"""Remembers how each endpoint is addressed: origin and request head, all but what a call adds."""

from __future__ import annotations

from typing import Final

import msgspec

from broker.core.catalog import Deployment, Endpoint
from broker.core.health.recent import Recent
from broker.upstream.client import Origin, head_prefix

Headers = tuple[tuple[bytes, bytes], ...]


class Target(msgspec.Struct, frozen=True, gc=False):
    """Where a request goes, and its head up to what changes by the call."""

    origin: Origin
    prefix: bytes
    deployment: Deployment
    headers: Headers
    """As they were asked for, without the deployment's credential."""


KEPT_MAX: Final = 2_048
"""Of 450 bytes each. To make one takes 10 us, a fraction of what it takes to connect, which whoever
is called seldom needs too."""
_JSON: Final = ((b"content-type", b"application/json"), (b"accept-encoding", b"identity"))


class Targets:
    """Targets by endpoint number and path, made on first use, anew when a deployment changes, and
    forgotten where nobody calls, or all of them where there are KEPT_MAX."""

    def __init__(self) -> None:
        self._known = Recent[tuple[int, bytes], Target]()

    def of(self, endpoint: Endpoint, path: bytes, headers: Headers = _JSON) -> Target:
        """Return the target of POST requests to `path` at an endpoint, of JSON if not told else.

        Raises RequestMalformed when a header or the path cannot be sent.
        """
        key = (endpoint.number, path)
        deployment = endpoint.deployment
        try:
            known = self._known[key]
        except KeyError:
            known = None
        if known is None or known.deployment is not deployment or known.headers != headers:
            if self._known.count() >= KEPT_MAX:
                self._known.forget()
            known = self._known[key] = make_target(deployment, b"POST", path, headers)
        return known

    def turn(self, now_s: float) -> None:
        """Be told, once a tick, that time passes."""
        self._known.turn(now_s)


def make_target(deployment: Deployment, method: bytes, path: bytes, headers: Headers) -> Target:
    """Build a target. Raises RequestMalformed when a header or the path cannot be sent."""
    origin, prefix = Origin.parse(deployment.url)
    sent = headers
    if deployment.credential is not None:
        bearer = b"Bearer " + deployment.credential.encode()
        sent = (*headers, (b"authorization", bearer))
    head = head_prefix(method, prefix.encode() + path, origin.authority, sent)
    return Target(origin, head, deployment, headers)
