"""Which models Triton's clients are told of, and which of them can be called now."""

from __future__ import annotations

import json

from broker.core.catalog import Task
from broker.core.market import Presence
from broker.gateway.index import index_of
from tests.fakes import endpoint, market

INFER = [Task.INFER]
LISTED = [
    endpoint(0, "acme/a", model="m", tasks=INFER),
    endpoint(1, "zeta/a", model="m", tasks=INFER),
    endpoint(2, "zeta/b", model="m", tasks=INFER, version="2"),
    endpoint(3, "zeta/chat", model="talk"),
]
WHERE = market(LISTED, {0: Presence.DOWN, 2: Presence.DRAINING})


def test_a_family_is_ready_in_a_version_where_one_endpoint_of_that_version_is() -> None:
    told = json.loads(index_of(WHERE, LISTED, ready=False))
    assert [(each["name"], each["version"], each["state"], each["reason"]) for each in told] == [
        ("m", "1", "READY", ""),
        ("m", "2", "UNAVAILABLE", "draining"),
        ("acme/a", "1", "UNAVAILABLE", "down"),
        ("zeta/a", "1", "READY", ""),
        ("zeta/b", "2", "UNAVAILABLE", "draining"),
    ]


def test_who_asks_for_what_is_ready_is_told_of_nobody_who_is_away() -> None:
    told = json.loads(index_of(WHERE, LISTED, ready=True))
    assert [each["name"] for each in told] == ["m", "zeta/a"]
