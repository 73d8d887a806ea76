"""Finds the images among the messages of a chat: they make tokens by their pixels, not their bytes.

Models make some hundred to some thousand tokens of one: LLaVA 1.5 576, Gemma 3 256, LLaVA-NeXT up
to 2,880, Pixtral up to 4,096, and Qwen2.5-VL 16,384 of the largest that its processor takes.
"""

from __future__ import annotations

import re
from typing import Final

IMAGE_TOKENS_EXPECTED: Final = 1_024
IMAGE_TOKENS_MOST: Final = 16_384
IMAGES_MAX: Final = 256
"""More are taken for text, so that looking for them takes no time to speak of."""
_LOOKS_MAX: Final = 2 * IMAGES_MAX
"""Its word stands twice with an image, as the type of the part and as the name of the member."""

IMAGE: Final = b'"image_url"'
"""What a body with an image holds. Within a text its quotes would be escaped."""
_MEMBER: Final = re.compile(
    rb"""
    "image_url" \s{0,64} : \s{0,64}
    (?: \{ \s{0,64} (?: "detail" \s{0,64} : \s{0,64} "[a-z]{0,8}" \s{0,64} , \s{0,64} )?
        "url" \s{0,64} : \s{0,64} )?
    " (data:image)?
    """,
    re.VERBOSE,
)


def images_in(messages: bytes) -> tuple[int, int]:
    """Return how many images there are, and the bytes of those that stand there themselves."""
    images = inline_bytes = at = 0
    for _ in range(_LOOKS_MAX):
        at = messages.find(IMAGE, at)
        if at < 0:
            break
        found = _MEMBER.match(messages, at)
        at += len(IMAGE)
        if found is not None:
            images, at = images + 1, found.end()
            if found[1] is not None:
                end = messages.index(b'"', at)  # a pattern takes ten times as long
                inline_bytes, at = inline_bytes + end - at, end
    return images, inline_bytes
