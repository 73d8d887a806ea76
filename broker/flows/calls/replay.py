"""Serves a call at most once under its `Idempotency-Key`; sent again, it gets the first answer.

Whoever finds the key free serves. A replay of a call that was served, or that cost something, gets
the answer that was kept, else AlreadyServed; so does the replay of a stream that broke off or whose
caller left midway, for what was delivered is paid. A kept answer is told to the key that asked for
it alone, whatever its secret is by now; to others of its account it is one that was not kept. While
the first call runs, a replay waits for it until its own deadline, or is refused where it asked for
that; it counts as none of the calls that its key may have under way. A call that ended without a
charge leaves the key free, and with it the choice to send another body.
"""

from __future__ import annotations

import asyncio
from typing import Final
from uuid import UUID

import msgspec
import structlog

from broker.core.call import Call
from broker.errors import AlreadyServed, BrokerError, Conflict, Unavailable
from broker.flows.calls.exchange import WholeAnswer
from broker.flows.calls.passage import Passage
from broker.flows.calls.serve import serve
from broker.flows.calls.stream import Stream
from broker.flows.calls.tab import Tab
from broker.flows.calls.turn import AWAY, DATABASE_S, Keyed, Turn, away
from broker.flows.runtime import Runtime
from broker.store.access import claims
from broker.store.access.claims import Former, Stage
from broker.store.access.idempotency import used_for_another
from broker.store.calls import answers
from broker.store.calls.answers import StoredAnswer
from broker.store.sealing import SecretUnreadable

_PAUSE_FIRST_S: Final = 0.02
_PAUSE_MAX_S: Final = 0.5
_PAUSE_GROWTH: Final = 1.5

_log = structlog.get_logger()


class Replay(msgspec.Struct, frozen=True):
    """The first answer, kept: of which call it was and what that cost."""

    call_id: UUID
    charge_nanos: int
    answer: StoredAnswer


async def serve_once(
    call: Call, keyed: Keyed, runtime: Runtime
) -> tuple[Tab, WholeAnswer | Stream | Passage] | Replay:
    """Serve a call, or return the answer that its key stands for.

    Raises Conflict with code `idempotency_conflict` or `idempotency_running`, AlreadyServed for an
    answer that was not kept, Unavailable while the key cannot be looked up, and as `serve` does.
    """
    turn = Turn(call, keyed, runtime)
    try:
        former = await _wait(turn, call, keyed, runtime)
    except asyncio.CancelledError:
        turn.free_later()  # it may have been claimed just when its caller left
        raise
    if former is not None:
        if keyed.seat is not None:
            keyed.seat.prove()
        return await _replay(former, call, runtime)
    try:
        if keyed.seat is not None:
            keyed.seat.take()
        return await serve(call, runtime, turn)
    except BrokerError:
        if not await turn.free():
            turn.free_later()
        raise
    except BaseException:
        turn.free_later()
        raise


async def _wait(turn: Turn, call: Call, keyed: Keyed, runtime: Runtime) -> Former | None:
    """Return None once the turn is this call's, or what the key stands for."""
    pause_s = _PAUSE_FIRST_S
    while True:
        try:
            async with asyncio.timeout(DATABASE_S):
                former = await _ask(turn, runtime)
        except AWAY as error:
            turn.free_later()  # it may have been claimed, and the answer lost
            raise away(error, runtime) from None
        if former is None:
            return None
        if former.request_sha256 != keyed.meaning_sha256:
            raise used_for_another(keyed.key)
        if former.stage is Stage.SERVED:
            return former
        left_s = call.deadline_s - runtime.now_s()
        if keyed.on_running == "refuse" or left_s <= 0:
            raise _running(former)
        if runtime.stopping:
            raise Unavailable("The broker is stopping.", retry_after_s=1.0)
        await asyncio.sleep(min(pause_s, left_s))
        pause_s = min(pause_s * _PAUSE_GROWTH, _PAUSE_MAX_S)


async def _ask(turn: Turn, runtime: Runtime) -> Former | None:
    """Claim the key; return what it stands for where it cannot be claimed."""
    place, now = turn.claim.place, runtime.clock()
    async with runtime.pool.acquire() as connection:
        while True:
            if await claims.claim(connection, turn.claim):
                return None
            former = await claims.look(connection, place, now)
            if former is None:
                continue  # freed between the two questions
            if former.stage is not Stage.FREE:
                return former
            if await claims.take_over(connection, turn.claim, now):
                return None


async def _replay(former: Former, call: Call, runtime: Runtime) -> Replay:
    assert former.call_id is not None
    if former.key_id not in (None, call.payer.key_id):
        told = (former.call_id, former.charge_nanos, former.code)
        raise AlreadyServed(*told, "is told to the key alone that asked for it")
    try:
        async with asyncio.timeout(DATABASE_S), runtime.pool.acquire() as connection:
            kept = await answers.find(connection, former.call_id, runtime.sealer, runtime.clock())
    except AWAY as error:
        raise away(error, runtime) from None
    except SecretUnreadable as error:
        _log.warning("answer_unreadable", call_id=str(former.call_id), error=error.detail)
        kept = None
    if kept is None:
        raise AlreadyServed(former.call_id, former.charge_nanos, former.code)
    return Replay(former.call_id, former.charge_nanos, kept)


def _running(former: Former) -> Conflict:
    error = Conflict(
        "The first call under this Idempotency-Key is still running.", code="idempotency_running"
    )
    error.call_id = str(former.call_id) if former.call_id else None
    return error
