"""The statement as a table, and what moved the balance in sums."""

from __future__ import annotations

from typing import Annotated

from litestar import Controller, Response, get
from litestar.di import NamedDependency, Provide
from litestar.params import QueryParameter
from msgspec.structs import asdict

from broker.api import tables
from broker.api.callers import TRADERS
from broker.api.long_reads import LONG
from broker.api.parts import CallerRequest, GivenCaller, GivenEngine
from broker.api.tables import AskedForm, Form, form_of
from broker.api.wire import STRETCH, GivenStretch, Reply
from broker.errors import RequestMalformed
from broker.flows.money.statement import totals
from broker.store.books.statement_totals import ROWS_MAX, By, Grouping, Sums
from broker.store.books.statements import Span
from pricing.money import format_usd

_By = Annotated[By, QueryParameter(name="by", description="What the entries are summed by.")]
_Label = Annotated[
    str | None,
    QueryParameter(
        name="label", max_length=500, description="With by=label: the name of one of your labels."
    ),
]


def asked_grouping(by: _By, label: _Label = None) -> Grouping:
    """Read what the entries are summed by. Raises RequestMalformed."""
    if (by is By.LABEL) != bool(label):
        fields = [{"field": "label", "in": "query", "problem": "malformed"}]
        raise RequestMalformed("'by=label' goes with 'label', its name.", facts={"fields": fields})
    return Grouping(by, label)


class SumsShown(Reply):
    """What moved the balance: calls, what went back for calls, everything else, and together.

    A call that several endpoints worked for is counted with each.
    """

    calls: int
    calls_usd: str
    credits_usd: str
    other_usd: str
    total_usd: str


class GroupShown(SumsShown):
    """The sums of one group; null is what belongs to none, such as a top-up."""

    group: str | None


class TotalsShown(Reply):
    """The largest groups, the others as one sum where there are more, and the whole."""

    by: By
    label: str | None
    groups: list[GroupShown]
    others: SumsShown | None
    whole: SumsShown


class TotalsController(Controller):
    """`/api/statement/totals`"""

    guards = (TRADERS,)
    tags = ("Money",)

    @get(
        "/statement/totals",
        summary="What moved the balance, in sums",
        dependencies={
            **STRETCH,
            **LONG,
            "grouping": Provide(asked_grouping, sync_to_thread=False),
        },
    )
    async def totals(
        self,
        request: CallerRequest,
        engine: GivenEngine,
        caller: GivenCaller,
        stretch: GivenStretch,
        grouping: NamedDependency[Grouping],
        form: AskedForm = None,
    ) -> TotalsShown | Response[str]:
        span = Span(stretch.since, stretch.until)
        found = await totals(engine, caller, grouping, span)
        others = found.whole
        for _, sums in found.rows:
            others = others.minus(sums)
        shown = TotalsShown(
            by=grouping.by,
            label=grouping.label,
            groups=[_group(group, sums) for group, sums in found.rows],
            others=_shown(others) if len(found.rows) == ROWS_MAX else None,
            whole=_shown(found.whole),
        )
        return _table(shown) if form_of(request, form) is Form.CSV else shown


def _shown(sums: Sums) -> SumsShown:
    return SumsShown(
        calls=sums.calls,
        calls_usd=format_usd(sums.calls_nanos),
        credits_usd=format_usd(sums.credits_nanos),
        other_usd=format_usd(sums.other_nanos),
        total_usd=format_usd(sums.total_nanos),
    )


def _group(group: str | None, sums: Sums) -> GroupShown:
    return GroupShown(group=group, **asdict(_shown(sums)))


def _table(shown: TotalsShown) -> Response[str]:
    """The groups, one a line."""
    columns = ("calls", "calls_usd", "credits_usd", "other_usd", "total_usd")
    groups = list(shown.groups)
    if shown.others is not None:
        groups.append(GroupShown(group="(others)", **asdict(shown.others)))
    lines = [tables.line((tables.words(shown.label or shown.by.value), *columns))]
    lines += [
        tables.line((tables.words(each.group), *(getattr(each, name) for name in columns)))
        for each in groups
    ]
    return tables.answer(lines, f"totals-by-{shown.by.value}.csv")
