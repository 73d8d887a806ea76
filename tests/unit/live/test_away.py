"""A Valkey that is away is told at once and each half minute, with what to do, and its end."""

from __future__ import annotations

from structlog.testing import capture_logs

from broker.live.connection import AGAIN_S, Valkey


async def test_a_minute_without_valkey_is_three_lines_with_advice_and_one_of_its_end() -> None:
    now_s = 1_000.0
    valkey = Valkey("redis://127.0.0.1:1", now_s=lambda: now_s)
    with capture_logs() as logs:
        for _ in range(int(2 * AGAIN_S) + 1):
            valkey.failed(OSError("refused"))
            now_s += 1.0
        for _ in range(2):
            valkey.succeeded()
    away, back = logs[:-1], logs[-1]
    assert [each["event"] for each in away] == ["valkey_away"] * 3
    assert all(
        each["error"] == "refused" and "restart no broker" in each["advice"] for each in away
    )
    assert back == {"event": "valkey_back", "log_level": "info", "after_s": 2 * AGAIN_S + 1}
