"""How deeds are drawn: plain numbers of every size, none of which depends on what came before."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from hypothesis import strategies as st

from tests.integration.money import deeds_of_calls as calls
from tests.integration.money import deeds_of_payouts as payouts
from tests.integration.money import deeds_of_recourse as recourse
from tests.integration.money.deeds import Deed
from tests.integration.money.market import CONSUMERS, PAYERS, PROVIDERS
from tests.integration.money.oracle import CENT

consumers = st.sampled_from(CONSUMERS)
providers = st.sampled_from(PROVIDERS)
payers = st.sampled_from(PAYERS)
places = st.integers(0, 999)
brokers = st.integers(0, 1)
# Sums of two numbers, for of one in a wide range most are near its lower end.
cents = st.builds(lambda cents, nanos: cents * CENT + nanos, st.integers(1, 40), st.integers(0, 99))
amounts = st.one_of(cents, cents, st.integers(1, 2_000_000))
limits = st.none() | cents.map(lambda nanos: 2 * nanos) | st.just(0)
percents = st.none() | st.sampled_from([0, 1, 33, 50, 99, 100, 101])
seldom = st.sampled_from([True, False, False, False, False])
mostly = st.sampled_from([False, True, True, True, True])
keys = st.sampled_from([None, None, None, "k0", "k1"])

_share = st.tuples(
    providers,
    st.sampled_from([100, 77, 10, 0]),
    st.integers(0, len(calls.RATES) - 1),
    st.sampled_from([1_000, 1_234, 0, 10_000]),
)
_shares = st.lists(_share, max_size=3).map(tuple)
_some_shares = st.lists(_share, min_size=1, max_size=3).map(tuple)
_ends = st.sampled_from(
    ["served", "served", "served", "broken", "broken", "unrecorded", "above", "unsummed"]
)
_offers = st.lists(
    st.tuples(providers, st.integers(0, len(calls.RATES) - 1)), min_size=1, max_size=2
).map(tuple)
_lasts_s = st.sampled_from([300, 30])
_tokens = st.tuples(st.integers(1, 20_000), st.integers(1, 5_000))

admissions: st.SearchStrategy[Deed] = st.one_of(
    st.builds(calls.Admit, payer=payers, amount=amounts, broker=brokers),
    st.builds(
        calls.AdmitKeyed,
        payer=payers,
        amount=amounts,
        broker=brokers,
        key=st.sampled_from(["once", "twice"]),
        meaning=st.sampled_from([1, 1, 1, 2]),
    ),
    st.builds(calls.AdmitQuoted, place=places, broker=brokers),
)
settlements: st.SearchStrategy[Deed] = st.builds(
    calls.Settle, place=places, broker=brokers, end=_ends, shares=_shares, anew=mostly
)
oddities: st.SearchStrategy[Deed] = st.one_of(
    st.builds(calls.AdmitAgain, place=places, broker=brokers),
    st.builds(
        calls.MakeQuote, consumer=consumers, offers=_offers, tokens=_tokens, lasts_s=_lasts_s
    ),
    st.builds(calls.SetBudgets, consumer=consumers, limits=st.tuples(limits, limits, limits)),
    st.builds(calls.Sweep),
)
_word: dict[str, Any] = {"place": places, "who": st.integers(0, 99)}
_refunds = st.builds(recourse.Refund, place=places, percent=percents, charged=mostly, key=keys)
recourses: st.SearchStrategy[Deed] = st.one_of(
    _refunds,
    st.builds(recourse.OpenDispute, place=places, percent=percents, charged=mostly, foreign=seldom),
    st.builds(recourse.Accept, **_word),
    st.builds(recourse.Contest, **_word),
    st.builds(recourse.Withdraw, **_word),
    st.builds(recourse.Decide, upheld=mostly, percent=percents, **_word),
    st.builds(recourse.DecideOverdue),
)
moves: st.SearchStrategy[Deed] = st.one_of(
    st.builds(payouts.Move, account=consumers, amount=cents, key=keys),
    st.builds(
        payouts.Move,
        account=st.sampled_from([*CONSUMERS, *PROVIDERS]),
        amount=amounts | cents.map(lambda nanos: -nanos),
        key=keys,
    ),
)
_fate = st.sampled_from(["sent", "sent", "failed", "returned"])
earnings: st.SearchStrategy[Deed] = st.one_of(
    st.builds(payouts.Seal, hours=st.sampled_from([1, 2, 30])),
    st.builds(payouts.Mature, provider=providers),
    st.builds(payouts.Mature, provider=providers),
    st.builds(payouts.SetDelay, provider=providers, days=st.integers(0, 3)),
    st.builds(
        payouts.Wish,
        provider=providers,
        schedule=st.sampled_from(["manual", "daily", "weekly"]),
        threshold=st.sampled_from([0, 30_000_000]),
    ),
    st.builds(payouts.PayOut, provider=providers, key=keys),
    st.builds(payouts.PayOut, provider=providers, key=keys),
    st.builds(payouts.PayOutDue),
)
_spans = [timedelta(minutes=each) for each in (1, 20, 90, 1_440, 4_320)]
clock: st.SearchStrategy[Deed] = st.one_of(
    st.builds(calls.PassTime, time=st.sampled_from(_spans)),
    st.builds(calls.ChangeLease, broker=brokers, holds=st.booleans()),
)

Wave = list[Deed]
"""Deeds that are done at once."""

_Waves = st.SearchStrategy[list[Wave]]


def _alone(deeds: st.SearchStrategy[Deed]) -> _Waves:
    return deeds.map(lambda deed: [[deed]])


@st.composite
def _sale(draw: st.DrawFn) -> list[Wave]:
    """A call from its hold to its charge."""
    broker = draw(brokers)
    admit = calls.Admit(payer=draw(payers), amount=draw(amounts), broker=broker)
    # Of the latest call, which is this one unless it was refused.
    settle = calls.Settle(
        place=-1, broker=broker, end="served", shares=draw(_some_shares), anew=True
    )
    return [[admit], [settle]]


@st.composite
def _night(draw: st.DrawFn) -> list[Wave]:
    """Days that pass, a seal, and earnings that mature with it."""
    days, hours = draw(st.integers(1, 3)), draw(st.sampled_from([26, 1]))
    whose = draw(st.lists(providers, min_size=1, max_size=2))
    matured: Wave = [payouts.Mature(provider=each) for each in whose]
    return [[calls.PassTime(time=timedelta(days=days))], [payouts.Seal(hours=hours)], matured]


@st.composite
def _pay_day(draw: st.DrawFn) -> list[Wave]:
    """Days after which what was earned before them is there, a payout, and what becomes of it."""
    matured: list[Wave] = [
        [calls.PassTime(time=timedelta(days=3))],
        [payouts.Seal(hours=26)],
        [payouts.Mature()],
    ]
    steps: list[Wave] = [
        [payouts.TakePayoutOn(place=draw(st.just(-1) | places), to=draw(_fate))] for _ in range(2)
    ]
    return [*matured, [payouts.PayOut()], *steps]


_answer = st.sampled_from([recourse.Contest, recourse.Contest, recourse.Accept])


@st.composite
def _quarrel(draw: st.DrawFn) -> list[Wave]:
    """A dispute, mostly of the latest call, what its providers say at once, and how it ends."""
    latest = draw(mostly)
    call, place = (-1, -1) if latest else (draw(places), draw(places))
    opened = recourse.OpenDispute(place=call, percent=draw(percents), charged=True, foreign=False)
    answers: Wave = [draw(_answer)(place=place, who=who) for who in range(draw(st.integers(1, 3)))]
    end: Deed = recourse.Withdraw(place=place, who=0)
    if draw(mostly):
        upheld, percent = draw(mostly), draw(percents)
        end = recourse.Decide(place=place, who=0, upheld=upheld, percent=percent)
    between: Wave = []
    if draw(seldom):
        between = [recourse.Refund(place=call, percent=draw(percents), charged=True)]
    return [[opened], between, answers, [end]]


@st.composite
def _refund_by_refund(draw: st.DrawFn) -> list[Wave]:
    """A sale that goes back in steps, each perhaps too large."""
    steps = draw(st.lists(percents, min_size=2, max_size=3))
    refunds: list[Wave] = [
        [recourse.Refund(place=-1, percent=percent, charged=True)] for percent in steps
    ]
    return [*draw(_sale()), *refunds]


@st.composite
def _death(draw: st.DrawFn) -> list[Wave]:
    """A broker dies over a call that counts in budgets, is swept away, and is back, or not yet."""
    broker, payer = draw(brokers), draw(consumers)
    limited = calls.SetBudgets(consumer=payer, limits=draw(st.tuples(limits, limits, limits)))
    admit = calls.Admit(payer=f"{payer} tight", amount=draw(amounts), broker=broker)
    back: Wave = [calls.ChangeLease(broker=broker, holds=True)] if draw(mostly) else []
    dies = calls.ChangeLease(broker=broker, holds=False)
    return [[limited], [admit], [dies], [calls.Sweep()], back]


@st.composite
def _next_turn(draw: st.DrawFn) -> list[Wave]:
    """A keyed call that comes to nothing, and two that want its key then."""
    key, payer, amount = draw(st.sampled_from(["once", "twice"])), draw(payers), draw(amounts)
    first, *others = [
        calls.AdmitKeyed(payer=payer, amount=amount, broker=broker, key=key, meaning=1)
        for broker in (0, 0, 1)
    ]
    ended = calls.Settle(place=-1, broker=0, end="broken", shares=(), anew=True)
    return [[first], [ended], list(others)]


_deeds = st.one_of(*[admissions, settlements] * 2, oddities, recourses, moves, earnings)


@st.composite
def _twins(draw: st.DrawFn) -> list[Wave]:
    """The same deed twice at once, at two brokers where it is a broker's."""
    deed = draw(st.one_of(_deeds, _refunds))
    other = replace(deed, broker=1 - deed.broker) if hasattr(deed, "broker") else deed
    return [[deed, other]]


trade: _Waves = st.one_of(
    *[_alone(admissions), _alone(settlements)] * 3, _sale(), _alone(oddities), _alone(moves)
)
aftermath: _Waves = st.one_of(
    *[_sale(), _quarrel(), _pay_day()] * 2,
    _sale(),
    _refund_by_refund(),
    _alone(recourses),
    _alone(earnings),
    _alone(clock),
)
rush: _Waves = st.one_of(
    *[st.lists(_deeds, min_size=2, max_size=3).map(lambda deeds: [deeds]), _twins()] * 2,
    _sale(),
    _death(),
    _next_turn(),
    _night(),
)
