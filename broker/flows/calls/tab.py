"""Keeps one call's tab: its attempts, what each delivered, and the one settlement at the end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from functools import partial

import msgspec

from broker.core import ledger, story
from broker.core.call import Call
from broker.core.catalog import Endpoint
from broker.core.decision import Candidate, Decision
from broker.core.dispatch import Attempt, Dispatch
from broker.core.ledger import CallRecord, ChargeLine, Hold
from broker.core.market import Market
from broker.core.metering import NOTHING, Delivered, Expected, meter
from broker.core.outcome import Outcome
from broker.errors import BrokerError, HoldExpired
from broker.flows.calls.attempt_facts import answer_length, cut_of, learn_from, ttft_ms
from broker.flows.calls.count_tokens import (
    PromptCount,
    Uncounted,
    begin_prompt,
    counted,
    end_counted,
)
from broker.flows.calls.doubt import doubted
from broker.flows.calls.trace_call import trace_call
from broker.flows.calls.turn import Turn
from broker.flows.runtime import Runtime
from broker.store.calls.answers import StoredAnswer
from pricing.book import Rate


class Tab:
    """Opened once the hold is durable. Every attempt begins and ends here; it settles once."""

    def __init__(
        self, call: Call, decision: Decision, hold: Hold, market: Market, runtime: Runtime
    ) -> None:
        """`market` is the one that was decided on, whatever is swapped in meanwhile."""
        self.call = call
        self.decision = decision
        self.hold = hold
        self.runtime = runtime
        self.market = market
        self.lines: list[ChargeLine] = []
        self.charge_nanos = 0
        self.turn: Turn | None = None
        """Of a call under an `Idempotency-Key`."""
        self.kept: Attempt | None = None
        """Of a cascade: the attempt whose answer is delivered, where that is not the latest."""
        self._settled = False
        self._attempt: Attempt | None = None
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
    def is_under_way(self) -> bool:
        """An attempt has begun and not ended."""
        return self._attempt is not None

    @property
    def rate(self) -> Rate:
        """What the latest attempt is charged at."""
        return (self.kept or self.dispatch.attempts[-1]).candidate.rate

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
                begin_prompt(self, endpoint)
        return attempt

    def go_on(self) -> Attempt | None:
        """Begin an attempt that goes on from what was delivered; None: there is none."""
        now_s = self.runtime.now_s()
        attempt = self.dispatch.go_on_after_cut(now_s, self.runtime.pulse.doubts.admitting(now_s))
        if attempt is not None:
            self.runtime.continued += 1
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
            begin_prompt(self, endpoint)

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
        self.keep_attempt(winner)
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
        if now_s is None:
            now_s = self.runtime.now_s()
        outcome = self.dispatch.record(doubted(self, attempt, outcome, now_s), now_s, attempt)
        endpoint = self.market.endpoint(attempt.candidate.number)
        measured, throttle = None, self.runtime.throttle
        try:
            if outcome.fault is not None:
                cut = cut_of(attempt, outcome, self.asked, now_s)
                throttle.failed(endpoint, outcome, cut, now_s)
            if delivered is not None:
                self._price(attempt, endpoint, delivered)
                if outcome.fault is None and delivered.complete and throttle.wants(endpoint, now_s):
                    measured = learn_from(self, attempt, endpoint, delivered, now_s)
        finally:
            # Whatever pricing meets, a call that is not counted out would weigh for ever.
            place = (endpoint.number, endpoint.deployment.number)
            self.runtime.pulse.end(*place, outcome, now_s, measured, attempt.started_s)

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
            delivered = counted(self, endpoint, delivered)
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

    def keep_attempt(self, attempt: Attempt) -> None:
        """Deliver the answer of this attempt, whichever came after it."""
        self.kept = attempt
        self.endpoint = self.market.endpoint(attempt.candidate.number)

    def forgo_but(self, kept: Attempt | None) -> None:
        """Charge nothing for any attempt but this one."""
        if self.uncounted is not None:  # nor for one that is over
            over, self.uncounted = self.uncounted, None
            self.end(over.outcome, over.delivered, over.now_s)
        for attempt in self.dispatch.attempts:
            if attempt is not kept:
                attempt.charge_nanos = 0
        self.lines = [each for each in self.lines if kept and each.attempt == kept.index]
        self.charge_nanos = sum(each.charge_nanos for each in self.lines)

    async def settle(self, status: int, code: str) -> None:
        """Capture what was delivered and release the rest; durable when it returns.

        Raises HoldExpired when the hold was gone (its time had run out): nothing was charged then.
        """
        if self._settled:
            return
        self._settled = True
        call, runtime = self.call, self.runtime
        if call.payer.rates is not None:
            used = sum(each.tokens_in + each.tokens_out for each in self.dispatch.attempts)
            runtime.live.limits.give_back(call.id, used)
        if call.session_id is not None and status == 200:
            payer, number = call.payer, self.endpoint.number
            runtime.live.homes.keep(payer.account_id, call.session_id, number)
        # Not before its call either, which may be younger than its hold: a clock may be set back.
        now = max(runtime.clock(), call.created_at)
        closing = ledger.settlement(self.hold, tuple(self.lines), now, None)
        draft = partial(self._record, status, code, runtime.now_s())
        gone: CallRecord | None = None
        try:
            if not await runtime.ledger.settle(closing, draft):
                gone = self._outlived(draft())
                error = HoldExpired("The call outlived its hold and was not charged.")
                error.call_id = call.id_text
                raise error
        finally:  # not before, for the caller waits for it
            if (traces := runtime.traces) is not None and call.trace is not None:
                trace_call(traces, call, gone or draft(), self.dispatch.attempts, self.market)

    def _outlived(self, record: CallRecord) -> CallRecord:
        """Log a call whose hold was gone: it cost nothing, whatever was delivered."""
        self.charge_nanos = 0
        # A hold that was ready may have been gone before its call came. No settlement is older than
        # its call: this one's record is as old as its hold, so that the books agree.
        begun_at = min(record.created_at, self.hold.created_at)
        told = {"status": HoldExpired.status, "code": HoldExpired.code, "charge_nanos": 0}
        gone = msgspec.structs.replace(record, created_at=begun_at, **told)
        self.runtime.ledger.record(gone)
        return gone

    async def keep(self, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> None:
        """Keep the answer for replays where the caller's key wants it, before it is settled."""
        if self.turn is not None:
            terms = (self.endpoint.name, self.rate, self.decision.price_version)
            await self.turn.keep(StoredAnswer(*terms, list(headers), body))

    def settle_later(self, status: int, code: str) -> None:
        """Settle without a caller to wait for it."""
        if self._settled:
            return
        task = asyncio.get_running_loop().create_task(self._settle_alone(status, code))
        self.runtime.running.add(task)
        task.add_done_callback(self.runtime.running.discard)

    async def _settle_alone(self, status: int, code: str) -> None:
        if self.uncounted is not None:
            over, self.uncounted = self.uncounted, None
            await end_counted(self, over.outcome, over.delivered, over.now_s)
        with contextlib.suppress(BrokerError):  # what it says is in the log by then
            await self.settle(status, code)

    def _record(self, status: int, code: str, ended_s: float) -> CallRecord:
        call, decision, dispatch = self.call, self.decision, self.dispatch
        payer, wanted, attempts = call.payer, call.wanted, dispatch.attempts
        last = self.kept or (attempts[-1] if attempts else None)
        tokens_in = tokens_out = 0
        for each in attempts:
            tokens_in += each.tokens_in
            tokens_out += each.tokens_out
        # The row as `log_call` makes it, at once: that spares each call a struct and 60 loads.
        return CallRecord(
            id=call.id,
            created_at=call.created_at,
            account_id=payer.account_id,
            key_id=payer.key_id,
            task=wanted.task,
            model=wanted.model,
            domain=wanted.domain,
            stream=wanted.stream,
            status=status,
            code=code,
            endpoint_number=last.candidate.number if last else None,
            price_version=decision.price_version,
            hold_nanos=self.hold.amount_nanos,
            charge_nanos=self.charge_nanos,
            tokens_in=tokens_in,
            tokens_out=tokens_out,
            ttft_ms=ttft_ms(last, attempts, call) if wanted.stream else None,
            duration_ms=(ended_s - call.started_s) * 1_000,
            task_label=call.task_label,
            session_id=call.session_id,
            labels_json=call.labels_json,
            story=story.encode(wanted, decision, attempts, dispatch.end or code, call.started_s),
            answer_tokens_out=answer_length(last, call),
        )
