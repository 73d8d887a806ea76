"""Of a late attempt and the one beside it, one serves; the other is cut, and told of."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from broker.core.call import OpenAiBody
from broker.core.dispatch import Attempt
from broker.core.metering import Delivered
from broker.core.outcome import Fault, Outcome
from broker.flows.calls.exchange import StreamedAnswer, WholeAnswer
from broker.flows.calls.hedge import Answer, race
from broker.flows.calls.tab import Tab
from broker.upstream.faults import AttemptFailed

LATE_S = 0.02
FIRST, HEDGE = (cast(Attempt, name) for name in ("first", "hedge"))
RESET = Outcome(Fault.RESET)


class Book:
    """As much of a tab as a race looks at; `may_hedge` says whether a second attempt is begun."""

    def __init__(self, after_s: float | None = LATE_S, *, may_hedge: bool = True) -> None:
        self.after_s = after_s
        self.may_hedge = may_hedge
        self.told: list[tuple[object, ...]] = []
        self.dispatch = SimpleNamespace(end=None)
        self.call = SimpleNamespace(body=OpenAiBody(b"", {}, 0, True, False, 3))

    def late_after_s(self, _: Attempt) -> float | None:
        return self.after_s

    def begin_hedge(self) -> Attempt | None:
        self.told.append(("hedge",))
        return HEDGE if self.may_hedge else None

    def win(self, winner: Attempt, loser: Attempt, delivered: Delivered | None) -> None:
        self.told.append(("won", winner, loser, delivered))

    def end_one(self, attempt: Attempt, outcome: Outcome) -> None:
        self.told.append(("ended", attempt, outcome))


class Providers:
    """Make attempts: each answers, or fails, when it is told to."""

    def __init__(self) -> None:
        self.ends: dict[Attempt, asyncio.Future[Answer]] = {}
        self.cut: list[Attempt] = []

    async def make(self, _: Tab, attempt: Attempt) -> Answer:
        end: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.ends[attempt] = end
        try:
            return await end
        except asyncio.CancelledError:
            self.cut.append(attempt)
            raise

    async def begun(self, count: int) -> None:
        async with asyncio.timeout(10.0):
            while len(self.ends) < count:  # noqa: ASYNC110 - the race has no event for it
                await asyncio.sleep(0.001)


class Reader:
    """As much of a stream's reader as is asked of one that lost."""

    ended = False

    def delivered(self, choices: int, *, complete: bool) -> Delivered:
        return Delivered(None, 7, 70, choices=choices, complete=complete)


class Response:
    aborted = False

    def abort(self) -> None:
        self.aborted = True


def whole(tokens_out: int = 1) -> WholeAnswer:
    return WholeAnswer(200, (), b"", Delivered(None, tokens_out, 10))


def streamed() -> tuple[StreamedAnswer, Response]:
    response: Any = Response()
    reader: Any = Reader()
    return StreamedAnswer(response, reader, FIRST, b""), response


@pytest.fixture
def providers() -> Providers:
    return Providers()


def run(book: Book, providers: Providers) -> asyncio.Task[Answer]:
    return asyncio.ensure_future(race(cast(Tab, book), FIRST, providers.make))


async def test_where_none_is_ever_late_no_second_attempt_is_begun(providers: Providers) -> None:
    book = Book(None)
    racing = run(book, providers)
    await asyncio.sleep(2 * LATE_S)
    answer = whole()
    providers.ends[FIRST].set_result(answer)
    assert await racing is answer
    assert book.told == []


async def test_who_answers_in_time_has_no_second_beside_it(providers: Providers) -> None:
    book, answer = Book(60.0), whole()
    racing = run(book, providers)
    await providers.begun(1)
    providers.ends[FIRST].set_result(answer)
    assert await racing is answer
    assert book.told == []
    providers.ends.clear()
    racing = run(book, providers)
    await providers.begun(1)
    providers.ends[FIRST].set_exception(AttemptFailed(RESET))
    with pytest.raises(AttemptFailed):
        await racing
    assert book.told == [], "the only one is the caller's to end"


