"""Who may call what: every endpoint of the control plane against every role, none forgotten."""

from __future__ import annotations

import re

import httpx
import pytest
from litestar import Litestar
from litestar.routes import HTTPRoute

from tests.integration.api.conftest import Person

ID = "00000000-0000-7000-8000-000000000000"
ALL = frozenset({"consumer", "provider", "operator"})
CONSUMER = frozenset({"consumer"})
TRADERS = frozenset({"consumer", "provider"})
OPERATOR = frozenset({"operator"})
PROVIDER = frozenset({"provider"})
NO_CONSUMER = frozenset({"provider", "operator"})
OPEN = ALL | {"stranger"}

RIGHTS = {
    ("GET", "/api/accounts"): OPERATOR,
    ("POST", "/api/accounts"): OPERATOR,
    ("POST", "/api/accounts/{name}/topups"): OPERATOR,
    ("POST", "/api/accounts/{name}/adjustments"): OPERATOR,
    ("POST", "/api/accounts/{name}/close"): OPERATOR,
    ("GET", "/api/accounts/{name}/balance"): OPERATOR,
    ("GET", "/api/accounts/{name}/statement"): OPERATOR,
    ("GET", "/api/accounts/{name}/keys"): ALL,
    ("POST", "/api/accounts/{name}/keys"): ALL,
    ("PATCH", "/api/keys/{key_id}"): ALL,
    ("POST", "/api/keys/{key_id}/rotate"): ALL,
    ("DELETE", "/api/keys/{key_id}"): ALL,
    ("GET", "/api/balance"): TRADERS,
    ("GET", "/api/statement"): TRADERS,
    ("GET", "/api/calls"): ALL,
    ("GET", "/api/calls/{call_id}"): ALL,
    ("DELETE", "/api/calls/{call_id}/content"): ALL,
    ("POST", "/api/calls/{call_id}/feedback"): CONSUMER,
    ("GET", "/api/calls/{call_id}/feedback"): CONSUMER,
    ("POST", "/api/quotes"): CONSUMER,
    ("POST", "/api/route"): CONSUMER,
    ("GET", "/api/quotes/{quote_id}"): CONSUMER,
    ("GET", "/api/prices"): ALL,
    ("GET", "/api/prices/history"): ALL,
    ("GET", "/api/prices/stream"): ALL,
    ("GET", "/api/provider/deployments"): PROVIDER,
    ("POST", "/api/provider/deployments"): PROVIDER,
    ("POST", "/api/provider/deployments/{deployment_id}/verify"): PROVIDER,
    ("DELETE", "/api/provider/deployments/{deployment_id}"): PROVIDER,
    ("POST", "/api/provider/heartbeats"): OPEN,
    ("POST", "/api/provider/deployments/{deployment_id}/receipt-key"): PROVIDER,
    ("DELETE", "/api/provider/deployments/{deployment_id}/receipt-key"): PROVIDER,
    ("POST", "/api/provider/receipts"): PROVIDER,
    ("GET", "/api/calls/{call_id}/receipts"): NO_CONSUMER,
    ("GET", "/api/cases"): NO_CONSUMER,
    ("POST", "/api/cases/{case_id}/close"): OPERATOR,
    ("GET", "/api/deployments"): OPERATOR,
    ("POST", "/api/deployments/{deployment_id}/approve"): OPERATOR,
    ("DELETE", "/api/deployments/{deployment_id}"): OPERATOR,
    ("GET", "/api/audit"): OPERATOR,
    ("GET", "/api/domains"): ALL,
    ("PUT", "/api/domains/{name}"): NO_CONSUMER,
    ("DELETE", "/api/domains/{name}"): NO_CONSUMER,
    ("GET", "/api/suites"): NO_CONSUMER,
    ("GET", "/api/suites/{domain}"): NO_CONSUMER,
    ("PUT", "/api/suites/{domain}"): NO_CONSUMER,
    ("DELETE", "/api/suites/{domain}"): NO_CONSUMER,
    ("GET", "/api/examinations"): ALL,
    ("GET", "/api/examinations/gaps"): OPERATOR,
    ("POST", "/api/examinations"): NO_CONSUMER,
    ("GET", "/api/plans"): NO_CONSUMER,
    ("POST", "/api/plans"): OPERATOR,
    ("POST", "/api/plans/{plan_id}/end"): OPERATOR,
    ("GET", "/api/events"): ALL,
    ("GET", "/api/webhooks"): ALL,
    ("POST", "/api/webhooks"): ALL,
    ("DELETE", "/api/webhooks/{webhook_id}"): ALL,
    ("POST", "/api/webhooks/{webhook_id}/ping"): ALL,
    ("POST", "/api/webhooks/{webhook_id}/rotate"): ALL,
    ("POST", "/api/webhooks/{webhook_id}/enable"): ALL,
    ("POST", "/api/webhooks/{webhook_id}/replay"): ALL,
    ("GET", "/api/webhooks/{webhook_id}/deliveries"): ALL,
    ("GET", "/api/ledger/check"): OPERATOR,
    ("GET", "/api/ledger/health"): OPERATOR,
    ("GET", "/api/calls/{call_id}/postings"): ALL,
    ("GET", "/api/accounts/{name}/invoices"): OPERATOR,
    ("GET", "/api/accounts/{name}/invoices/{month}"): OPERATOR,
    ("POST", "/api/calls/{call_id}/refund-request"): CONSUMER,
    ("POST", "/api/calls/{call_id}/refunds"): OPERATOR,
    ("GET", "/api/credit-notes"): ALL,
    ("GET", "/api/credit-notes/{note_id}"): ALL,
    ("GET", "/api/disputes"): ALL,
    ("GET", "/api/disputes/{dispute_id}"): ALL,
    ("POST", "/api/disputes/{dispute_id}/answer"): PROVIDER,
    ("POST", "/api/disputes/{dispute_id}/decision"): OPERATOR,
    ("POST", "/api/disputes/{dispute_id}/withdrawal"): CONSUMER,
    ("GET", "/api/earnings"): NO_CONSUMER,
    ("PUT", "/api/earnings/{name}/delay"): OPERATOR,
    ("GET", "/api/invoices"): TRADERS,
    ("GET", "/api/invoices/{month}"): TRADERS,
    ("GET", "/api/lost-calls"): NO_CONSUMER,
    ("GET", "/api/payouts"): NO_CONSUMER,
    ("POST", "/api/payouts"): NO_CONSUMER,
    ("GET", "/api/payouts/batches"): OPERATOR,
    ("POST", "/api/payouts/batches/{batch_id}/export"): OPERATOR,
    ("GET", "/api/payouts/terms"): NO_CONSUMER,
    ("PUT", "/api/payouts/terms"): PROVIDER,
    ("GET", "/api/payouts/{payout_id}"): NO_CONSUMER,
    ("POST", "/api/payouts/{payout_id}/confirm"): OPERATOR,
    ("POST", "/api/payouts/{payout_id}/fail"): OPERATOR,
    ("POST", "/api/payouts/{payout_id}/return"): OPERATOR,
    ("GET", "/api/price-advice"): NO_CONSUMER,
    ("GET", "/api/pricing"): NO_CONSUMER,
    ("POST", "/api/pricing"): NO_CONSUMER,
    ("POST", "/api/pricing/{choice_id}/end"): NO_CONSUMER,
    ("GET", "/api/statement/totals"): TRADERS,
    ("GET", "/api/simulations"): OPERATOR,
    ("POST", "/api/simulations"): OPERATOR,
    ("GET", "/api/simulations/scenarios"): OPERATOR,
    ("GET", "/api/simulations/{simulation_id}"): OPERATOR,
    ("GET", "/api/simulations/{simulation_id}/report"): OPERATOR,
    ("POST", "/api/simulations/{simulation_id}/cancel"): OPERATOR,
    ("POST", "/api/stripe-events"): OPEN,
    ("GET", "/health"): OPEN,
    ("GET", "/health/ready"): OPEN,
    ("GET", "/metrics"): OPEN,
}


