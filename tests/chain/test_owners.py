"""The owner of a thread must be stored for at least as long as the thread's log."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bridgekit.chain.collaborators import MemoryThreadStore
from bridgekit.chain.link_1_startup import BridgeConfig, start_application
from bridgekit.errors import DeterministicStartupError
from bridgekit.stores import in_memory


async def test_startup_fails_when_a_durable_store_has_owners_in_memory_only() -> None:
    """Otherwise, after a restart, any user could claim a thread and read its retained events."""
    durable = replace(in_memory(), name="sqlite")
    with pytest.raises(DeterministicStartupError, match=r"^link 2: the sqlite store .* db_session_factory") as refused:
        await start_application(BridgeConfig(agents={}), durable)
    assert refused.value.link == 2


async def test_startup_succeeds_when_the_thread_store_fits_the_store() -> None:
    await start_application(
        BridgeConfig(agents={}, db_session_factory=MemoryThreadStore()), replace(in_memory(), name="sqlite")
    )
    await start_application(BridgeConfig(agents={}), in_memory())
