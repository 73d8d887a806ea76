"""Builds the control plane: everything under `/api`, beside `/health` and `/metrics`."""

from __future__ import annotations

from importlib.metadata import version

from litestar import Litestar, Router
from litestar.di import Provide
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme
from litestar.types import ASGIApp, BeforeMessageSendHookHandler, Message, Scope
from prometheus_client import CollectorRegistry

from broker.api.access.accounts import AccountController
from broker.api.access.audit import AuditController
from broker.api.access.keys import KeyController
from broker.api.callers import CallerMiddleware, refuse_unknown_query, require_scope
from broker.api.calls.lost_calls import LostCallController
from broker.api.calls.postings import postings_of_call
from broker.api.calls.quotes import QuoteController
from broker.api.calls.route import route_dry
from broker.api.calls.stories import CallController
from broker.api.docs_page import PagePlugin, YamlPlugin
from broker.api.health import alive, ready
from broker.api.large_bodies import BodyRequest
from broker.api.lean import LeanLitestar
from broker.api.long_reads import LongReads
from broker.api.market.deployments import DeploymentController, ProviderController
from broker.api.market.heartbeats import heartbeats
from broker.api.market.price_advice import AdviceController
from broker.api.market.price_texts import PriceTexts
from broker.api.market.prices import PriceController
from broker.api.market.pricing import PricingController
from broker.api.market.simulations import SimulationController
from broker.api.metrics.page import Exposition, count_answers, create_registry, metrics
from broker.api.metrics.tallies import Tallies
from broker.api.money.account_money import AccountMoneyController
from broker.api.money.balance import MoneyController
from broker.api.money.disputes import DisputeController
from broker.api.money.earnings import EarningsController
from broker.api.money.invoices import AccountInvoiceController, InvoiceController
from broker.api.money.ledger import LedgerController
from broker.api.money.payouts import PayoutController
from broker.api.money.plans import PlanController
from broker.api.money.refunds import RefundController
from broker.api.money.statements import TotalsController
from broker.api.money.stripe_events import stripe_events
from broker.api.once import given_once
from broker.api.parts import Parts, dependencies
from broker.api.price_feed import PriceFeed
from broker.api.problems import exception_handlers
from broker.api.quality.domains import DomainController
from broker.api.quality.feedback import feedback_on_call, words_on_call
from broker.api.quality.suites import ExaminationController, SuiteController
from broker.api.receipts.cases import CaseController
from broker.api.receipts.signed import ReceiptController, receipts_of_call
from broker.api.streams import Streams
from broker.api.webhooks.subscriptions import EventController, WebhookController
from broker.flows.calls.quote import QuoteDesk

BODY_BYTES_MAX = 1 << 20


def create_api(
    parts: Parts,
    registry: CollectorRegistry | None = None,
    quotes: QuoteDesk | None = None,
    tallies: Tallies | None = None,
) -> Litestar:
    """Return the control plane over the running broker's parts.

    `registry` takes its metrics and is what `/metrics` shows; a new one when absent. `quotes` is
    where firm quotes are made, for which there must be a data plane; `tallies` are those of this
    process among several workers of one port.
    """
    registry = registry or create_registry(parts)
    feed = PriceFeed(lambda: parts.market, lambda: parts.stopping)
    given = {
        "parts": parts,
        "exposition": Exposition(parts, registry, tallies),
        "feed": feed,
        "streams": Streams("prices"),
        "texts": PriceTexts(parts),
        "quotes": quotes,
        "long_reads": LongReads(),
    }
    return LeanLitestar(
        route_handlers=[_api(parts), heartbeats, alive, ready, metrics],
        dependencies={
            **dependencies(parts),
            **{name: _constant(part) for name, part in given.items()},
            "once": Provide(given_once),
        },
        guards=[refuse_unknown_query],
        exception_handlers=exception_handlers(),
        before_send=[_tell_version(), count_answers(registry)],
        request_max_body_size=BODY_BYTES_MAX,
        request_class=BodyRequest,
        openapi_config=_openapi(),
        logging_config=None,
        debug=False,
    )


def _api(parts: Parts) -> Router:
    def authenticate(app: ASGIApp) -> ASGIApp:
        return CallerMiddleware(app, parts)

    return Router(
        "/api",
        route_handlers=[
            AccountController,
            AccountMoneyController,
            KeyController,
            MoneyController,
            CallController,
            PriceController,
            PricingController,
            AdviceController,
            ProviderController,
            DeploymentController,
            LedgerController,
            postings_of_call,
            QuoteController,
            RefundController,
            DisputeController,
            TotalsController,
            InvoiceController,
            AccountInvoiceController,
            LostCallController,
            AuditController,
            PlanController,
            DomainController,
            feedback_on_call,
            words_on_call,
            route_dry,
            WebhookController,
            EventController,
            ReceiptController,
            CaseController,
            EarningsController,
            PayoutController,
            stripe_events,
            receipts_of_call,
            SimulationController,
            SuiteController,
            ExaminationController,
        ],
        middleware=[authenticate],
        guards=[require_scope],
        security=[{"key": []}],
    )


def _constant(part: object) -> Provide:
    return Provide(lambda: part, sync_to_thread=False)


def _tell_version() -> BeforeMessageSendHookHandler:
    header = (b"x-broker-version", version("model-broker").encode())

    async def tell(message: Message, _: Scope) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], header]

    return tell


def _openapi() -> OpenAPIConfig:
    # No viewer that loads scripts from elsewhere: it would run beside the console's session.
    return OpenAPIConfig(
        title="Model broker",
        version=version("model-broker"),
        path="/api/docs",
        render_plugins=[PagePlugin(), JsonRenderPlugin(), YamlPlugin()],
        components=Components(security_schemes={"key": SecurityScheme("http", scheme="bearer")}),
    )
