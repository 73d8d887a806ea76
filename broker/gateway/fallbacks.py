"""Reads `models`: who is asked where none that serves the one before can answer."""

from __future__ import annotations

import msgspec

from broker.core.cascade import Cascade, Stage
from broker.core.columns import AUTO
from broker.errors import RequestMalformed
from broker.gateway.wishes import CHAIN_MAX, CascadeWish, StageWish, Wishes


class _Fallbacks(CascadeWish, frozen=True, kw_only=True):
    """Models that stand in for each other: a chain whose answers are kept whatever they are
    worth."""

    def plan(self) -> Cascade:
        stages = tuple(Stage(each.model, keep_from=0.0) for each in self.chain)
        return Cascade(stages, of_models=True)


def with_fallbacks(model: str, models: list[str], wishes: Wishes) -> tuple[str, Wishes]:
    """Return what is asked first, and wishes by which the next of the models is asked where none
    that serves the one before can. Raises RequestMalformed.

    As other gateways take `models`: after `model`, or, where that is `auto`, alone.
    """
    named = list(dict.fromkeys(models if model == AUTO and models else [model, *models]))
    if len(named) == 1:
        return named[0], wishes
    if wishes.cascade is not None:
        raise RequestMalformed("'models': say either this or broker.cascade.")
    if len(named) > CHAIN_MAX:
        raise RequestMalformed(f"'models': at most {CHAIN_MAX} models, 'model' among them.")
    chain = [StageWish(model=each) for each in named]
    return model, msgspec.structs.replace(wishes, cascade=_Fallbacks(chain=chain))
