"""A caller in a hurry: its deadline passes before a connection stands."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

from tests.integration.gateway.house import Consumer, House, Stall

CHAT = {
    "model": "acme/slow-to-connect",
    "messages": [{"role": "user", "content": "Name a tree"}],
    "broker": {"deadline_s": 0.2},
}
ENOUGH_TO_EJECT = 4


async def test_a_hasty_caller_ejects_no_provider_that_it_could_not_reach_in_time(
    house: House, shop: Consumer
) -> None:
    await house.enrol(Stall(name="acme/slow-to-connect"))
    provider = house.providers["acme/slow-to-connect"]
    port = urlsplit(provider.url).port
    assert port
    await provider.__aexit__(None, None, None)
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        deaf.bind(("127.0.0.1", port))
        deaf.listen(0)
        fillers = [_knock(port) for _ in range(4)]
        try:
            for _ in range(ENOUGH_TO_EJECT):
                answer = await shop.http.post("/v1/chat/completions", json=CHAT)
                assert answer.status_code == 504, answer.text
            story = await house.story(shop, answer.headers["x-broker-call-id"])
        finally:
            for filler in fillers:
                filler.close()
    assert [each["outcome"] for each in story["attempts"]] == ["deadline"]
    listed = (await house.operator.get("/api/prices")).json()["endpoints"]
    assert [each["health"] for each in listed] == ["ready"]


def _knock(port: int) -> socket.socket:
    """Take a place in the queue of connections that nobody accepts."""
    knocking = socket.socket()
    knocking.setblocking(False)
    knocking.connect_ex(("127.0.0.1", port))
    return knocking
