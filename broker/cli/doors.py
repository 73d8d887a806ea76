"""What a command of another room may ask of the broker that runs here, by entry point."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from celery import Celery

from broker.cli.local import run_with_engine, sealer, settings
from broker.cli.state import StateFolder
from broker.flows.market.tell_market import tell_market
from broker.worker import create_app


def celery_app(state: Path) -> Celery:
    """Return the Celery app of the broker of a state folder. Raises SettingInvalid."""
    folder = StateFolder(state)
    return create_app(replace(settings(folder), valkey_url=folder.valkey_url()))


def market(state: Path, days: float) -> dict[str, Any]:
    """Return the market of the broker of a state folder and its calls of so many days, as told by
    `broker.flows.market.tell_market`. Raises SettingInvalid, Unavailable, RequestMalformed."""
    folder, until = StateFolder(state), datetime.now(UTC)
    since = until - timedelta(days=days)
    return run_with_engine(folder, lambda engine: tell_market(engine, sealer(folder), since, until))
