"""How long tests wait for what must come. A bound catches what hangs: how fast a machine is decides nothing."""

from __future__ import annotations

from functools import partial
from types import ModuleType
from typing import Final

import pytest

from bridgekit.stores.sqlite import database

REDIS: tuple[tuple[ModuleType, str], ...] = ()
try:
    from bridgekit.storage import redis as servers
    from bridgekit.storage import redis_door, redis_line
    from bridgekit.transport.log import redis, redis_listening, redis_sending
except ImportError:  # until the Redis store has the interface of `bridgekit.transport.log`
    pass
else:
    REDIS = (
        (servers, "OPEN_SECONDS"),
        (servers, "ASK_SECONDS"),
        (redis_door, "CONNECT_SECONDS"),
        (redis_line, "AWAY_SECONDS"),
        (redis_line, "SILENCE_SECONDS"),
        (redis_sending, "SILENCE_SECONDS"),
        (redis_listening, "ECHO_SECONDS"),
        (redis, "ANSWER_SECONDS"),
        (redis, "OPEN_SECONDS"),
        (redis, "JOIN_SECONDS"),
    )

__all__ = ["PATIENCE_SECONDS", "with_patience"]

PATIENCE_SECONDS: Final = 60.0


def with_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stores that wait for their file or their server as long as a test does.

    As they are, a store that is well and does not get its turn for a quarter of a second is treated as one that is
    away: then a publisher is told so, and that is right. Tests of anything else do not want to hear of it.
    """
    for module, name in REDIS:
        monkeypatch.setattr(module, name, PATIENCE_SECONDS)
    patient = partial(database.open_database, answer_timeout_seconds=PATIENCE_SECONDS)
    monkeypatch.setattr(database, "open_database", patient)
