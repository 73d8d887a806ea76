"""Turns every error into an RFC 9457 problem: the one place of the control plane that does."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec
import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException
from litestar.types import ExceptionHandlersMap

from broker.core.wire.complaints import worded
from broker.errors import BrokerError, RequestMalformed, Unavailable, ValueUnkeepable
from broker.store.away import is_database_away, is_unkeepable
from pricing.money import MoneyError

MEDIA_TYPE = "application/problem+json"

_CODES = {
    400: "request_malformed",
    401: "invalid_api_key",
    403: "not_allowed",
    404: "not_found",
    405: "method_not_allowed",
    413: "body_too_large",
    415: "media_type_not_served",
    429: "too_many_calls",
    503: "unavailable",
}

_BODY = "data"
"""What Litestar calls the parameter that takes the body."""

Answer = Response[dict[str, Any]]


def exception_handlers() -> ExceptionHandlersMap:
    """The table that Litestar looks errors up in, the most special class first."""
    return {
        BrokerError: _broker_error,
        HTTPException: _http_error,
        MoneyError: _money_error,
        Exception: _any_error,
    }


def problem(error: BrokerError) -> Answer:
    """Render one error; its facts become members beside the standard ones."""
    headers: dict[str, str] = {}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(max(1, round(error.retry_after_s)))
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    return _render(error.status, error.code, error.detail, headers=headers, facts=error.facts)


def _broker_error(_: Request[Any, Any, Any], error: BrokerError) -> Answer:
    return problem(error)


def _money_error(_: Request[Any, Any, Any], error: MoneyError) -> Answer:
    return problem(RequestMalformed(str(error), code="amount_invalid"))


def _http_error(request: Request[Any, Any, Any], error: HTTPException) -> Answer:
    status = error.status_code
    code = _CODES.get(status, "request_refused" if status < 500 else "internal_error")
    if isinstance(error, ValidationException):
        detail, fields = _faults(request, error)
        return _render(status, code, detail, facts={"fields": fields} if fields else {})
    return _render(status, code, _detail(request, error), headers=error.headers)


def _detail(request: Request[Any, Any, Any], error: HTTPException) -> str:
    if error.status_code >= 500:
        return "Something broke in the broker."
    if error.status_code == HTTPStatus.NOT_FOUND:
        return f"There is nothing at {request.url.path}. GET /api/docs lists what there is."
    if error.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        most = request.route_handler.resolve_request_max_body_size()
        return f"A body has at most {most:,} bytes here."
    return error.detail


def _faults(
    request: Request[Any, Any, Any], error: ValidationException
) -> tuple[str, list[dict[str, str]]]:
    """The sentence and the fields that it speaks of."""
    raw = error.extra if isinstance(error.extra, list) else []
    fields = [
        {
            "field": _written(str(each.get("key") or "body")),
            "in": str(getattr(each.get("source"), "value", each.get("source") or "body")),
            "problem": _problem(request, str(each.get("key")), str(each.get("message", ""))),
        }
        for each in raw
        if isinstance(each, dict)
    ]
    if not fields:
        return error.detail, []
    return "; ".join(f"{each['field']}: {each['problem']}" for each in fields), fields


def _written(name: str) -> str:
    """The name on the wire of a parameter that Python keeps another name for."""
    return {"since": "from", "until": "to", _BODY: "body"}.get(name, name)


def _problem(request: Request[Any, Any, Any], key: str, message: str) -> str:
    """What is wrong with a parameter, or with a place in the body."""
    if message == repr(key):
        return "is missing"
    kinds = {
        name: each.raw
        for name, each in request.route_handler.parsed_fn_signature.parameters.items()
    }
    if key in kinds:
        return worded(message, kinds[key], "")
    return worded(message, kinds.get(_BODY), key)


def _any_error(request: Request[Any, Any, Any], error: Exception) -> Answer:
    if is_database_away(error):
        structlog.get_logger("broker.api").warning("database_away", path=request.url.path)
        return problem(Unavailable("The database cannot be used now.", retry_after_s=1))
    if isinstance(error, RecursionError):
        return problem(RequestMalformed("The body is nested too deeply."))
    if isinstance(error, UnicodeDecodeError):
        return problem(RequestMalformed("The body is not UTF-8."))
    if is_unkeepable(error):
        return problem(ValueUnkeepable())
    structlog.get_logger("broker.api").error(
        "request_broke", method=request.method, path=request.url.path, exc_info=error
    )
    return problem(BrokerError("Something broke in the broker."))


def _render(
    status: int,
    code: str,
    detail: str,
    *,
    headers: Mapping[str, str] | None = None,
    facts: Mapping[str, object] | None = None,
) -> Answer:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "Error"
    body = {
        **msgspec.to_builtins(dict(facts or {})),
        "type": f"urn:model-broker:{code}",
        "title": phrase,
        "status": status,
        "detail": detail,
        "code": code,
    }
    return Response(body, status_code=status, media_type=MEDIA_TYPE, headers=dict(headers or {}))
