"""Which path a client means whose base URL is not quite ours, and what it is told of another.

What LiteLLM's clients are used to is served: paths without `/v1`, and slashes too many.
"""

from __future__ import annotations

import re
from typing import Final

_LACKING: Final = re.compile(r"/(?:chat/completions|completions|embeddings|models(?:/.*)?)")
"""Paths that are served once `/v1` stands before them."""
_DOORS: Final = re.compile(r"/v[12](?:/.*)?")
_OPENAI_S: Final = re.compile(
    r"(?!/api/(?!v1/)).*/(?P<end>chat/completions|completions|embeddings|v1/models|responses)"
)
"""How the paths of OpenAI's clients end, wherever their base URL leads; /api/v1 is OpenRouter's."""
_BASE: Final = " The base URL of a client is the broker's address and /v1, no more."


def meant(path: str) -> str:
    """Return a path without slashes too many, and with the `/v1` that it lacks; or as it is."""
    plain = "/" + "/".join(filter(None, path.split("/")))
    return f"/v1{plain}" if _LACKING.fullmatch(plain) else plain


def is_of_clients(path: str) -> bool:
    """Return whether a client of a model asks for what is `meant`, so that it must be told in its
    own shape where there is nothing."""
    return _DOORS.fullmatch(path) is not None or _OPENAI_S.fullmatch(path) is not None


def hint(path: str) -> str:
    """Return what the client of a path that is not served may be set to, or nothing."""
    if path == "/v1":
        return _BASE
    found = _OPENAI_S.fullmatch(path)
    if found is None:
        return ""
    return " Set the client to chat completions." if found["end"] == "responses" else _BASE
