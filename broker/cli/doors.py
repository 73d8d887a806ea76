"""What a command of another room may ask of the broker that runs here, by entry point."""

from __future__ import annotations

from pathlib import Path

from celery import Celery

from broker.cli.local import settings
from broker.cli.state import StateFolder
from broker.worker import create_app


def celery_app(state: Path) -> Celery:
    """Return the Celery app of the broker of a state folder. Raises SettingInvalid."""
    return create_app(settings(StateFolder(state)))
