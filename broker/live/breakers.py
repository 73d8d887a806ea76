"""Which endpoints other processes have ejected, so that one process's bad experience serves all."""

from __future__ import annotations

from collections.abc import Collection

import msgspec
import structlog

from broker.live.bulletin import Bulletin, Telling

_log = structlog.get_logger(__name__)
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[int])


class Ejections:
    """Tells the other processes which endpoint numbers this one has ejected, and hears theirs."""

    def __init__(self, bulletin: Bulletin) -> None:
        self._bulletin = bulletin

    async def exchange(self, own: Collection[int]) -> None:
        """Tell the others, and hear them."""
        await self._bulletin.exchange(self.telling(own)[1])

    def telling(self, own: Collection[int]) -> Telling:
        """Return what is to be told, for `exchange_all`."""
        return self._bulletin, _encoder.encode(sorted(own))

    def elsewhere(self) -> frozenset[int]:
        """Return the endpoints that any other process has ejected, as of the last exchange."""
        ejected: set[int] = set()
        for process, said in self._bulletin.others().items():
            try:
                ejected.update(_decoder.decode(said))
            except msgspec.MsgspecError:
                _log.warning("the ejections of a process are not understood", process=process)
        return frozenset(ejected)

    async def leave(self) -> None:
        """Take back what this process said, for it is stopping."""
        await self._bulletin.leave()
