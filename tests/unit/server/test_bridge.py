"""An app that is served only where somebody asks for it takes nothing until then."""

from __future__ import annotations

from broker.server.bridge import App, Message, Receive, Scope, Send, when_asked


async def test_an_app_is_built_when_it_is_first_asked_for_and_once() -> None:
    built, told = list[App](), list[Message]()

    async def app(scope: Scope, _: Receive, send: Send) -> None:
        await send(scope)

    def build() -> App:
        built.append(app)
        return app

    async def receive() -> Message:
        return {}

    async def send(message: Message) -> None:
        told.append(message)

    asked = when_asked(build)
    assert not built
    for path in ("/console", "/console/login"):
        await asked({"path": path}, receive, send)
    assert told == [{"path": "/console"}, {"path": "/console/login"}]
    assert len(built) == 1
