"""Settlements, records and doubts wait for books that are away, and one offends nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from typing import Any, cast
from uuid import UUID

import asyncpg
import pytest
from structlog.testing import capture_logs

from broker.core.ledger import CallRecord, Hold, Settlement, settlement
from broker.core.money.turnover import Turnover
from broker.errors import BrokerError, Unavailable
from broker.flows.books.lane_doubts import DoubtLane
from broker.flows.books.lane_settlements import RecordLane, SettlementLane
from broker.store.books.budgeted_keys import BudgetedKeys
from broker.store.ledger import Connection, SettleResult
from tests.unit.ledger.test_lane import Session, Sessions
from tests.waiting import until

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ACCOUNT, TAKE = UUID(int=1_000), UUID(int=1_001)
AWAY = ConnectionResetError("the line was cut")
REFUSED = ValueError("the books refuse it")
ROWS_MAX = 3


class Kept(Sessions):
    """Remembers the connections that it gave and got back."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[Session] = []
        self.returned: list[Session] = []

    async def acquire(self) -> Session:
        self.given.append(await super().acquire())
        return self.given[-1]

    async def release(self, session: Session, timeout: float) -> None:
        self.returned.append(session)


class Books:
    """What becomes of one statement after the other: it raises, or all is well."""

    def __init__(self) -> None:
        self.ends: list[Exception | None] = []
        """Of statements to come; all is well with those behind."""
        self.hang = False
        self.sent: list[list[int]] = []

    async def take(self, ids: list[int]) -> None:
        self.sent.append(ids)
        if self.hang:
            await asyncio.Event().wait()
        end = self.ends.pop(0) if self.ends else None
        if end is not None:
            raise end


class Settlements(SettlementLane):
    """Sends to such books; those of `gone` find no hold, those of `faulty` are refused."""

    def __init__(self, sessions: Sessions) -> None:
        super().__init__(cast(asyncpg.Pool, sessions), ROWS_MAX, TAKE, BudgetedKeys())
        self.books = Books()
        self.gone: set[int] = set()
        self.faulty: set[int] = set()
        self.recorded: list[bool] = []

    async def _send(self, connection: Connection, items: Sequence[Any]) -> list[SettleResult]:
        sent: list[Settlement] = [each.settlement for each in items]
        await self.books.take([each.call_id.int for each in sent])
        self.recorded += [each.record is not None for each in sent]
        return [self._end(each.call_id.int) for each in sent]

    def _end(self, number: int) -> SettleResult:
        fault = "it is dearer than its hold" if number in self.faulty else None
        return SettleResult(settled=fault is None and number not in self.gone, fault=fault)


class Records(RecordLane):
    def __init__(self, sessions: Sessions) -> None:
        self.turnover = Turnover()
        super().__init__(cast(asyncpg.Pool, sessions), ROWS_MAX, self.turnover)
        self.books = Books()

    async def _send(self, connection: Connection, items: Sequence[CallRecord]) -> Sequence[None]:
        await self.books.take([each.id.int for each in items])
        return [None] * len(items)


class Doubts(DoubtLane):
    """Finds the holds of calls with odd numbers open."""

    def __init__(self, sessions: Kept, settlements: SettlementLane) -> None:
        super().__init__(cast(asyncpg.Pool, sessions), ROWS_MAX, settlements)
        self.books = Books()

    async def _send(self, connection: Connection, items: Sequence[Hold]) -> Sequence[bool]:
        numbers = [each.call_id.int for each in items]
        await self.books.take(numbers)
        return [number % 2 == 1 for number in numbers]


def hold(number: int) -> Hold:
    return Hold(UUID(int=number), ACCOUNT, "key", 1_000, NOW, NOW)


def record(number: int) -> CallRecord:
    made: dict[str, Any] = dict.fromkeys(CallRecord.__struct_fields__)
    made |= {"id": UUID(int=number), "task": "chat", "status": 200, "duration_ms": 5}
    return CallRecord(**made | {"tokens_in": 1, "tokens_out": 2})


def end(number: int, *, recorded: bool = False) -> Settlement:
    return settlement(hold(number), (), NOW, record(number) if recorded else None)


@pytest.fixture
def sessions() -> Kept:
    return Kept()


@pytest.fixture
async def lane(sessions: Kept) -> AsyncIterator[Settlements]:
    lane = Settlements(sessions)
    lane.start()
    yield lane
    await lane.close(0.0)


async def test_settlements_go_in_their_order_and_so_many_at_a_time(lane: Settlements) -> None:
    settled = await asyncio.gather(*(lane.settle(end(number)) for number in range(1, 8)))
    assert settled == [True] * 7
    assert lane.books.sent == [[1, 2, 3], [4, 5, 6], [7]]


async def test_a_second_settlement_of_a_call_waits_for_the_next_statement(
    lane: Settlements,
) -> None:
    await asyncio.gather(*(lane.settle(end(number)) for number in (1, 2, 1, 3)))
    assert lane.books.sent == [[1, 2], [1, 3]]


