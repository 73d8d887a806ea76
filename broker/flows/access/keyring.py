"""Knows every key that opens something, so that the data plane asks no database who is calling."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Callable, Mapping
from datetime import datetime

from broker.core.call import Payer
from broker.core.key_terms import Scope
from broker.errors import CallerUnknown, NotAllowed, ScopeMissing, TooManyCalls, Unavailable
from broker.flows.access.authenticate import KEY_DEAD, KEY_MISSING, NO_KEY
from broker.store.access.key_text import parse
from broker.store.access.keys import StoredKey

HEADERS_KEPT_MAX = 10_000
"""So many `Authorization` headers are remembered with their keys, until the keys are swapped."""
_HEADER_BYTES_MAX = 256
"""A longer header, which no honest client sends, is not remembered."""
LEARNS_WITHIN_S = 1.0
_LOOK_S = 0.005


class Keyring:
    """All keys by id, and how many calls each has under way. Keys are swapped whole."""

    def __init__(self) -> None:
        self._keys: Mapping[str, StoredKey] | None = None
        """None until they have been read once: no key can be called wrong before."""
        self._under_way: dict[str, int] = {}
        self._elsewhere: Mapping[str, int] = {}
        """Calls under way in the other processes, of the keys that may have only so many."""
        self._opened: dict[bytes, tuple[StoredKey, datetime | None]] = {}
        """By the whole header: the key, and until when that secret opens it."""

    def swap(self, keys: Mapping[str, StoredKey]) -> None:
        """Take the newest keys; calls under way stay counted."""
        self._keys = keys
        self._opened.clear()

    def find(self, authorization: bytes | None, now: datetime) -> StoredKey:
        """Return the key of an `Authorization` header, one that opens the data plane.

        Raises CallerUnknown, ScopeMissing, Unavailable.
        """
        opened = self._opened.get(authorization or b"")
        if opened is not None and (opened[1] is None or now < opened[1]):
            return opened[0]
        key, secret = self._prove(authorization, now)
        if Scope.CALLS not in key.terms.scopes:
            raise ScopeMissing(Scope.CALLS)
        if authorization is not None and len(authorization) <= _HEADER_BYTES_MAX:
            if len(self._opened) >= HEADERS_KEPT_MAX:
                self._opened.clear()
            self._opened[authorization] = key, key.lapses_at(secret)
        return key

    def _prove(self, authorization: bytes | None, now: datetime) -> tuple[StoredKey, str]:
        """Return a header's key and the secret that opens it."""
        if self._keys is None:
            raise Unavailable("The broker has not read its keys yet.", retry_after_s=1.0)
        if not authorization:
            raise CallerUnknown(KEY_MISSING)
        parts = parse(_token(authorization))
        if parts is None:
            raise CallerUnknown(NO_KEY)
        key = self._keys.get(parts[0])
        if key is None or not key.opens(parts[1], now):
            raise CallerUnknown(KEY_DEAD)
        return key, parts[1]

    async def learn(self, text: str, clock: Callable[[], datetime]) -> None:
        """Return as soon as a key that was made just now opens calls here, or after a while."""
        key_id, secret = parse(text) or ("", "")
        for _ in range(int(LEARNS_WITHIN_S / _LOOK_S)):
            if self._keys is None:
                return
            key = self._keys.get(key_id)
            if key is not None and key.opens(secret, clock()):
                return
            await asyncio.sleep(_LOOK_S)

    def payer(self, key: StoredKey) -> Payer:
        """Return whose money a key spends. Raises NotAllowed: only consumers' keys buy."""
        if key.funds is None:
            raise NotAllowed(
                f"This is a key of a {key.role.value}; calls are made with a consumer's key."
            )
        terms = key.terms
        told = (terms.rates, terms.allowance, terms.explore)
        return Payer(key.account_id, key.id, key.funds, *told)

    def enter(self, key: StoredKey) -> None:
        """Count a call in. Raises TooManyCalls when the key has its most under way, CallerUnknown
        when it was revoked while the request was still coming."""
        if self._keys is None or key.id not in self._keys:  # as in `require`: each call comes here
            raise CallerUnknown(KEY_DEAD)
        under_way = self._under_way.get(key.id, 0)
        most = key.terms.calls_max
        if most is not None and under_way + self._elsewhere.get(key.id, 0) >= most:
            raise TooManyCalls(
                f"This key may have {most} calls under way at once.",
                code="key_concurrency",
                retry_after_s=1.0,
            )
        self._under_way[key.id] = under_way + 1

    def require(self, key: StoredKey) -> None:
        """Raise CallerUnknown when the key has been revoked."""
        if self._keys is None or key.id not in self._keys:
            raise CallerUnknown(KEY_DEAD)

    def counted(self) -> dict[str, int]:
        """Return the calls under way here of the keys that may have only so many."""
        keys = self._keys or {}
        return {
            id_: count
            for id_, count in self._under_way.items()
            if (key := keys.get(id_)) is not None and key.terms.calls_max is not None
        }

    def take_others(self, under_way: Mapping[str, int]) -> None:
        """Be told, again and again, how many calls such keys have in the other processes."""
        self._elsewhere = under_way

    def leave(self, key: StoredKey) -> None:
        """Count a call out."""
        under_way = self._under_way[key.id] - 1
        if under_way:
            self._under_way[key.id] = under_way
        else:
            del self._under_way[key.id]


class Seat:
    """The place of one call among those that its key may have under way, taken when it is needed.

    Whoever waits for another call's answer, or gets one that was kept, needs none.
    """

    def __init__(self, keyring: Keyring, key: StoredKey) -> None:
        self.key = key
        self._keyring = keyring
        self._taken = False

    def take(self) -> None:
        """Take the place. Raises as `Keyring.enter` does."""
        self._keyring.enter(self.key)
        self._taken = True

    def leave(self) -> None:
        """Give it back, if it was taken."""
        if self._taken:
            self._taken = False
            self._keyring.leave(self.key)

    def prove(self) -> None:
        """Raise CallerUnknown when the key has been revoked."""
        self._keyring.require(self.key)


def _token(authorization: bytes) -> str:
    """Return the key in a Bearer header, or the password of a Basic one (as tritonclient sends)."""
    scheme, _, rest = authorization.decode("latin-1").partition(" ")
    if scheme.lower() == "bearer":
        return rest.strip()
    if scheme.lower() == "basic":
        try:
            decoded = base64.b64decode(rest.strip(), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            return ""
        return decoded.partition(":")[2]
    return ""
