"""Which broker processes live: each holds an advisory lock for as long as its session lasts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from broker.store.ledger import Connection

_CLASS: Final = 0x6C65  # any number that no other pair of locks begins with


async def register(connection: Connection) -> int:
    """Return a number that no process ever had."""
    return int(
        await connection.fetchval(
            "INSERT INTO broker_processes (started_at, leased_at) VALUES (now(), now())"
            " RETURNING id"
        )
    )


async def take(connection: Connection, process_id: int) -> None:
    """Lock the lease for this session, waiting for a former session of ours to end.

    The server is told to look after the connection, so that the lease of a machine that vanished
    falls free within half a minute.
    """
    await connection.execute(
        "SET tcp_keepalives_idle = 10;"
        " SET tcp_keepalives_interval = 5;"
        " SET tcp_keepalives_count = 3"
    )
    # Before the lock, so that nobody sees a lease that is held again and looks as if never lost.
    await connection.execute(
        "UPDATE broker_processes SET leased_at = now() WHERE id = $1", process_id
    )
    await connection.execute("SELECT pg_advisory_lock($1, $2)", _CLASS, process_id)
    await confirm(connection, process_id)


async def confirm(connection: Connection, process_id: int) -> None:
    """Clear a sweep's suspicion of this process, which holds its lease."""
    await connection.execute(
        "INSERT INTO broker_processes (id, started_at, leased_at) OVERRIDING SYSTEM VALUE"
        " VALUES ($1, now(), now())"
        " ON CONFLICT (id) DO UPDATE SET suspected_at = NULL"
        " WHERE broker_processes.suspected_at IS NOT NULL",
        process_id,
    )


async def give_up(connection: Connection, process_id: int) -> None:
    """End the lease of a process that has settled all its calls."""
    await connection.execute("SELECT pg_advisory_unlock($1, $2)", _CLASS, process_id)
    await forget(connection, [process_id])


async def find_dead(connection: Connection, grace_s: float) -> list[int]:
    """Return the processes whose lease was found free first `grace_s` ago or earlier, and still is.

    Those found free for the first time are marked. The test takes a shared lock, so that two
    sweeps do not take each other for the owner; it lasts to the end of the transaction.
    """
    rows = await connection.fetch(
        "UPDATE broker_processes SET suspected_at = coalesce(suspected_at, now())"
        " WHERE pg_try_advisory_xact_lock_shared($1, id)"
        " RETURNING id, suspected_at <= now() - make_interval(secs => $2) AS dead",
        _CLASS,
        grace_s,
    )
    return [row["id"] for row in rows if row["dead"]]


async def registered(connection: Connection) -> list[int]:
    """Return the processes that live as far as anybody knows: none of them was found dead yet."""
    return [row["id"] for row in await connection.fetch("SELECT id FROM broker_processes")]


async def find_lasting(connection: Connection, least_s: float) -> list[int]:
    """Return the processes that have held their lease for `least_s` at least without a break."""
    rows = await connection.fetch(
        "SELECT id FROM broker_processes"
        " WHERE coalesce(leased_at, started_at) <= now() - make_interval(secs => $2)"
        " AND NOT pg_try_advisory_xact_lock_shared($1, id)",
        _CLASS,
        least_s,
    )
    return [row["id"] for row in rows]


async def forget(connection: Connection, process_ids: Sequence[int]) -> None:
    """Strike off those of the processes that have no open hold."""
    await connection.execute(
        "DELETE FROM broker_processes p WHERE id = ANY($1::integer[])"
        " AND NOT EXISTS (SELECT FROM open_holds o WHERE o.process_id = p.id)",
        process_ids,
    )
