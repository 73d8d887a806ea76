"""All that is shared among processes and may be lost, in one place."""

from __future__ import annotations

import os
import socket
import uuid
from dataclasses import dataclass

from broker.live.beats import Beats
from broker.live.breakers import Ejections
from broker.live.bulletin import Bulletin, sign_of_life
from broker.live.callers import Callers
from broker.live.connection import TIMEOUT_S, Valkey
from broker.live.feed import BookFeed
from broker.live.homes import Homes
from broker.live.limits import RateLimits
from broker.live.loads import Loads
from broker.live.paces import Paces


@dataclass(frozen=True, slots=True, eq=False)
class Live:
    """This process's view of what all processes share."""

    process: str
    valkey: Valkey
    beats: Beats
    loads: Loads
    ejections: Ejections
    callers: Callers
    books: BookFeed
    limits: RateLimits
    homes: Homes
    paces: Paces

    @classmethod
    def connect(cls, valkey_url: str, market: str = "", *, timeout_s: float = TIMEOUT_S) -> Live:
        """Return the view of the market of that id, whether or not Valkey is there; it is away when
        it does not answer within `timeout_s`."""
        process = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        valkey = Valkey(valkey_url, market, timeout_s=timeout_s)
        return cls(
            process=process,
            valkey=valkey,
            beats=Beats(valkey),
            loads=Loads(Bulletin(valkey, "loads", process)),
            ejections=Ejections(Bulletin(valkey, "ejections", process)),
            callers=Callers(Bulletin(valkey, "callers", process)),
            books=BookFeed(valkey, sign_of_life(valkey, process)),
            limits=RateLimits(valkey),
            homes=Homes(valkey),
            paces=Paces(valkey),
        )

    async def close(self) -> None:
        """Take back what this process told the others, and close the connections."""
        await self.loads.leave()
        await self.ejections.leave()
        await self.callers.leave()
        await self.valkey.close()
