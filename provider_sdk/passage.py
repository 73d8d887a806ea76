"""Which requests may pass the front, and which of their headers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import unquote

METHODS = ("GET", "HEAD", "POST")
_MODEL = r"/v2/models/[^/]+(?:/versions/[^/]+)?"
_ALLOWED = re.compile(
    r"/v1/.+|/health|/v2/?|/v2/health/(?:live|ready)"
    rf"|{_MODEL}(?:/(?:ready|infer|config|stats|generate|generate_stream))?"
)
# vLLM loads adapters from any path or hub under /v1 where it is allowed to
_FORBIDDEN = re.compile(r"/v1/(?:load|unload)_lora_adapter.*")
_HOP_BY_HOP = {
    *(b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization"),
    *(b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"expect"),
}

RawHeaders = Iterable[tuple[bytes, bytes]]


def may_pass(method: str, path: str) -> bool:
    """Whether a request is forwarded; `path` is as it came, without prefix and query.

    A path that some server may read as another one (dot segments, doubled or escaped separators
    outside a model's name) never passes.
    """
    plain = unquote(path)
    segments = plain.replace("\\", "/").split("/")
    if method not in METHODS or "." in segments or ".." in segments or "\0" in plain:
        return False
    if "//" in plain or _FORBIDDEN.match(plain):
        return False
    return _ALLOWED.fullmatch(path) is not None


def without_prefix(path: str, prefix: str) -> str:
    """The path below `prefix`; itself where the prefix has already been taken off."""
    if prefix and path.startswith(prefix + "/"):
        return path[len(prefix) :]
    return path


def end_to_end(headers: RawHeaders) -> list[tuple[bytes, bytes]]:
    """The headers that are not about one connection only."""
    listed = list(headers)
    named = {
        token.strip().lower()
        for name, value in listed
        if name == b"connection"
        for token in value.split(b",")
    }
    drop = _HOP_BY_HOP | (named - {b"content-length", b"content-type", b"host", b"authorization"})
    return [(name, value) for name, value in listed if name not in drop]
