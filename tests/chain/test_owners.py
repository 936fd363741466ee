"""The owner of a thread must be stored for at least as long as the thread's log, and is checked at each run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from bridgekit.chain.link_1_startup import BridgeConfig, start_application
from bridgekit.chain.models_tools_and_owners import MemoryThreadStore, ThreadSession
from bridgekit.errors import DeterministicStartupError, ThreadNotOwned
from bridgekit.ids import ThreadId, UserId
from bridgekit.stores import in_memory
from bridgekit_verify.harness.declared_owners import DeclaredOwners
from tests.chain.agents import Researcher
from tests.factories import ALICE, BOB, THREAD


class OwnSubclass(MemoryThreadStore):
    """A store of an application that still keeps owners in memory."""


class OwnSessions(MemoryThreadStore):
    """A store of an application that keeps owners in memory and has another class of sessions."""

    @asynccontextmanager
    async def session(self) -> AsyncIterator[ThreadSession]:
        yield DeclaredOwners()


def forgetting(threads: MemoryThreadStore) -> Callable[[], AbstractAsyncContextManager[ThreadSession]]:
    @asynccontextmanager
    async def opened() -> AsyncIterator[ThreadSession]:
        async with threads() as session:
            yield session

    return lambda: opened()


IN_MEMORY: dict[str, Callable[[], Any]] = {
    "default": lambda: BridgeConfig(agents={}).db_session_factory,
    "public": MemoryThreadStore,
    "subclass": OwnSubclass,
    "bound method": lambda: MemoryThreadStore().__call__,
    "method of a subclass": lambda: OwnSessions().session,
    "partial": lambda: partial(MemoryThreadStore()),
    "function": lambda: forgetting(MemoryThreadStore()),
}


@pytest.mark.parametrize("store", ["sqlite", "redis"])
@pytest.mark.parametrize("kind", IN_MEMORY)
async def test_startup_fails_when_a_durable_store_has_owners_in_memory_only(kind: str, store: str) -> None:
    """Otherwise, after a restart, any user could claim a thread and read its retained events."""
    config = BridgeConfig(agents={}, db_session_factory=IN_MEMORY[kind]())
    with pytest.raises(DeterministicStartupError, match=f"^link 2: the {store} store .* db_session_factory") as refused:
        await start_application(config, replace(in_memory(), name=store))
    assert refused.value.link == 2


@pytest.mark.parametrize("kind", IN_MEMORY)
async def test_memory_store_accepts_owners_in_memory(kind: str) -> None:
    await start_application(BridgeConfig(agents={}, db_session_factory=IN_MEMORY[kind]()), in_memory())


async def test_startup_succeeds_when_the_thread_store_fits_the_store() -> None:
    config = BridgeConfig(agents={}, db_session_factory=DeclaredOwners())
    await start_application(config, replace(in_memory(), name="sqlite"))


class FirstOwner(MemoryThreadStore):
    """A thread store whose `claim` raises nothing, like an INSERT that ignores conflicts."""

    async def claim(self, thread_id: ThreadId, user_id: UserId) -> None:
        self._owners.setdefault(thread_id, user_id)


class LastOwner(MemoryThreadStore):
    """A thread store whose `claim` replaces the owner, like INSERT OR REPLACE."""

    async def claim(self, thread_id: ThreadId, user_id: UserId) -> None:
        self._owners[thread_id] = user_id


class NoOwner(FirstOwner):
    """A thread store that does not create threads."""

    async def claim(self, thread_id: ThreadId, user_id: UserId) -> None:
        """Does nothing."""


class Suppressing(MemoryThreadStore):
    """A thread store whose sessions roll back after an error, and do not raise it again."""

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[ThreadSession]:
        with suppress(Exception):
            yield self


@pytest.mark.parametrize(
    ("threads", "user"),
    [(FirstOwner, BOB), (LastOwner, BOB), (NoOwner, ALICE), (MemoryThreadStore, BOB), (Suppressing, BOB)],
)
async def test_owner_is_checked_whatever_the_thread_store_raises(threads: Callable[[], Any], user: UserId) -> None:
    config = BridgeConfig(agents={"researcher": Researcher}, db_session_factory=threads())
    application = await start_application(config, in_memory())
    if user is BOB:
        await application.open_thread(THREAD, ALICE)
    with pytest.raises(ThreadNotOwned):
        await application.supervisor.run(agent_name="researcher", thread_id=THREAD, user_id=user, request="")
    with pytest.raises(ThreadNotOwned):
        await application.open_thread(THREAD, user)
    assert await application.bridge.hub.retained(THREAD) == ()
    if user is BOB:
        assert await application.owner_of(THREAD) == ALICE


async def test_startup_succeeds_while_the_database_of_the_owners_is_not_available() -> None:
    def refuse() -> AbstractAsyncContextManager[ThreadSession]:
        raise ConnectionError

    config = BridgeConfig(agents={}, db_session_factory=refuse)
    await start_application(config, replace(in_memory(), name="sqlite"))
