"""Plans a cascade: whom each stage may ask, from when on an answer is kept, and what all may cost.

A stage has spares: who else serves its model. One of them answers where another fails, before the
next stage is asked. Each stage is paid once, so the hold is the dearest of each stage, added up.
"""

from __future__ import annotations

from typing import Final

import msgspec
import numpy as np

from broker.core import story
from broker.core.call import Call, OpenAiBody
from broker.core.candidates.eligibility import shortlist
from broker.core.cascade import SAMPLE, Below, Cascade, Stage
from broker.core.catalog import Task
from broker.core.chain import Chain, Group
from broker.core.columns import AUTO, Floats, Numbers
from broker.core.decision import Candidate, Decision
from broker.core.requirements import Requirements
from broker.errors import ModelUnknown, NothingFits
from broker.flows.calls.decide import choose, refusal
from broker.flows.runtime import Runtime
from pricing.money import format_usd

Stages = tuple[list[Decision], list[Group], list[float | None]]
"""What was decided, whom each stage may ask, and from which chance on each keeps an answer; None:
by benefit."""
_LOGPROBS: Final = {Task.CHAT: b"true", Task.COMPLETION: b"1"}
"""As each task asks for the probabilities of tokens."""


def choose_first(
    wanted: Requirements, cascade: Cascade | None, runtime: Runtime, *, counts: bool = True
) -> tuple[Requirements, Cascade | None, Decision]:
    """Return the demands on who is asked first, what may be asked after it, and the decision, which
    may be without a candidate; `counts` as in `refusal`. Raises ModelUnknown.

    Those before the first model that somebody can serve now are skipped and told so, and where all
    are to stand in for each other those that are not here; unless that leaves none.
    """
    if cascade is None or not cascade.stages:
        return wanted, cascade, choose(wanted, runtime, whole=cascade is not None)
    refused: list[tuple[Requirements, Decision]] = []
    for at, stage in enumerate(cascade.stages):
        asked = _of(wanted, stage)
        if cascade.falls_back and not _is_here(asked, runtime):
            continue
        decision = choose(asked, runtime)
        if decision.plan:
            codes = {a.model: refusal(a, d, runtime, counts=counts).code for a, d in refused}
            return *_without_skipped(asked, cascade, at, codes, runtime), decision
        refused.append((asked, decision))
    if not refused:
        return wanted, cascade, choose(wanted, runtime)  # which says that there is no such model
    asked, decision = refused[0]
    return asked, cascade, decision


def _without_skipped(
    asked: Requirements, cascade: Cascade, at: int, codes: dict[str, str], runtime: Runtime
) -> tuple[Requirements, Cascade]:
    """Return demands and cascade from the stage `at` on; `codes` are of those before that are
    here."""
    kept = cascade.stages[at:]
    if cascade.falls_back:
        kept = tuple(each for each in kept if _is_here(_of(asked, each), runtime))
    skipped = tuple(
        f"{each.model}: {codes.get(each.model, ModelUnknown.code)}"
        for each in cascade.stages
        if each not in kept
    )
    if not skipped:
        return asked, cascade
    asked = msgspec.structs.replace(asked, skipped=skipped)
    return asked, msgspec.structs.replace(cascade, stages=kept)


def _of(wanted: Requirements, stage: Stage) -> Requirements:
    return msgspec.structs.replace(wanted, model=stage.model)


def _is_here(wanted: Requirements, runtime: Runtime) -> bool:
    return shortlist(wanted, runtime.market) is not None


def lay_out(call: Call, first: Decision, runtime: Runtime) -> tuple[Call, Decision]:
    """Return the call as it is sent, and whom it goes to. Raises as `plan_cascade` does."""
    assert call.cascade is not None
    wanted, chain = plan_cascade(call.cascade, call.wanted, first, runtime)
    if wanted is not call.wanted:
        call = msgspec.structs.replace(call, wanted=wanted)
    return asking_for_logprobs(call), chain