def described(api: Litestar) -> set[tuple[str, str]]:
    """Every route there is, but for the descriptions under `/api/docs`."""
    return {
        (method, route.path_format)
        for route in api.routes
        if isinstance(route, HTTPRoute) and not route.path_format.startswith("/api/docs")
        for method in route.methods
        if method != "OPTIONS"
    }


async def test_the_table_names_every_route(api: Litestar) -> None:
    assert described(api) == set(RIGHTS)


@pytest.mark.parametrize("role", ["stranger", "consumer", "provider", "operator"])
async def test_each_role_may_do_what_the_table_says_and_nothing_else(
    role: str,
    stranger: httpx.AsyncClient,
    consumer: Person,
    provider: Person,
    operator: Person,
) -> None:
    clients = {
        "stranger": stranger,
        "consumer": consumer.http,
        "provider": provider.http,
        "operator": operator.http,
    }
    for (method, path), allowed in RIGHTS.items():
        if path.endswith("/stream") and role != "stranger":
            continue  # an answer without end; the streams' own tests follow it
        answer = await clients[role].request(method, _filled(path))
        barred = {"stranger": 401}.get(role, 403)
        if role in allowed:
            assert answer.status_code not in (401, 403), (method, path, answer.text)
        else:
            assert answer.status_code == barred, (method, path, answer.text)


def _filled(path: str) -> str:
    filled = path.replace("{name}", "shop").replace("{key_id}", "none")
    return re.sub(r"{\w+_id}", ID, filled)
