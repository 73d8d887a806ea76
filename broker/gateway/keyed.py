"""Reads what makes a call one that may be sent again: its `Idempotency-Key` and its meaning."""

from __future__ import annotations

import hashlib

from broker.errors import RequestMalformed
from broker.flows.access.keyring import Seat
from broker.flows.calls.turn import Keyed
from broker.gateway.wishes import Wishes
from broker.server.request import Request
from broker.store.access.keys import StoredKey

KEY_CHARACTERS_MAX = 255
_OURS = b"x-broker-"
_OF_WAITING = frozenset({b"x-broker-on-running", b"x-broker-deadline-s"})
_OF_THE_BODY = frozenset({b"content-encoding", b"inference-header-content-length"})


def read_keyed(named: bytes, request: Request, wishes: Wishes, key: StoredKey) -> Keyed:
    """Return how a call may be sent again, `named` being its key. Raises RequestMalformed.

    Two calls are the same one when their method, path and body are, and all headers that the broker
    or the body goes by; whether and how long to wait for the first is asked anew each time.
    """
    text = named.decode("latin-1").strip()
    if not 1 <= len(text) <= KEY_CHARACTERS_MAX or not text.isprintable():
        raise RequestMalformed(
            f"An Idempotency-Key has 1 to {KEY_CHARACTERS_MAX} printable characters."
        )
    allowed = wishes.data_policy != "no_retention"
    return Keyed(
        key=text,
        meaning_sha256=_meaning(request),
        on_running=wishes.on_running,
        keeps=allowed and key.content_kept != "none",
        seat=request.told if isinstance(request.told, Seat) else None,
    )


def _meaning(request: Request) -> bytes:
    lines = [
        b"%b: %b" % (name, value)
        for name, value in request.headers
        if name in _OF_THE_BODY or (name.startswith(_OURS) and name not in _OF_WAITING)
    ]
    first = b"%b %b" % (request.method.encode(), request.raw_path)
    told = hashlib.sha256(b"\n".join([first, *sorted(lines), b"", b""]))
    told.update(request.body)
    for piece in request.rest:
        told.update(piece)
    return told.digest()
