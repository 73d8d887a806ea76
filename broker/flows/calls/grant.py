"""What a call takes before its hold, beside the money, and gives back when it gets none."""

from __future__ import annotations

from broker.core.call import Call
from broker.core.decision import Decision
from broker.errors import BrokerError
from broker.flows.calls.redeem import give_back, give_back_later
from broker.flows.runtime import Runtime


async def take_tokens(call: Call, decision: Decision, runtime: Runtime) -> None:
    """Take the most tokens that a call may use out of its key's minute; the rest comes back later.

    Raises TooManyCalls and RequestRefused with code `key_rate`.
    """
    wanted, payer = call.wanted, call.payer
    assert payer.rates is not None
    longest = max(each.tokens_out_max for each in decision.plan)
    most = wanted.tokens_in_bound + wanted.choices * longest
    most *= decision.answers_most
    await runtime.live.limits.take(call.id, payer.key_id, payer.rates, most)


async def undo(call: Call, runtime: Runtime, error: BaseException) -> None:
    """Give back the tokens and the quote of a call that got no hold, because of `error`."""
    runtime.live.limits.give_back(call.id)
    if call.wanted.quote_id is None:
        return
    if isinstance(error, BrokerError):
        await give_back(call, runtime)
    else:
        give_back_later(call, runtime)  # nobody waits, and a cancelled task may not
