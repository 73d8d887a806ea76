"""A call's turn under its `Idempotency-Key`: the right to be served, and the keeping of its answer.

`stands` is asked once the hold is open and before a byte goes upstream: of all who were ever given
the key, only the one whose hold stands may go on. `keep` is told the whole answer before it is
settled, so what was charged can be answered again whoever dies then; what was kept and never
charged is deleted with its expiry. What follows from a death at each moment:

    claimed, no hold yet         nothing was charged; the key falls free with the process's lease
    hold open                    a sweep releases the hold, and with it the key
    kept, not settled            the same; what was kept belongs to a call that nobody asks for
    settled, not yet told        the key stands for a served call: a replay gets the kept answer,
                                 or is told that the call was served, its id and its cost
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Final, Literal

import msgspec

from broker.core.call import Call
from broker.errors import Conflict, Unavailable
from broker.flows.access.keyring import Seat
from broker.flows.runtime import Runtime
from broker.store.access import claims
from broker.store.access.claims import Claim
from broker.store.access.idempotency import Place
from broker.store.away import DRIVER_AWAY
from broker.store.calls import answers
from broker.store.calls.answers import Owner, StoredAnswer

DATABASE_S: Final = 5.0
"""The database has so long for each question."""
_RETRY_S: Final = 0.5
AWAY: Final = DRIVER_AWAY


class Keyed(msgspec.Struct, frozen=True):
    """How a call may be sent again; `meaning_sha256` tells whether it is the same one."""

    key: str
    meaning_sha256: bytes
    on_running: Literal["wait", "refuse"]
    keeps: bool
    """The caller's key opted in to have answers kept, and the call's data policy allows it."""
    seat: Seat | None = None
    """The caller's place among the calls that its key may have under way, where it needs one."""


class Turn:
    """One call's turn; of all calls under a key only one has it at a time."""

    def __init__(self, call: Call, keyed: Keyed, runtime: Runtime) -> None:
        limits = runtime.settings.limits
        left_s = call.deadline_s - call.started_s
        free_at = call.created_at + timedelta(seconds=left_s + limits.hold_margin_s)
        kept_until = call.created_at + timedelta(seconds=limits.replay_kept_s)
        self.claim = Claim(
            place=Place(call.payer.account_id, keyed.key),
            request_sha256=keyed.meaning_sha256,
            call_id=call.id,
            process_id=runtime.ledger.process_id,
            created_at=call.created_at,
            free_at=free_at,
            expires_at=max(free_at, kept_until),
            key_id=call.payer.key_id,
        )
        self._runtime = runtime
        self._bytes_max = limits.replay_bytes_max if keyed.keeps else 0
        self._heard: list[bytes] | None = [] if keyed.keeps else None
        self._heard_bytes = 0

    async def stands(self) -> None:
        """Make sure that the turn is ours still. Raises Conflict, Unavailable."""
        claim = self.claim
        try:
            async with asyncio.timeout(DATABASE_S), self._runtime.pool.acquire() as connection:
                ours = await claims.stands(connection, claim.place, claim.call_id)
        except AWAY as error:
            raise away(error, self._runtime) from None
        if not ours:
            # This process had been taken for dead, and the key was given to another call.
            raise Conflict(
                "Another call runs under this Idempotency-Key by now.", code="idempotency_running"
            )

    async def free(self) -> bool:
        """Free the key, unless the call was charged or its hold is open.

        Raises nothing; False when the database is away.
        """
        claim = self.claim
        try:
            async with asyncio.timeout(DATABASE_S), self._runtime.pool.acquire() as connection:
                await claims.free(connection, claim.place, claim.call_id)
        except AWAY:
            return False
        return True

    def free_later(self) -> None:
        """Free the key without a caller to wait for it, as soon as the database is there.

        Should this process die before, the key is free with its lease.
        """
        task = asyncio.get_running_loop().create_task(self._free_at_last())
        self._runtime.running.add(task)
        task.add_done_callback(self._runtime.running.discard)

    async def _free_at_last(self) -> None:
        runtime = self._runtime
        while not await self.free() and runtime.clock() < self.claim.free_at:
            if runtime.stopping:
                return
            await asyncio.sleep(_RETRY_S)

    def hear(self, piece: bytes) -> None:
        """Note a piece of a stream on its way to the caller, where it may have to be kept."""
        if self._heard is None:
            return
        self._heard.append(piece)
        self._heard_bytes += len(piece)
        if self._heard_bytes > self._bytes_max:
            self._heard = None

    async def keep(self, answer: StoredAnswer) -> None:
        """Keep an answer, its body after all that was heard; raises nothing.

        What is too long, or cannot be written, is not kept: a replay is then told that the call was
        served.
        """
        if self._heard is None or self._heard_bytes + len(answer.body) > self._bytes_max:
            return
        body = b"".join((*self._heard, answer.body))
        whole = msgspec.structs.replace(answer, body=body)
        claim = self.claim
        owner = Owner(
            claim.place.account_id, claim.call_id, self._runtime.clock(), claim.expires_at
        )
        try:
            async with asyncio.timeout(DATABASE_S), self._runtime.pool.acquire() as connection:
                await answers.put(connection, owner, whole, self._runtime.sealer)
        except AWAY as error:
            self._runtime.ledger.outage.met(error, answer_not_kept=str(claim.call_id))


def away(cause: Exception, runtime: Runtime) -> Unavailable:
    """Return the error for a key that cannot be looked up, and log why."""
    runtime.ledger.outage.met(cause)
    return Unavailable("The ledger is away; nothing was charged.", retry_after_s=1.0)
