"""Keeps one call's tab: its attempts, what each delivered, and what that costs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import msgspec

from broker.core import ledger
from broker.core.call import Call, OpenAiBody
from broker.core.catalog import Endpoint
from broker.core.decision import Candidate, Decision
from broker.core.dispatch import Attempt, Dispatch
from broker.core.health.measured import Measured
from broker.core.ledger import ChargeLine, Hold
from broker.core.market import Market
from broker.core.metering import NOTHING, Delivered, Expected, meter
from broker.core.outcome import Outcome
from broker.flows.calls.attempt_facts import cut_of, measure_of
from broker.flows.calls.count_tokens import PromptCount, begin_prompt, counted, counted_beside
from broker.flows.calls.doubt import doubted, unfit
from broker.flows.calls.turn import Turn
from broker.flows.runtime import Runtime
from broker.store.calls.answers import StoredAnswer
from pricing.book import Rate


class Uncounted(msgspec.Struct, frozen=True, eq=False):
    """What became of an attempt, and when it was over; it ends when that has been counted."""

    outcome: Outcome
    delivered: Delivered
    over_s: float


class Tab:
    """Opened once the hold is durable. Every attempt begins and ends here; `settle` closes it."""

    def __init__(
        self,
        call: Call,
        decision: Decision,
        hold: Hold,
        market: Market,
        runtime: Runtime,
        turn: Turn | None = None,
    ) -> None:
        """`market` is the one that was decided on, whatever is swapped in meanwhile; `turn` that of
        a call under an `Idempotency-Key`."""
        self.call = call
        self.decision = decision
        self.hold = hold
        self.runtime = runtime
        self.market = market
        self.turn = turn
        self.lines: list[ChargeLine] = []
        self.charge_nanos = 0
        self.chosen: Attempt | None = None
        """Whose answer is delivered, where that need not be the latest."""
        self.is_settled = False
        self._attempt: Attempt | None = None
        """Under way."""
        self._hedge: Attempt | None = None
        """Under way beside it."""
        self.prompts: list[PromptCount] = []
        """What attempts were sent, where it is long and counted by a tokenizer."""
        self.uncounted: Uncounted | None = None
        """Of the attempt under way: it is over, and its caller has left before it was counted."""
        self.asked = call
        """What the latest attempt was sent: of a stream that broke off, something else."""
        self.endpoint: Endpoint
        """The endpoint of the latest attempt."""
        self.dispatch = Dispatch(
            decision.plan,
            runtime.retries,
            deadline_s=call.deadline_s,
            attempts_max=runtime.routing.attempts_max,
            random=runtime.random,
            stages=decision.stages,
        )
        if call.hedges and decision.answers_most > 1:
            self.dispatch.hedges = runtime.hedges

    @property
    def rate(self) -> Rate:
        """Of the attempt that was chosen, else of the latest."""
        return (self.chosen or self.dispatch.attempts[-1]).candidate.rate

    def begin(self) -> Attempt | None:
        """Begin the next attempt, to be made after its delay if it has one; None: there is none."""
        now_s = self.runtime.now_s()
        attempt = self.dispatch.next_attempt(now_s, self.runtime.pulse.doubts.admitting(now_s))
        if attempt is None:
            return None
        self._count_in(attempt)
        return attempt

    def begin_beside(self, candidate: Candidate) -> Attempt | None:
        """Begin an attempt beside an answer that came; None out of time."""
        attempt = self.dispatch.begin_beside(candidate, self.runtime.now_s())
        if attempt is not None:
            self._count_in(attempt)
        return attempt

    def begin_hedge(self) -> Attempt | None:
        """Begin a second attempt beside the one under way, which is late; None: there is none."""
        now_s = self.runtime.now_s()
        attempt = self.dispatch.hedge(now_s, self.runtime.pulse.doubts.admitting(now_s))
        if attempt is not None:
            self._hedge = attempt
            endpoint = self.market.endpoint(attempt.candidate.number)
            self.runtime.pulse.begin(endpoint.number, endpoint.deployment.number, now_s)
            if endpoint.tokenizer_json is not None:
                begin_prompt(self.asked.body, endpoint, self.prompts, self.runtime.tokens)
        return attempt

    def go_on_after_cut(self) -> Attempt | None:
        """Begin an attempt that goes on from what was delivered; None: there is none."""
        now_s = self.runtime.now_s()
        attempt = self.dispatch.go_on_after_cut(now_s, self.runtime.pulse.doubts.admitting(now_s))
        if attempt is not None:
            self.runtime.continued += 1
            self.chosen = None  # of two side by side the one that won: it has broken off
            self._count_in(attempt)
        return attempt

    def late_after_s(self, attempt: Attempt) -> float | None:
        """Return in how many seconds an attempt is later than it mostly is; None: nobody knows."""
        streamed = self.call.wanted.stream
        late_ms = self.runtime.tails.late_ms(attempt.candidate.number, streamed=streamed)
        return None if late_ms is None else late_ms / 1_000

    def _count_in(self, attempt: Attempt) -> None:
        self._attempt = attempt
        endpoint = self.endpoint = self.market.endpoint(attempt.candidate.number)
        number = endpoint.number
        self.runtime.pulse.begin(number, endpoint.deployment.number, attempt.started_s)
        if endpoint.tokenizer_json is not None:
            begin_prompt(self.asked.body, endpoint, self.prompts, self.runtime.tokens)

    def first_content(self, attempt: Attempt) -> None:
        """Be told that the content of an attempt's answer has begun."""
        attempt.first_content_s = now_s = self.runtime.now_s()
        self.runtime.pulse.prove(attempt.candidate.number, now_s, attempt.started_s)

    def end(
        self, outcome: Outcome, delivered: Delivered | None = None, now_s: float | None = None
    ) -> None:
        """End the attempt under way, if one is, and price what it delivered; one beside it ends
        with nothing. `now_s` is when it ended, None for just now. One that is `uncounted` waits."""
        if self.uncounted is not None:
            return
        attempt, self._attempt = self._attempt, None
        if self._hedge is not None:
            hedge, self._hedge = self._hedge, None
            self._end(hedge, outcome)
        if attempt is not None:
            self._end(attempt, outcome, delivered, now_s)

    async def end_counted(
        self, outcome: Outcome, delivered: Delivered, over_s: float | None = None
    ) -> None:
        """End the attempt under way as of `over_s`, or now, when its prompt and what it delivered
        have been counted beside the calls.

        Whoever leaves meanwhile has had the answer made: the attempt ends when the call is settled.
        """
        now_s = self.runtime.now_s() if over_s is None else over_s
        endpoint = self.endpoint
        try:
            if self._attempt is not None and endpoint.tokenizer_json is not None:
                delivered = await counted_beside(
                    self.asked.body, endpoint, delivered, self.prompts, self.runtime.tokens
                )
        except asyncio.CancelledError:
            self.uncounted = Uncounted(outcome, delivered, now_s)
            raise
        finally:
            if self.uncounted is None:
                self.end(outcome, delivered, now_s)

    def end_when_settled(self, outcome: Outcome, delivered: Delivered) -> None:
        """End the attempt under way whose caller has left; what is to be counted first is so by
        `settle_later`."""
        if self.endpoint.tokenizer_json is None:
            self.end(outcome, delivered)
        elif self._attempt is not None and self.uncounted is None:
            self.uncounted = Uncounted(outcome, delivered, self.runtime.now_s())

    def end_one(self, attempt: Attempt, outcome: Outcome) -> None:
        """End one of two under way, which brought nothing; the other goes on."""
        other = self._hedge if attempt is self._attempt else self._attempt
        self._attempt, self._hedge = other, None
        if other is not None:
            self.endpoint = self.market.endpoint(other.candidate.number)
        self._end(attempt, outcome)

    def win(self, winner: Attempt, loser: Attempt, delivered: Delivered | None) -> None:
        """Of two under way one has answered; the other is paid what it has `delivered`, if any."""
        self._attempt, self._hedge = winner, None
        self.choose(winner)
        now_s = self.runtime.now_s()
        outcome = self.dispatch.lose(loser, now_s)
        endpoint = self.market.endpoint(loser.candidate.number)
        try:
            if delivered is not None:
                self._price(loser, endpoint, delivered)
        finally:
            place = (endpoint.number, endpoint.deployment.number)
            self.runtime.pulse.end(*place, outcome, now_s, None, loser.started_s)

    def _end(
        self,
        attempt: Attempt,
        outcome: Outcome,
        delivered: Delivered | None = None,
        now_s: float | None = None,
    ) -> None:
        runtime, dispatch = self.runtime, self.dispatch
        if now_s is None:
            now_s = runtime.now_s()
        pulse, throttle = runtime.pulse, runtime.throttle
        if isinstance(self.asked.body, OpenAiBody) and self.asked.body.images:
            outcome = unfit(outcome, dispatch)
        else:
            outcome = doubted(outcome, attempt, self.decision, dispatch, pulse, now_s)
        outcome = dispatch.record(outcome, now_s, attempt)
        endpoint, measured = self.market.endpoint(attempt.candidate.number), None
        try:
            if outcome.fault is not None:
                cut = cut_of(attempt, outcome, self.asked, now_s)
                throttle.failed(endpoint, outcome, cut, now_s)
            if delivered is not None:
                self._price(attempt, endpoint, delivered)
                if outcome.fault is None and delivered.complete and throttle.wants(endpoint, now_s):
                    measured = self._measure(attempt, endpoint, delivered, now_s)
        finally:
            # Whatever pricing meets, a call that is not counted out would weigh for ever.
            place = (endpoint.number, endpoint.deployment.number)
            pulse.end(*place, outcome, now_s, measured, attempt.started_s)

    def _measure(
        self, attempt: Attempt, endpoint: Endpoint, delivered: Delivered, now_s: float
    ) -> Measured:
        """Return how an attempt that delivered went, for the pulse; limits and tails are told."""
        runtime, asked, streamed = self.runtime, self.asked, self.call.wanted.stream
        measured = measure_of(attempt, asked, delivered, now_s)
        size = (asked.body.size_bytes, attempt.tokens_out)
        runtime.throttle.tell(endpoint, size, measured, now_s, streamed=streamed)
        runtime.tails.tell(endpoint.number, measured.ttft_ms, streamed=streamed)
        return measured

    def _price(self, attempt: Attempt, endpoint: Endpoint, delivered: Delivered) -> None:
        pulse, wanted, number = self.runtime.pulse, self.call.wanted, endpoint.number
        asked = self.asked
        expected = Expected(
            asked.wanted.tokens_in_bound,
            asked.body.size_bytes,
            attempt.candidate.tokens_out_max * wanted.choices,
            pulse.bytes_in_per_token_at[number],
            pulse.bytes_out_per_token_at[number],
        )
        if endpoint.tokenizer_json is not None:
            delivered = counted(asked.body, endpoint, delivered, self.prompts, self.runtime.tokens)
        usage = meter(delivered, expected)
        if usage is NOTHING:
            return
        if usage.notes:
            attempt.notes.extend(usage.notes)
        take_bps = endpoint.take_bps
        if endpoint.take_bps_by_domain:
            take_bps = endpoint.take_of(wanted.named_domain)
        terms = (attempt.candidate.rate, self.decision.price_version, take_bps)
        line = ledger.line(
            attempt.index,
            endpoint.id,
            endpoint.ledger_account,
            (usage.tokens_in, usage.tokens_out),
            terms,
        )
        attempt.tokens_in, attempt.tokens_out = usage.tokens_in, usage.tokens_out
        attempt.charge_nanos = line.charge_nanos
        self.lines.append(line)
        self.charge_nanos += line.charge_nanos

    def choose(self, attempt: Attempt) -> None:
        """Deliver the answer of this attempt, whichever came after it."""
        self.chosen = attempt
        self.endpoint = self.market.endpoint(attempt.candidate.number)

    def forgo_but(self, kept: Attempt | None) -> None:
        """Charge nothing for any attempt but this one."""
        if self.uncounted is not None:  # nor for one that is over
            over, self.uncounted = self.uncounted, None
            self.end(over.outcome, over.delivered, over.over_s)
        for attempt in self.dispatch.attempts:
            if attempt is not kept:
                attempt.charge_nanos = 0
        self.lines = [each for each in self.lines if kept and each.attempt == kept.index]
        self.charge_nanos = sum(each.charge_nanos for each in self.lines)

    async def keep_answer(self, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> None:
        """Keep the answer for replays where the caller's key wants it, before it is settled."""
        if self.turn is not None:
            terms = (self.endpoint.name, self.rate, self.decision.price_version)
            await self.turn.keep(StoredAnswer(*terms, list(headers), body))
