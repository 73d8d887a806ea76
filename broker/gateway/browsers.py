"""What browsers ask before they let a page call, and what they are told (CORS).

Pages of any origin may call, as with OpenAI, OpenRouter and LiteLLM: a call needs a key, which a
page has to be given, and no cookie counts here, so nobody's rights come with their browser.
"""

from __future__ import annotations

from typing import Final

from broker.server.request import Request

ANY_ORIGIN: Final = b"access-control-allow-origin: *\r\naccess-control-expose-headers: *\r\n"
"""Header lines of every answer to a page: it may read all of it."""
_MAY_ASK: Final = (
    b"access-control-allow-methods: GET, POST\r\n"
    b"access-control-allow-headers: authorization, *\r\n"  # the star leaves out that one
    b"access-control-max-age: 7200\r\n"
)


def is_preflight(request: Request) -> bool:
    """Return whether a browser asks by itself what a page may; it sends no key with that."""
    return request.method == "OPTIONS" and b"access-control-request-method" in request.fields


async def allow(request: Request) -> None:
    """Answer that a page may call, whatever it is that it calls."""
    request.answer(200, _MAY_ASK, b"")
