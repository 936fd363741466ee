"""What tests of brokers share. Whoever hurts a server starts one of its own."""

from __future__ import annotations

import pytest

from bridgekit.ids import new_id
from bridgekit.storage import redis_line
from bridgekit.transport.broker.redis import ANSWER_SECONDS
from bridgekit.transport.log import redis, redis_listening, redis_sending


@pytest.fixture
def url(redis_url: str) -> str:
    return redis_url


@pytest.fixture
def prefix() -> str:
    """An application that no other test knows of."""
    return f"test-{new_id()}"


@pytest.fixture(autouse=True)
def as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a test before, two of whose publishers took turns, has left of its patience."""
    monkeypatch.setattr(redis, "ANSWER_SECONDS", ANSWER_SECONDS)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that gives up soon what does not answer: for tests in which something is silent for longer."""
    for module in (redis_line, redis_sending):
        monkeypatch.setattr(module, "SILENCE_SECONDS", 0.3)
    monkeypatch.setattr(redis_listening, "ECHO_SECONDS", 0.3)
    monkeypatch.setattr(redis_listening, "PROBE_SECONDS", 0.1)
    monkeypatch.setattr(redis, "CLOSE_SECONDS", 0.3)
