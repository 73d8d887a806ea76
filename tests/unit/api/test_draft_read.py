"""What a quote is asked for is read where it keeps nobody waiting."""

from __future__ import annotations

import threading
from typing import Any, NoReturn, cast
from uuid import UUID

import pytest

from broker.core.catalog import Task
from broker.core.wire.members import LARGE_BYTES
from broker.errors import RequestMalformed
from broker.flows.access.authenticate import Caller
from broker.flows.calls.quote import Draft, Estimate, QuoteDesk
from broker.store.access.accounts import Role

CALLER = Caller(UUID(int=1), "shop", Role.CONSUMER)


async def test_a_long_draft_is_read_in_a_thread_and_a_short_one_at_once() -> None:
    threads: list[threading.Thread] = []

    def read(told: Estimate | Draft, account_id: UUID) -> NoReturn:
        threads.append(threading.current_thread())
        raise RequestMalformed("It is none.")

    desk = QuoteDesk(cast("Any", None), read)
    for size_bytes in (LARGE_BYTES, LARGE_BYTES + 1):
        with pytest.raises(RequestMalformed):
            await desk.rehearse(CALLER, Draft(Task.CHAT, b" " * size_bytes))
    assert [each is threading.main_thread() for each in threads] == [True, False]
