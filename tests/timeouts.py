"""The timeout of tests. It only detects hangs, so it is long enough for a busy machine."""

from __future__ import annotations

from functools import partial
from typing import Final

import pytest

from bridgekit.stores.redis import log, subscriptions, topology
from bridgekit.stores.sqlite import group_commit

__all__ = ["TIMEOUT_SECONDS", "use_long_timeouts"]

TIMEOUT_SECONDS: Final = 60.0


def use_long_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make stores wait for their file or server as long as tests wait.

    By default, a store that does not answer for a quarter of a second counts as unavailable, and publishers get
    PENDING. That is correct, but on a busy machine it would disturb tests of other behaviour.
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
    open_database = partial(group_commit.open_database, answer_timeout_seconds=TIMEOUT_SECONDS)
    monkeypatch.setattr(group_commit, "open_database", open_database)
