"""Makes the ids of calls: UUID version 7, so that they rise with the time of admission."""

from __future__ import annotations

from uuid import UUID

import uuid_utils
from asyncpg.pgproto.pgproto import UUID as DriverUUID  # noqa: N811 - as the driver names it


def new_call_id() -> tuple[UUID, str]:
    """Return an id, and the same as text.

    One of every call: the driver's own kind of UUID is made in a third of the time of the standard
    library's, whose equal it is, and the text in an eighth.
    """
    made = uuid_utils.uuid7()
    return DriverUUID(made.bytes), str(made)
