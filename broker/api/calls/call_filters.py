"""Which calls a list is asked for: each filter is named as the field of a call it is about."""

from __future__ import annotations

import re
from typing import Annotated, Final

import msgspec
from litestar.di import NamedDependency, Provide
from litestar.params import QueryParameter

from broker.api.wire import After, GivenStretch
from broker.errors import RequestMalformed
from broker.flows.calls.read_call import Asked
from broker.store.calls.log import Match

_STATUS: Final = re.compile(r"[1-5](?:[0-9]{2}|xx)")

_Text = Annotated[str | None, QueryParameter(max_length=500)]
_Status = Annotated[
    str | None, QueryParameter(max_length=3, description="Such as 502, or 5xx for all of them.")
]
_Labels = Annotated[
    str | None,
    QueryParameter(
        max_length=10_000,
        description="Each of `name=value,...`, or of a JSON object, among others.",
    ),
]


def asked_use(
    key_id: _Text = None,
    task_label: _Text = None,
    session_id: _Text = None,
    labels: _Labels = None,
) -> Match:
    """Read what the caller says of its calls."""
    told = {"key_id": key_id, "task_label": task_label, "session_id": session_id}
    return Match(_given(told), labels=_labelled(labels) if labels else {})


def asked_service(
    task: _Text = None,
    model: _Text = None,
    domain: _Text = None,
    code: _Text = None,
    status: _Status = None,
) -> Match:
    """Read what was asked for, and how it ended."""
    told = {"task": task, "model": model, "domain": domain, "code": code}
    return Match(_given(told), None if status is None else _statuses(status))


def asked_calls(
    stretch: GivenStretch,
    use: NamedDependency[Match],
    service: NamedDependency[Match],
    endpoint: _Text = None,
    cursor: After = None,
) -> Asked:
    """Return all that the calls must have."""
    match = Match({**use.equal, **service.equal}, service.statuses, labels=use.labels)
    return Asked((stretch.since, stretch.until), cursor, endpoint, match)


GivenAsked = NamedDependency[Asked]
MATCH: Final = {
    "use": Provide(asked_use, sync_to_thread=False),
    "service": Provide(asked_service, sync_to_thread=False),
    "asked": Provide(asked_calls, sync_to_thread=False),
}


def _given(told: dict[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in told.items() if value is not None}


def _statuses(status: str) -> tuple[int, int]:
    if not _STATUS.fullmatch(status):
        raise _malformed("status", "a number such as 502, or 5xx for all of them")
    if status.endswith("xx"):
        return int(status[0]) * 100, int(status[0]) * 100 + 100
    return int(status), int(status) + 1


def _labelled(labels: str) -> dict[str, str]:
    """Return labels that are told as pairs, or, with commas and whatever is in them, as JSON."""
    if not labels.lstrip().startswith("{"):
        return _pairs(labels)
    try:
        told = msgspec.json.decode(labels, type=dict[str, str])
    except msgspec.DecodeError:
        raise _malformed("labels", "a JSON object of texts") from None
    if any("\0" in each for pair in told.items() for each in pair):
        raise _malformed("labels", "without a NUL, which no label has")
    return told


def _pairs(labels: str) -> dict[str, str]:
    pairs = [word.partition("=") for word in labels.split(",")]
    if not all(name.strip() and equals for name, equals, _ in pairs):
        raise _malformed("labels", "of the form name=value,name=value")
    return {name.strip(): value.strip() for name, _, value in pairs}


def _malformed(field: str, form: str) -> RequestMalformed:
    fields = [{"field": field, "in": "query", "problem": "malformed"}]
    return RequestMalformed(f"{field}: not {form}.", facts={"fields": fields})
