"""A group of endpoints as one call sees it: what each would cost, how soon, how full it is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from broker.core.market import Bools, Floats, Group, Market, Numbers
from broker.core.pulse import Pulse
from broker.core.requirements import Requirements

TOKENS_OUT_EXPECTED = 256
"""Expected output of a call, where the caller's limit is not lower."""


@dataclass(frozen=True, slots=True)
class RoutingLimits:
    """The broker's own bounds on a decision."""

    attempts_max: int = 4
    queue_factor: float = 2.0
    tokens_out_default: int = 4_096


@dataclass(slots=True, eq=False)
class View:
    """Arrays are aligned with `group.numbers`."""

    group: Group
    claims: Bools | None
    quality: Floats
    tokens_out: Numbers
    """Output limit at each endpoint."""
    cost_picos: Floats
    latency_ms: Floats
    load: Floats
    """Calls in flight over capacity."""
    full_above: float
    availability: Floats
    tokens_in_bound: int
    choices: int

    @classmethod
    def of(
        cls,
        wanted: Requirements,
        market: Market,
        group: Group,
        pulse: Pulse,
        limits: RoutingLimits,
    ) -> View:
        """Look at a group with a call's eyes."""
        claims, quality = None, group.quality
        if wanted.domain is not None:
            claims, quality = market.domain_columns(wanted.task, wanted.model, wanted.domain)
        tokens_out = _output_limit(wanted, group, limits)
        expected_out = np.minimum(tokens_out, TOKENS_OUT_EXPECTED)
        cost = (
            wanted.tokens_in_expected * group.rate_in
            + wanted.choices * expected_out * group.rate_out
        )
        load = pulse.load(group.deployments) / group.capacity
        latency = pulse.ttft_ms[group.numbers] * np.maximum(load, 1.0)
        latency += pulse.tpot_ms[group.numbers] * expected_out
        return cls(
            group=group,
            claims=claims,
            quality=quality,
            tokens_out=tokens_out,
            cost_picos=cost + group.rate_call,
            latency_ms=latency,
            load=load,
            full_above=limits.queue_factor,
            availability=pulse.availability[group.numbers],
            tokens_in_bound=wanted.tokens_in_bound,
            choices=wanted.choices,
        )

    def ceiling_picos(self) -> Floats:
        """Return the most that the call can cost at each endpoint, in pico-dollars."""
        group = self.group
        bound_in = self.tokens_in_bound * group.rate_in
        return bound_in + self.choices * self.tokens_out * group.rate_out + group.rate_call

    def free_share(self, members: Numbers) -> Floats:
        """Return the free share of each member's capacity, never quite zero."""
        return np.maximum(1.0 - self.load[members], 0.01)


def _output_limit(wanted: Requirements, group: Group, limits: RoutingLimits) -> Numbers:
    if not wanted.task.generates:
        return np.zeros(group.numbers.size, dtype=np.int64)
    if wanted.tokens_out_max is not None:
        return np.full(group.numbers.size, wanted.tokens_out_max, dtype=np.int64)
    # A server refuses a prompt and output limit that exceed its context together, and how many
    # tokens the prompt makes is known only roughly: twice the estimate leaves room.
    prompt = min(wanted.tokens_in_bound, 2 * wanted.tokens_in_expected + 64)
    room = np.maximum(group.context_tokens - prompt, 1)
    return np.minimum(np.minimum(group.output_tokens, limits.tokens_out_default), room)
