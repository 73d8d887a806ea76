"""How many calls each key has under way in the other processes, where a key may have only so many.

Each process counts its own at once, and the others' as of the last exchange: two processes that let
a key's last call in within that span are both right by what they know.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import msgspec
import structlog

from broker.live.bulletin import Bulletin, Telling

_log = structlog.get_logger(__name__)
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(dict[str, int])


class Callers:
    """Tells the other processes of this one's calls by key, and sums up theirs."""

    def __init__(self, bulletin: Bulletin) -> None:
        self._bulletin = bulletin

    def telling(self, own: Mapping[str, int]) -> Telling:
        """Return what is to be told, for `exchange_all`."""
        return self._bulletin, _encoder.encode(dict(own))

    def elsewhere(self) -> Mapping[str, int]:
        """Return the calls of each key in all other processes, as of the last exchange."""
        total: Counter[str] = Counter()
        for process, said in self._bulletin.others().items():
            try:
                total.update(_decoder.decode(said))
            except msgspec.MsgspecError:
                _log.warning("the calls by key of a process are not understood", process=process)
        return total

    async def leave(self) -> None:
        """Take back what this process said, for it is stopping."""
        await self._bulletin.leave()