def plan_cascade(
    cascade: Cascade, wanted: Requirements, first: Decision, runtime: Runtime
) -> tuple[Requirements, Chain]:
    """Return the demands with whom the plan skips, and the plan; `first` is the decision of the
    first stage, and has candidates.

    Raises NothingFits where the whole may cost more than the caller allows, ModelUnknown.
    """
    skipped: tuple[str, ...] = ()
    if cascade.stages:
        (decisions, groups, keep_from), skipped = _named(cascade, wanted, first, runtime)
    else:
        decisions, groups = [first], _best_then_better(first, runtime)
        keep_from = [None] * (len(groups) - 1) + [0.0]
    if cascade.below is Below.DEAREST:
        _add_dearest(cascade, wanted, (decisions, groups, keep_from), runtime)
    second = None
    if cascade.agreement not in (None, SAMPLE):
        asked = msgspec.structs.replace(wanted, model=cascade.agreement)
        second = next(iter(choose(asked, runtime).plan), None)
    chain = _joined(decisions, groups, tuple(keep_from))
    chain = msgspec.structs.replace(chain, second=second, samples=cascade.agreement == SAMPLE)
    chain = within(chain, wanted.max_cost_nanos)
    if skipped:
        wanted = msgspec.structs.replace(wanted, skipped=wanted.skipped + skipped)
    return wanted, chain


def _named(
    cascade: Cascade, wanted: Requirements, first: Decision, runtime: Runtime
) -> tuple[Stages, tuple[str, ...]]:
    """Plan those of each stage that no stage before has taken; a stage that nobody can serve at
    the moment is left out, and told as skipped."""
    decisions, groups, skipped = [first], [first.plan], []
    keep_from: list[float | None] = [cascade.stages[0].keep_from]
    for stage in cascade.stages[1:]:
        asked = _of(wanted, stage)
        decision = choose(asked, runtime)
        if not decision.plan:
            # It is no demand: others serve the call.
            code = refusal(asked, decision, runtime, counts=False).code
            skipped.append(f"{stage.model}: {code}")
        taken = {each.number for group in groups for each in group}
        free = tuple(each for each in decision.plan if each.number not in taken)
        if free:
            decisions.append(decision)
            groups.append(free)
            keep_from.append(stage.keep_from)
    return (decisions, groups, keep_from), tuple(skipped)


def _best_then_better(decision: Decision, runtime: Runtime) -> list[Group]:
    """Return the best candidate, then that of the best expected quality of the others; each with
    those who serve the same model."""
    first, *others = decision.plan
    expected, eligible = decision.parts[0], decision.eligible
    quality = {each.number: expected[(eligible == each.number).argmax()] for each in others}

    def model_of(candidate: Candidate) -> str:
        return runtime.market.endpoint(candidate.number).model

    spares = tuple(each for each in others if model_of(each) == model_of(first))
    better = sorted(others, key=lambda each: -quality[each.number])
    # Another endpoint of the same model is a spare, unless there is no other model.
    better = [each for each in better if each not in spares] or better
    if not better:
        return [(first,)]
    alike = tuple(each for each in better if model_of(each) == model_of(better[0]))
    return [(first, *(each for each in spares if each not in alike)), alike]


def _add_dearest(cascade: Cascade, wanted: Requirements, plan: Stages, runtime: Runtime) -> None:
    """Add the dearest of all to a plan, as the last; unless it comes first in a stage, and so is
    asked anyway. It is nobody's spare then."""
    decisions, groups, keep_from = plan
    everyone = decisions[0]
    if wanted.model != AUTO:
        everyone = choose(msgspec.structs.replace(wanted, model=AUTO), runtime)
    if not everyone.eligible.size:
        return
    dearest = int(everyone.eligible[everyone.costs_picos.argmax()])
    if any(group[0].number == dearest for group in groups):
        return
    name = runtime.market.endpoint(dearest).name
    decision = choose(msgspec.structs.replace(wanted, model=name), runtime)
    if decision.plan:
        if not cascade.stages:
            keep_from[-1] = cascade.keep_from
        groups[:] = [tuple(one for one in each if one.number != dearest) for each in groups]
        decisions.append(decision)
        groups.append(decision.plan[:1])
        keep_from.append(0.0)