@pytest.mark.parametrize("winner", [FIRST, HEDGE])
async def test_of_two_the_first_answer_serves_and_the_other_is_cut(
    providers: Providers, winner: Attempt
) -> None:
    book, answer = Book(), whole()
    racing = run(book, providers)
    await providers.begun(2)
    providers.ends[winner].set_result(answer)
    assert await racing is answer
    [loser] = providers.cut
    assert book.told == [("hedge",), ("won", winner, loser, None)]
    assert {winner, loser} == {FIRST, HEDGE}


async def test_where_no_second_may_be_made_the_late_one_is_waited_for(
    providers: Providers,
) -> None:
    book, answer = Book(may_hedge=False), whole()
    racing = run(book, providers)
    await asyncio.sleep(3 * LATE_S)
    providers.ends[FIRST].set_result(answer)
    assert await racing is answer
    assert book.told == [("hedge",)]


async def test_a_whole_answer_that_came_just_behind_is_paid_as_it_came(
    providers: Providers,
) -> None:
    book = Book()
    racing = run(book, providers)
    await providers.begun(2)
    for attempt, tokens_out in ((FIRST, 5), (HEDGE, 5)):
        providers.ends[attempt].set_result(whole(tokens_out))
    await racing
    assert [told[-1] for told in book.told[1:]] == [Delivered(None, 5, 10)]
    assert providers.cut == []


@pytest.mark.parametrize("ended", [False, True])
async def test_a_stream_that_came_just_behind_is_cut_and_paid_for_what_it_had_delivered(
    providers: Providers, ended: bool
) -> None:
    responses = []
    for _ in range(10):  # which of two that are there is taken is left open
        book = Book()
        providers.ends.clear()
        racing = run(book, providers)
        await providers.begun(2)
        answers = {}
        for attempt in (FIRST, HEDGE):
            answers[attempt], response = streamed()
            answers[attempt].reader.ended = ended
            responses.append(response)
            providers.ends[attempt].set_result(answers[attempt])
        taken = await racing
        [(_, winner, loser, delivered)] = book.told[1:]
        assert taken is answers[cast(Attempt, winner)]
        assert delivered == Delivered(None, 7, 70, choices=3, complete=ended)
        assert cast(Any, answers[cast(Attempt, loser)].response).aborted
        assert not cast(Any, taken.response).aborted


@pytest.mark.parametrize(("failing", "other"), [(FIRST, HEDGE), (HEDGE, FIRST)])
async def test_of_two_one_that_fails_is_ended_and_the_other_goes_on(
    providers: Providers, failing: Attempt, other: Attempt
) -> None:
    for answers in (True, False):
        book, answer = Book(), whole()
        providers.ends.clear()
        racing = run(book, providers)
        await providers.begun(2)
        providers.ends[failing].set_exception(AttemptFailed(RESET))
        await asyncio.sleep(0.005)
        assert not racing.done()
        if answers:
            providers.ends[other].set_result(answer)
            assert await racing is answer
        else:
            last = AttemptFailed(Outcome(Fault.MALFORMED))
            providers.ends[other].set_exception(last)
            with pytest.raises(AttemptFailed) as raised:
                await racing
            assert raised.value is last, "which is the caller's to end"
        assert book.told == [("hedge",), ("ended", failing, RESET)]
    assert providers.cut == []


async def test_a_failure_that_ends_the_call_cuts_the_other_attempt(providers: Providers) -> None:
    book = Book()
    racing = run(book, providers)
    await providers.begun(2)
    book.dispatch.end = "no other would do better"
    providers.ends[HEDGE].set_exception(AttemptFailed(RESET))
    with pytest.raises(AttemptFailed):
        await racing
    assert providers.cut == [FIRST]
    assert book.told == [("hedge",), ("ended", HEDGE, RESET)]


async def test_a_fault_of_ours_is_raised_and_cuts_the_other_attempt(providers: Providers) -> None:
    book = Book()
    racing = run(book, providers)
    await providers.begun(2)
    providers.ends[FIRST].set_exception(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        await racing
    assert providers.cut == [HEDGE]
    assert book.told == [("hedge",)]


async def test_a_caller_who_leaves_cuts_both(providers: Providers) -> None:
    racing = run(Book(), providers)
    await providers.begun(2)
    racing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await racing
    assert sorted(map(str, providers.cut)) == ["first", "hedge"]
