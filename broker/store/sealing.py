"""Secrets that must be used again, sealed with AES-256-GCM to the row that they stand in.

    sealed = form (1 byte) | key id (4 bytes) | nonce (12 bytes) | ciphertext and tag

The key id tells which of the current and former keys opens it, so a key is rotated by naming the
old one as former until all rows have been sealed anew.
"""

from __future__ import annotations

import hashlib
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from broker.errors import BrokerError

_FORM = b"\x01"
_KEY_ID_BYTES = 4
_NONCE_BYTES = 12
_HEAD_BYTES = len(_FORM) + _KEY_ID_BYTES + _NONCE_BYTES


class SecretUnreadable(BrokerError):
    """A sealed secret cannot be opened: an unknown key, or it was altered or moved."""

    code = "secret_unreadable"


class SecretKeyUnknown(SecretUnreadable):
    """A sealed secret cannot be opened: this process was not told its key."""


class Sealer:
    """Seals with the current key, opens with it and all former ones."""

    def __init__(self, secret_key: str, secret_keys_old: tuple[str, ...] = ()) -> None:
        """Take keys as 64 hexadecimal digits each, the current one first."""
        self._current = _key_id(secret_key)
        self._ciphers = {
            _key_id(key): AESGCM(bytes.fromhex(key)) for key in (*secret_keys_old, secret_key)
        }
        self.told: set[str] = set()
        """What the log has heard of that could not be opened; it hears of each once."""

    def seal(self, secret: bytes, bound_to: str) -> bytes:
        """Encrypt so that only the same `bound_to` (column and row id) opens it."""
        nonce = os.urandom(_NONCE_BYTES)
        cipher = self._ciphers[self._current]
        return _FORM + self._current + nonce + cipher.encrypt(nonce, secret, bound_to.encode())

    def open(self, sealed: bytes, bound_to: str) -> bytes:
        """Decrypt. Raises SecretUnreadable, which says why but nothing of the secret."""
        if len(sealed) < _HEAD_BYTES or sealed[:1] != _FORM:
            raise SecretUnreadable(f"The secret of {bound_to} is not in a form known here.")
        key_id = sealed[1 : 1 + _KEY_ID_BYTES]
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            raise SecretKeyUnknown(
                f"The secret of {bound_to} was sealed with key {key_id.hex()}, which is not among "
                "BROKER_SECRET_KEY and BROKER_SECRET_KEYS_OLD."
            )
        try:
            nonce = sealed[1 + _KEY_ID_BYTES : _HEAD_BYTES]
            return cipher.decrypt(nonce, sealed[_HEAD_BYTES:], bound_to.encode())
        except InvalidTag:
            raise SecretUnreadable(
                f"The secret of {bound_to} was altered, or belongs to another row."
            ) from None


def _key_id(key: str) -> bytes:
    return hashlib.sha256(b"model-broker key id" + bytes.fromhex(key)).digest()[:_KEY_ID_BYTES]
