"""Timeouts of tests. They only detect hanging tests, so that no result depends on the speed of the machine."""

from __future__ import annotations

from functools import partial
from typing import Final

import pytest

from bridgekit.stores.redis import log, subscriptions, topology
from bridgekit.stores.sqlite import database

__all__ = ["TIMEOUT_SECONDS", "use_long_timeouts"]

TIMEOUT_SECONDS: Final = 60.0


def use_long_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the stores wait for their file or server as long as a test does.

    By default, a healthy store that gets no CPU for a quarter of a second counts as unavailable, and publishers get
    PENDING or an error. This is correct, but would make unrelated tests fail on a busy machine.
    """
    for module, name in (
        (topology, "OPEN_TIMEOUT_SECONDS"),
        (topology, "CALL_TIMEOUT_SECONDS"),
        (topology, "CONNECT_TIMEOUT_SECONDS"),
        (topology, "UNAVAILABLE_AFTER_SECONDS"),
        (topology, "REPLY_TIMEOUT_SECONDS"),
        (subscriptions, "HEARTBEAT_TIMEOUT_SECONDS"),
        (log, "ANSWER_TIMEOUT_SECONDS"),
        (log, "OPEN_TIMEOUT_SECONDS"),
        (log, "JOIN_TIMEOUT_SECONDS"),
    ):
        monkeypatch.setattr(module, name, TIMEOUT_SECONDS)
    open_database = partial(database.open_database, answer_timeout_seconds=TIMEOUT_SECONDS)
    monkeypatch.setattr(database, "open_database", open_database)
