"""Reads the texts of a stream's events together, where the events differ in nothing but their text.

Servers repeat a chunk's id, model and the rest in every event. What stands before and after the
text of one event is remembered; what is between, in the events that follow, is read as one string.
That can read nothing into them that the decoder of a chunk does not: but for a string of valid JSON
each has the very bytes that it has read.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from broker.upstream.openai import only_text

_FORM_BYTES_MAX: Final = 4_096
_END: Final = b"\n\n"
_CONTENT: Final = re.compile(rb'"content":\s*"([^"\\]*)"')
_TRIAL: Final = "a trial, which stands nowhere else"
_TEXT: Final = msgspec.json.Decoder(str)


class EventForm(msgspec.Struct, frozen=True, eq=False, gc=False):
    """What stands before and after the text of an event, without and with the event's end."""

    before: bytes
    after: bytes
    ending: bytes
    seam: bytes
    """Between the texts of two events."""

    def read(self, data: bytes, *, keep_text: bool) -> tuple[int, int, str] | None:
        """Return how many bytes the leading events have, up to the last of this form; how many
        UTF-8 bytes of text are in them; and, where it is to be kept, that text. None where not all
        of them are of this form, and for fewer than two."""
        if len(data) < 2 * len(self.seam):
            return None
        end = data.rfind(self.ending) + len(self.after)
        begin, stop = len(self.before), -len(self.after)
        pieces = [event[begin:stop] for event in data[:end].split(_END)]
        # Put together again as such events are, they must be what came: that is sooner done than
        # to look for all that is between two texts.
        if not data.startswith(b"%b%b%b" % (self.before, self.seam.join(pieces), self.ending)):
            return None
        try:
            # No escape and no letter goes on behind a comma, so each piece is valid by itself.
            text = _TEXT.decode(b'"%b"' % b",".join(pieces))
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return None
        commas = len(pieces) - 1
        text_bytes = (len(text) if text.isascii() else len(text.encode())) - commas
        if commas:
            text = _TEXT.decode(b'"%b"' % b"".join(pieces)) if keep_text else ""
        return end + len(_END), text_bytes, text


def form_of(payload: bytes) -> EventForm | None:
    """Return the form of an event whose data is a chunk of text alone; None: it has none that could
    be told from others."""
    trial = _TRIAL.encode()
    found = _CONTENT.search(payload) if len(payload) <= _FORM_BYTES_MAX else None
    if found is None or payload.find(trial) >= 0:
        return None
    begin, end = found.span(1)
    if only_text(payload[:begin] + trial + payload[end:]) != _TRIAL:
        return None  # what looks like the text is not what counts as the text
    before, after = b"data: " + payload[:begin], payload[end:]
    ending = after + _END
    return EventForm(before, after, ending, ending + before)