def _joined(
    decisions: list[Decision], groups: list[Group], keep_from: tuple[float | None, ...]
) -> Chain:
    # Of very many eligible no more than the story tells: to join all of them took 2 ms.
    thin = [story.thin(each) for each in decisions]
    rows = np.concatenate(_of_one_height([each.rows for each in thin]), axis=1, dtype=np.float64)
    eligible, places = np.unique(
        np.concatenate([each.eligible for each in thin]), return_index=True
    )
    first = thin[0]
    by_place = tuple(at for at, group in enumerate(groups) for _ in group)
    plan = tuple(each for group in groups for each in group)
    left_out = _different([each.eligible for each in decisions]) - eligible.size
    told = (first.rejected, first.reasons, first.price_version, first.value_nanos, left_out)
    return Chain(plan, eligible, rows[:, places], *told, by_place, keep_from)


def _different(numbers: list[Numbers]) -> int:
    """Return how many different endpoints these are."""
    there = np.zeros(1 + max(int(each.max(initial=-1)) for each in numbers), dtype=np.bool_)
    for each in numbers:
        there[each] = True
    return int(np.count_nonzero(there))


def _of_one_height(figures: list[Floats]) -> list[Floats]:
    """Return figures with as many rows each: who was not drawn from had no chance to be drawn."""
    height = max(len(each) for each in figures)
    return [
        each
        if len(each) == height
        else np.vstack((each, np.zeros((height - len(each), each.shape[1]))))
        for each in figures
    ]


def within(chain: Chain, most_nanos: int | None) -> Chain:
    """Return the plan, without the dearest of stages that have others if it would cost too much.

    Raises NothingFits where it would even with the cheapest of each stage alone.
    """
    if most_nanos is None:
        return chain
    while chain.hold_nanos > most_nanos:
        place = _too_dear(chain)
        if place is None:
            raise _beyond(chain)
        chain = msgspec.structs.replace(
            chain,
            plan=chain.plan[:place] + chain.plan[place + 1 :],
            by_place=chain.by_place[:place] + chain.by_place[place + 1 :],
        )
    return chain


def _too_dear(chain: Chain) -> int | None:
    """Return the place in the plan of the dearest that its stage can do without; of those that come
    first in theirs only where no spare is dearer. None: there is none."""
    ceilings = [each.ceiling_nanos for each in chain.plan]
    stages = chain.by_place
    others = [at for at, stage in enumerate(stages) if stages.count(stage) > 1]
    spares = [at for at in others if ceilings[at] > ceilings[stages.index(stages[at])]]
    return max(spares or others, key=lambda at: ceilings[at], default=None)


def _beyond(chain: Chain) -> NothingFits:
    return NothingFits(
        f"All answers of this cascade may cost {format_usd(chain.hold_nanos)} USD together, "
        "which is above broker.max_cost.",
        code="nothing_within_price",
    )


def asking_for_logprobs(call: Call) -> Call:
    """Return the call of a cascade as it is sent: it asks how sure a model is of its tokens, unless
    models merely stand in for each other, where that tells nothing that matters."""
    body = call.body
    assert isinstance(body, OpenAiBody)
    assert call.cascade is not None
    if call.cascade.of_models or _asked_by_caller(body):
        return call
    raw = msgspec.Raw(_LOGPROBS[call.wanted.task])
    members = {**body.members, "logprobs": raw}
    return msgspec.structs.replace(
        call,
        body=msgspec.structs.replace(body, members=members),
        cascade=msgspec.structs.replace(call.cascade, hides_logprobs=True),
    )


def _asked_by_caller(body: OpenAiBody) -> bool:
    raw = body.members.get("logprobs")
    return raw is not None and bytes(raw) not in (b"false", b"null")