def waited(lane: Settlements) -> int:
    """How many were told that theirs was durable."""
    return dict(lane.waits.buckets())["+Inf"]


async def test_what_could_not_be_written_goes_again_before_what_came_later(
    lane: Settlements, sessions: Kept
) -> None:
    lane.books.ends = [AWAY, AWAY]
    first = [lane.settle(end(number)) for number in (1, 2)]
    await until(lambda: lane.failures == 1)
    rest = [lane.settle(end(number)) for number in (3, 4)]
    assert await asyncio.gather(*first, *rest) == [True] * 4
    assert lane.books.sent == [[1, 2], [1, 2, 3], [1, 2, 3], [4]]
    assert sessions.opened == 3, "each time on a new connection"


async def test_books_that_could_not_be_written_thrice_are_stuck_until_they_can(
    lane: Settlements,
) -> None:
    for failures, is_stuck in ((2, False), (3, True)):
        lane.books.ends = [AWAY] * failures
        waiting = lane.settle(end(failures))
        await until(partial(_has_failed, lane, failures))
        assert lane.is_stuck is is_stuck
        assert await waiting
        assert (lane.is_stuck, lane.failures) == (False, 0)


def _has_failed(lane: Settlements, failures: int) -> bool:
    return lane.failures == failures


async def test_of_a_batch_that_is_refused_only_the_offender_fails(lane: Settlements) -> None:
    lane.books.ends = [REFUSED, None, REFUSED, REFUSED]
    with capture_logs() as logs:
        made = (lane.settle(end(number)) for number in (1, 2, 3))
        told = await asyncio.gather(*made, return_exceptions=True)
    assert (told[0], told[2]) == (True, True)
    assert isinstance(told[1], BrokerError)
    assert told[1].code == "settlement_refused"
    assert [(each["event"], each["call_id"]) for each in logs] == [
        ("settlement_refused", str(UUID(int=2)))
    ]
    assert lane.books.sent == [[1, 2, 3], [1], [2, 3], [2], [3]]
    assert lane.failures == 0


async def test_what_was_written_or_refused_before_the_books_were_away_does_not_go_again(
    lane: Settlements,
) -> None:
    lane.books.ends = [REFUSED, REFUSED, AWAY]
    made = [lane.settle(end(number)) for number in (1, 2, 3)]
    told = await asyncio.gather(*made, return_exceptions=True)
    assert (isinstance(told[0], BrokerError), told[1:]) == (True, [True, True])
    assert lane.books.sent == [[1, 2, 3], [1], [2, 3], [2, 3]]
    lane.books.sent.clear()
    lane.books.ends = [REFUSED, None, AWAY]
    assert await asyncio.gather(*(lane.settle(end(number)) for number in (4, 5))) == [True, True]
    assert lane.books.sent == [[4, 5], [4], [5], [5]]


async def test_an_offender_is_settled_without_its_record(lane: Settlements) -> None:
    lane.books.ends = [REFUSED]
    with capture_logs() as logs:
        assert await lane.settle(end(1, recorded=True))
    assert [each["event"] for each in logs] == ["call_record_lost"]
    assert lane.recorded == [False]


async def test_a_record_is_made_once_though_its_settlement_goes_twice(lane: Settlements) -> None:
    lane.books.ends = [AWAY]
    made = []

    def draft() -> CallRecord:
        made.append(record(1))
        return made[-1]

    assert await lane.settle(end(1), draft)
    assert (len(made), lane.recorded) == (1, [True])


async def test_only_what_was_settled_here_is_counted(lane: Settlements) -> None:
    lane.gone, lane.faulty = {2}, {3}
    made = (lane.settle(end(number, recorded=True)) for number in (1, 2, 3))
    told = await asyncio.gather(*made, return_exceptions=True)
    assert (told[:2], isinstance(told[2], BrokerError)) == ([True, False], True)
    assert lane.turnover.sums["chat"].tokens_out == 2
    assert waited(lane) == 2


async def test_who_leaves_is_settled_and_a_hold_that_nobody_waits_for_is_closed(
    lane: Settlements,
) -> None:
    lane.settle(end(1, recorded=True)).cancel()
    lane.release(hold(2))
    await until(lambda: lane.books.sent == [[1, 2]])
    await lane.close(10.0)
    assert lane.turnover.sums["chat"].tokens_out == 2
    assert waited(lane) == 1
    assert (lane.books.sent, lane.failures) == ([[1, 2]], 0)


async def test_what_is_refused_for_nobody_is_told_and_holds_nothing_up(lane: Settlements) -> None:
    lane.books.ends = [REFUSED] * 4
    with capture_logs() as logs:
        lane.settle(end(1)).cancel()
        lane.release(hold(2))
        assert await lane.settle(end(3))
    assert [each["event"] for each in logs] == ["settlement_refused"] * 2
    assert (lane.books.sent, lane.failures) == ([[1, 2, 3], [1], [2, 3], [2], [3]], 0)


