"""A shortlist as one call sees it: what each endpoint would cost, how soon, how full it is."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np

from broker.core.columns import Floats, Numbers
from broker.core.health.pulse import Pulse
from broker.core.market import Shortlist
from broker.core.quality.lessons import TOKENS_OUT_USUAL, Lessons
from broker.core.requirements import Requirements
from pricing.tiers import Tier

TOKENS_OUT_EXPECTED = TOKENS_OUT_USUAL
"""Expected output of a call, where the caller's limit is not lower."""


@dataclass(frozen=True, slots=True)
class RoutingLimits:
    """The broker's own bounds on a decision."""

    attempts_max: int = 4
    queue_factor: float = 2.0
    priority_factor: float = 1.25
    """What the tier priority may find taken, over what the others may: it is the last to be
    refused."""
    spare_factor: float = 0.8
    """Of a deployment's capacity, what tiers that yield may find taken and still be served."""
    tokens_out_default: int = 4_096

    def full_for(self, tier: Tier) -> float:
        """Return the load, over capacity, at which an endpoint is full for a tier."""
        if tier is Tier.STANDARD:
            return self.queue_factor
        return self.spare_factor if tier.yields else self.priority_factor * self.queue_factor


class View(msgspec.Struct, eq=False):
    """All arrays are aligned with `numbers`."""

    numbers: Numbers
    capacity: Floats
    quality: Floats
    domain_fit: Floats
    tokens_out: int | Numbers
    """Output limit; an array where it differs from endpoint to endpoint."""
    cost_picos: Floats
    """Expected."""
    latency_ms: Floats
    """Expected."""
    load: Floats
    """Calls in flight over capacity."""
    fullest: float
    """No load is higher."""
    availability: Floats
    servers: Numbers | None
    """As of a shortlist."""
    usual_out: float
    """Tokens out that are expected of the middle one of all."""

    @classmethod
    def of(
        cls,
        wanted: Requirements,
        listed: Shortlist,
        pulse: Pulse,
        limits: RoutingLimits,
        lessons: Lessons | None = None,
    ) -> View:
        """Look at a shortlist with a call's eyes, and by what was learned of such calls."""
        tokens_out = output_limit(wanted, listed, limits)
        # Floats, for numpy is slow to mix an int with an array of floats.
        usual_out = float(TOKENS_OUT_EXPECTED)
        if isinstance(tokens_out, int):
            expected_out: float | Floats = min(float(tokens_out), usual_out)
        else:
            expected_out = np.minimum(tokens_out, usual_out)
        quality, domain_fit = listed.quality, listed.domain_fit
        if lessons is not None and wanted.prompt is not None:
            known = lessons.cut(wanted.domain, listed.numbers, domain_fit)
            quality = lessons.quality(wanted, wanted.prompt, known)
            domain_fit = known.fit
            expected_out, usual_out = known.tokens_out, known.usual
            if not isinstance(tokens_out, int) or tokens_out < known.longest:
                expected_out = np.minimum(expected_out, tokens_out)
        cost = listed.rate_out * (wanted.choices * expected_out)
        cost += listed.rate_in * float(wanted.tokens_in_expected)
        if listed.rate_call is not None:
            cost += listed.rate_call
        at, load = listed.at, pulse.load(listed.deployments_at) / listed.capacity
        fullest = load.item(load.argmax()) if load.size else 0.0
        # Indexed, for `take` has become slower than that; what is indexed may be the pulse's own.
        ttft = pulse.ttft_ms[at]
        if fullest > 1.0:
            ttft = ttft * np.maximum(load, 1.0)
        latency = pulse.tpot_ms[at] * expected_out
        latency += ttft
        return cls(
            listed.numbers,
            listed.capacity,
            quality,
            domain_fit,
            tokens_out,
            cost,
            latency,
            load,
            fullest,
            pulse.availability[at],
            listed.servers,
            usual_out if not isinstance(tokens_out, int) else min(usual_out, tokens_out),
        )

    def only(self, places: Numbers) -> View:
        """Return the view of the endpoints at these places."""
        tokens_out = self.tokens_out
        return View(
            self.numbers[places],
            self.capacity[places],
            self.quality[places],
            self.domain_fit[places],
            tokens_out if isinstance(tokens_out, int) else tokens_out[places],
            self.cost_picos[places],
            self.latency_ms[places],
            self.load[places],
            self.fullest,
            self.availability[places],
            None if self.servers is None else self.servers[places],
            self.usual_out,
        )


def ceiling_picos(wanted: Requirements, listed: Shortlist, tokens_out: int | Numbers) -> Floats:
    """Return the most that a call can cost at each endpoint of a shortlist, in pico-dollars;
    `tokens_out` is its `output_limit`."""
    ceiling = listed.rate_in * float(wanted.tokens_in_bound)
    ceiling += listed.rate_out * (wanted.choices * tokens_out)
    return ceiling if listed.rate_call is None else ceiling + listed.rate_call


def output_limit(wanted: Requirements, listed: Shortlist, limits: RoutingLimits) -> int | Numbers:
    """Return the output limit, in tokens; an array where it differs from endpoint to endpoint."""
    if not wanted.task.generates:
        return 0
    if wanted.tokens_out_max is not None:
        return wanted.tokens_out_max
    # A server refuses a prompt and output limit that exceed its context together, and how many
    # tokens the prompt makes is known only roughly: twice the estimate leaves room.
    prompt = min(wanted.tokens_in_bound, 2 * wanted.tokens_in_context + 64)
    most = limits.tokens_out_default
    if min(listed.output_tokens_min, listed.context_tokens_min - prompt) >= most:
        return most
    room = np.maximum(listed.context_tokens - prompt, 1)
    return np.minimum(np.minimum(listed.output_tokens, most), room)
