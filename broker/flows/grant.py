"""What a call takes before its hold, beside the money: the tokens of its key's minute."""

from __future__ import annotations

from broker.core.call import Call
from broker.core.decision import Decision
from broker.flows.runtime import Runtime


async def take_tokens(call: Call, decision: Decision, runtime: Runtime) -> None:
    """Take the most that a call may use in and out; what it does not use comes back at its end.

    Raises TooManyCalls and RequestRefused with code `key_rate`.
    """
    wanted, payer = call.wanted, call.payer
    assert payer.rates is not None
    longest = max(each.tokens_out_max for each in decision.plan)
    most = wanted.tokens_in_bound + wanted.choices * longest
    await runtime.live.limits.take(call.id, payer.key_id, payer.rates, most)