async def test_what_waits_when_the_time_is_up_is_told_so_and_nothing_more_is_taken(
    lane: Settlements, sessions: Kept
) -> None:
    lane.books.hang = True
    made = [lane.settle(end(number)) for number in range(1, 6)]
    await until(lambda: lane.books.sent)
    lane.release(hold(6))
    made[4].cancel()
    with capture_logs() as logs:
        await lane.close(0.0)
    told = await asyncio.gather(*made[:4], return_exceptions=True)
    assert [type(each) for each in told] == [Unavailable] * 4
    assert [each["call_id"] for each in logs] == [str(UUID(int=number)) for number in range(1, 7)]
    with pytest.raises(Unavailable):
        lane.settle(end(7))
    assert not lane.queue
    assert [each.closed for each in sessions.returned] == [True], "it may be written to still"


async def test_closing_sends_what_waits_and_gives_its_connection_back(
    lane: Settlements, sessions: Kept
) -> None:
    made = [lane.settle(end(number)) for number in range(1, 6)]
    await lane.close(10.0)
    assert [each.result() for each in made] == [True] * 5
    assert not lane.has_died, "it was ended"
    assert sessions.returned == sessions.given
    assert [each.closed for each in sessions.returned] == [True], "it has settings of its own"


async def test_a_lane_with_nothing_to_send_closes_at_once_and_without_a_word(
    sessions: Kept, lane: Settlements
) -> None:
    records, doubts = Records(sessions), Doubts(sessions, lane)
    with capture_logs() as logs:
        async with asyncio.timeout(10.0):
            for each in (doubts, records, lane):
                each.start()
                await asyncio.sleep(0)
                await each.close(60.0)
    assert logs == []


async def test_nothing_is_taken_before_a_lane_has_begun(sessions: Kept) -> None:
    lane = Settlements(sessions)
    assert not lane.has_died
    with pytest.raises(Unavailable):
        lane.settle(end(1))
    await lane.close(0.0)


async def test_records_wait_for_the_books_in_their_order_and_one_offends_no_other(
    sessions: Kept,
) -> None:
    lane = Records(sessions)
    lane.start()
    lane.books.ends = [AWAY, REFUSED, None, None, REFUSED]
    with capture_logs() as logs:
        for number in (1, 2, 3, 4):
            lane.record(record(number))
        await lane.close(10.0)
    assert lane.books.sent == [[1, 2, 3], [1, 2, 3], [1], [2, 3], [4]]
    lost = [each["call_id"] for each in logs if each["event"] == "call_record_lost"]
    assert lost == [str(UUID(int=4))]
    assert lane.turnover.sums["chat"].tokens_out == 8, "lost or not, it was asked for"


async def test_more_records_than_may_wait_are_dropped_and_counted(sessions: Kept) -> None:
    lane = Records(sessions)
    lane.start()
    with capture_logs() as logs:
        for _ in range(11_002):
            lane.record(record(1))
        lane.books.hang = True
        await lane.close(0.0)
    dropped = [each["so_far"] for each in logs if each["event"] == "call_records_dropped"]
    assert dropped[:2] == [1, 1_001]
    assert dropped[2] == 11_002 - sum(map(len, lane.books.sent)), "and at the end all that is lost"
    assert not lane.queue


async def test_of_holds_in_doubt_those_that_are_there_are_closed(lane: Settlements) -> None:
    own = Kept()
    doubts = Doubts(own, lane)
    doubts.start()
    doubts.books.ends = [AWAY]
    for number in range(1, 6):
        doubts.put(hold(number))
    await until(lambda: sum(map(len, lane.books.sent)) == 3)
    assert doubts.books.sent == [[1, 2, 3], [1, 2, 3], [4, 5]]
    assert len(own.given) == 2
    await until(lambda: own.returned == own.given)
    assert sorted(chain(*lane.books.sent)) == [1, 3, 5]
    doubts.books.ends = [REFUSED]
    with capture_logs() as logs:
        doubts.put(hold(7))
        await doubts.close(10.0)
    assert [each["event"] for each in logs] == ["hold_in_doubt"]


async def test_holds_whose_doubt_nobody_settles_are_told_of_at_the_end(
    sessions: Kept, lane: Settlements
) -> None:
    doubts = Doubts(sessions, lane)
    doubts.start()
    doubts.books.ends = [AWAY] * 100
    doubts.put(hold(1))
    await until(lambda: doubts.books.sent)
    with capture_logs() as logs:
        await doubts.close(0.0)
    assert [(each["event"], each["holds"]) for each in logs] == [("holds_in_doubt", 1)]
    assert not doubts.queue


async def test_a_doubt_that_comes_after_the_settlements_have_ended_goes_no_second_time(
    sessions: Kept, lane: Settlements
) -> None:
    doubts = Doubts(sessions, lane)
    doubts.start()
    await lane.close(10.0)
    doubts.put(hold(1))
    await doubts.close(10.0)
    assert doubts.books.sent == [[1]]
