"""How fast each key's budget is being spent, as the processes tell each other.

While Valkey is away each process goes by what it knew last, and by what the books say is spent.
"""

from __future__ import annotations

from typing import Final, cast

import msgspec
from redis.asyncio import Redis

from broker.core.money.pacing import Pace
from broker.live.connection import Valkey

KEPT_S: Final = 40 * 86_400
_decode = msgspec.json.Decoder(Pace).decode
_encode = msgspec.json.Encoder().encode


class Paces:
    """Keeps the pace of each key; of two processes that tell one at once the later is kept, for
    both go by the same books."""

    def __init__(self, valkey: Valkey) -> None:
        self._valkey = valkey

    async def of(self, key_id: str) -> Pace | None:
        """Return the pace that was told last, None where nobody knows."""

        async def ask(client: Redis) -> bytes | None:
            return cast("bytes | None", await client.get(self._name(key_id)))

        told = await self._valkey.ask(ask, None)
        try:
            return None if told is None else _decode(told)
        except msgspec.DecodeError:
            return None

    async def keep(self, key_id: str, pace: Pace) -> None:
        """Tell the other processes."""

        async def tell(client: Redis) -> None:
            await client.set(self._name(key_id), _encode(pace), ex=KEPT_S)

        await self._valkey.ask(tell, None)

    def _name(self, key_id: str) -> str:
        return self._valkey.key(f"pace:{key_id}")
