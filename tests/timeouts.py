"""How long tests wait for what must come. A bound catches what hangs: how fast a machine is decides nothing."""

from __future__ import annotations

from functools import partial
from typing import Final

import pytest

from bridgekit.stores.redis import log, subscriptions, topology
from bridgekit.stores.sqlite import database

__all__ = ["TIMEOUT_SECONDS", "with_patience"]

TIMEOUT_SECONDS: Final = 60.0


def with_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stores that wait for their file or their server as long as a test does.

    As they are, a store that is well and does not get its turn for a quarter of a second is treated as one that is
    away: then a publisher is told so, and that is right. Tests of anything else do not want to hear of it.
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
    patient = partial(database.open_database, answer_timeout_seconds=TIMEOUT_SECONDS)
    monkeypatch.setattr(database, "open_database", patient)
