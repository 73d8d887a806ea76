"""Reads what a firm quote is asked for as the doors read a call: the same demands, or refused."""

from __future__ import annotations

from uuid import UUID

import msgspec

from broker.core.call import TensorBody
from broker.flows.calls.quote import Draft, Estimate, Read
from broker.gateway.admit import Asked, begun, demands
from broker.gateway.openai import TASKS, parse
from broker.gateway.wishes import read_wishes

_PATH_OF = {task: path for path, task in TASKS.items()}
_NO_BODY = TensorBody((), b"")


def read_demands(told: Estimate | Draft, account_id: UUID) -> Read:
    """Return what an account asks of an endpoint, the body as far as there is one, and the cascade.

    Raises RequestMalformed, UnknownField.
    """
    if isinstance(told, Draft):
        asked, cascade = begun(parse(_PATH_OF[told.task], [], told.body))
        wanted = demands(asked, account_id)
        return msgspec.structs.replace(wanted, quote_id=None), asked.body, cascade
    raw = None if told.wishes is None else msgspec.Raw(told.wishes)
    asked = Asked(
        told.task,
        told.model,
        read_wishes(raw, ()),
        _NO_BODY,
        told.tokens_out_max,
        told.choices,
        told.version,
    )
    asked, cascade = begun(asked)
    wanted = msgspec.structs.replace(
        demands(asked, account_id),
        tokens_in_bound=told.tokens_in,
        tokens_in_expected=told.tokens_in,
        quote_id=None,
    )
    return wanted, _NO_BODY, cascade
