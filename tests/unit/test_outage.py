"""What fails again and again is told now and then, with what to do, and when it is over."""

from __future__ import annotations

import asyncio
import logging
import socket
from pathlib import Path
from types import SimpleNamespace

import asyncpg
import pytest
from celery.beat import SchedulingError
from sqlalchemy.exc import DBAPIError
from structlog.testing import capture_logs

from broker.flows.process.outage import AGAIN_S, Outage
from broker.jobs.quieting import Quieting
from broker.store.away import told


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


def an_outage(clock: Clock) -> Outage:
    return Outage("ledger_away", "ledger_back", "see to it", clock)


def test_a_thousand_failures_of_half_a_minute_are_two_lines_and_its_end_is_one() -> None:
    clock = Clock()
    outage = an_outage(clock)
    with capture_logs() as logs:
        for _ in range(1_000):
            outage.met(OSError("no way"), holds=3)
            clock.now_s += 1 / 32
        outage.over()
        outage.over()
    assert logs == [
        {
            "event": "ledger_away",
            "log_level": "warning",
            "error": "OSError: no way",
            "holds": 3,
            "advice": "see to it",
        },
        {
            "event": "ledger_away",
            "log_level": "warning",
            "error": "OSError: no way",
            "holds": 3,
            "times": 961,
            "advice": "see to it",
        },
        {"event": "ledger_back", "log_level": "info", "after_s": 31.2, "times": 1_000},
    ]


def test_what_comes_and_goes_each_second_is_told_no_more_often() -> None:
    clock = Clock()
    outage = an_outage(clock)
    with capture_logs() as logs:
        for _ in range(int(2 * AGAIN_S) + 1):
            outage.met(TimeoutError())
            outage.over()
            clock.now_s += 1.0
    assert [each["event"] for each in logs] == ["ledger_away", "ledger_back"] * 3
    assert logs[0]["error"] == "TimeoutError", "which has no words of its own"


def test_one_of_an_hour_ago_is_not_counted_with_one_of_now() -> None:
    clock = Clock()
    outage = an_outage(clock)
    with capture_logs() as logs:
        outage.met(OSError())
        clock.now_s += 3_600.0
        outage.met(OSError())
    assert "times" not in logs[1]


def _wrapped(error: Exception) -> DBAPIError:
    """As SQLAlchemy raises what the driver did."""
    adapted = Exception("adapted")
    adapted.__cause__ = error
    return DBAPIError("SELECT 1", None, adapted)


def test_what_sqlalchemy_wraps_is_told_in_the_drivers_own_words() -> None:
    error = asyncpg.CannotConnectNowError("the database system is starting up")
    assert told(_wrapped(error)) == "CannotConnectNowError: the database system is starting up"


def _record(error: Exception, name: str = "celery.app.trace", job: str = "") -> logging.LogRecord:
    exc_info = (type(error), error, error.__traceback__)
    record = logging.LogRecord(name, logging.ERROR, "", 0, "failed", (), exc_info)
    record.data = {"name": job}
    return record


def test_jobs_that_find_no_database_or_valkey_are_two_lines_and_other_faults_are_told() -> None:
    quieting = Quieting()
    away = _wrapped(asyncpg.CannotConnectNowError("the database system is starting up"))
    with capture_logs() as logs:
        for _ in range(100):
            assert not quieting.filter(_record(away, job="broker.sweep"))
            assert not quieting.filter(_record(SchedulingError("connection refused")))
    assert [(each["event"], each.get("job")) for each in logs] == [
        ("jobs_wait_for_the_database", "broker.sweep"),
        ("jobs_wait_for_valkey", None),
    ]
    assert quieting.filter(_record(ValueError("a bug")))
    assert quieting.filter(_record(_wrapped(asyncpg.UniqueViolationError("twice"))))


async def test_a_file_that_a_job_cannot_open_is_no_database_that_is_away() -> None:
    quieting = Quieting()
    with pytest.raises(FileNotFoundError) as met:
        Path("/nowhere/at/all").read_bytes()
    with capture_logs() as logs:
        assert quieting.filter(_record(met.value, job="broker.sweep")), "told in full"
        assert quieting.filter(_record(TimeoutError("its provider is slow"), job="broker.sweep"))
    assert logs == []
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        place = f"postgresql://127.0.0.1:{deaf.getsockname()[1]}/broker"
        with pytest.raises(TimeoutError) as late:
            async with asyncio.timeout(0.1):
                await asyncpg.connect(place)
    with pytest.raises(OSError, match="Connect call failed") as refused:
        await asyncpg.connect(place)
    with capture_logs() as logs:
        for error in (late.value, refused.value):
            assert not quieting.filter(_record(error, job="broker.sweep"))
    assert [each["event"] for each in logs] == ["jobs_wait_for_the_database"]


def test_a_worker_that_cannot_read_its_orders_waits_for_valkey() -> None:
    with capture_logs() as logs:
        lost = _record(ConnectionResetError(), "celery.worker.consumer.consumer")
        assert not Quieting().filter(lost)
    assert [each["event"] for each in logs] == ["jobs_wait_for_valkey"]


def test_the_first_order_and_the_first_success_of_what_had_failed_say_that_jobs_go_on() -> None:
    quieting = Quieting()
    away = _wrapped(asyncpg.CannotConnectNowError("the database system is starting up"))
    with capture_logs() as logs:
        quieting.filter(_record(away, job="broker.sweep"))
        quieting.filter(_record(SchedulingError("connection refused")))
        quieting.succeeded(SimpleNamespace(name="broker.clean_up"))  # which may have asked nothing
        assert len(logs) == 2
        for _ in range(2):
            quieting.succeeded(SimpleNamespace(name="broker.sweep"))
            quieting.ordered(sender="broker.sweep")
    assert [(each["event"], each["of"]) for each in logs[2:]] == [
        ("jobs_go_on", "postgresql"),
        ("jobs_go_on", "valkey"),
    ]
