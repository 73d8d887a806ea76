"""Reserves what a call may cost: by a hold that is ready, or by one opened for it alone."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

import msgspec

from broker.core.call import Call
from broker.core.decision import Decision
from broker.core.ledger import Hold
from broker.core.market import Market
from broker.errors import BrokerError
from broker.flows.calls.grant import take_tokens, undo
from broker.flows.calls.log_refusal import log_refusal
from broker.flows.runtime import Runtime
from pricing.tiers import Tier

SHARE_OF: Final = {Tier.PRIORITY: 1.0, Tier.STANDARD: 0.8, Tier.FLEX: 0.4, Tier.BATCH: 0.4}
"""Of the calls that may wait for the ledger at once: so many may wait when one of a tier comes."""


async def reserve(
    call: Call, decision: Decision, market: Market, runtime: Runtime, *, bound: bool
) -> tuple[Call, Hold]:
    """Return a durable hold, and the call under the id of it. Raises what `LedgerBatcher.hold` and
    `take_tokens` raise; a refusal is logged.

    A call that is `bound` to its id, for that is written elsewhere, opens its own hold; so does one
    that may cost so much and no more, or that may take longer than others.
    """
    wanted, payer, limits = call.wanted, call.payer, runtime.settings.limits
    usual = call.deadline_s <= call.started_s + limits.deadline_s
    fits = usual and not bound and wanted.max_cost_nanos is None
    if fits and payer.rates is None:
        ready = _take_ready(call, decision, runtime)
        if ready is not None:
            return ready
    # Counted from the decision on: others are decided while this one waits for its hold.
    first = market.endpoint(decision.plan[0].number).deployment.number
    runtime.pulse.expect(first, 1)
    try:
        if payer.rates is not None:
            # Before it takes a ready hold: one refused would waste that, with all its rows.
            await take_tokens(call, decision, runtime)
            ready = _take_ready(call, decision, runtime) if fits else None
            if ready is not None:
                runtime.live.limits.rename(call.id, ready[0].id)
                return ready
        hold = own_hold(call, decision, limits.hold_margin_s)
        share = SHARE_OF[wanted.tier]
        await runtime.ledger.hold(hold, call.deadline_s - runtime.now_s(), share)
    except BaseException as error:
        await undo(call, runtime, error)
        if isinstance(error, BrokerError):
            raise log_refusal(error, call, decision, runtime) from None
        raise
    finally:
        runtime.pulse.expect(first, -1)
    return call, hold


def _take_ready(call: Call, decision: Decision, runtime: Runtime) -> tuple[Call, Hold] | None:
    """Return a hold that is ready, and the call under the id of it, if there is one."""
    payer = call.payer
    ready = runtime.ledger.ahead.take(payer.funds, payer.key_id, decision.hold_nanos)
    if ready is None:
        return None
    hold = ready.hold
    return msgspec.structs.replace(call, id=hold.call_id, id_text=ready.id_text), hold


def own_hold(call: Call, decision: Decision, margin_s: float) -> Hold:
    """Return the hold for one call: its dearest permitted plan, a margin beyond its deadline."""
    return Hold(
        call_id=call.id,
        account=call.payer.funds,
        key_id=call.payer.key_id,
        amount_nanos=decision.hold_nanos,
        created_at=call.created_at,
        expires_at=call.created_at + timedelta(seconds=call.deadline_s - call.started_s + margin_s),
    )
