"""Lays a shortlist of few endpoints out in plain numbers, too."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from broker.core.handful import HANDFUL_MAX, Handful
from broker.core.market import Lone, Market, Shortlist
from broker.core.requirements import Requirements
from broker.core.standing import Standing


def in_numbers(wanted: Requirements, market: Market, listed: Shortlist) -> Shortlist:
    """Return a shortlist of few with the same in plain numbers."""
    if listed.numbers.size == 1:
        return replace(listed, lone=_lone(listed))
    if 1 < listed.numbers.size <= HANDFUL_MAX:
        return replace(listed, few=_few(wanted, market, listed))
    return listed


def _lone(listed: Shortlist) -> Lone:
    return Lone(
        number=int(listed.numbers[0]),
        deployment=int(listed.deployments[0]),
        rate_in=float(listed.rate_in[0]),
        rate_out=float(listed.rate_out[0]),
        rate_call=0.0 if listed.rate_call is None else float(listed.rate_call[0]),
        capacity=float(listed.capacity[0]),
        context_tokens=listed.context_tokens_min,
        output_tokens=listed.output_tokens_min,
        quality=float(listed.quality[0]),
        domain_fit=float(listed.domain_fit[0]),
    )


def _few(wanted: Requirements, market: Market, listed: Shortlist) -> Handful:
    calls = np.zeros(listed.numbers.size) if listed.rate_call is None else listed.rate_call
    rates = np.stack((listed.rate_in, listed.rate_out, calls))
    return Handful(
        places=tuple(range(listed.numbers.size)),
        numbers=listed.numbers,
        numbered=tuple(listed.numbers.tolist()),
        standing=Standing(
            listed.numbers.tolist(), listed.deployments.tolist(), listed.capacity.tolist()
        ),
        cut=None,
        rates=tuple(market.rate(number, wanted.tier) for number in listed.numbers.tolist()),
        rates_picos=tuple(zip(*rates.tolist(), strict=True)),
        servers=None if listed.servers is None else tuple(listed.servers.tolist()),
        capacity=tuple(listed.capacity.tolist()),
        quality=tuple(listed.quality.tolist()),
        domain_fit=tuple(listed.domain_fit.tolist()),
        rejected=listed.rejected,
        reasons=listed.reasons,
        cheapest=tuple(rates.min(axis=1).tolist()),
        dearest=tuple(rates.max(axis=1).tolist()),
        left={},
        weighed={},
    )
