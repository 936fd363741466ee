"""Self-checks: an error that a link raises during its check is attributed to that link, and not to startup."""

from __future__ import annotations

import pytest

from bridgekit.chain.link_1_startup import BridgeConfig, start_application
from bridgekit.chain.link_9_bridge import AgentWebSocketBridge
from bridgekit.errors import DeterministicStartupError
from bridgekit.events import AgentEvent, Receipt
from bridgekit.ids import ThreadId
from bridgekit.stores import in_memory
from bridgekit.transport.hub import Hub


class HubThatRaises(Hub):
    def publish(self, event: AgentEvent, thread_id: ThreadId) -> Receipt:
        raise OSError("no memory left")


class BridgeThatRaises(AgentWebSocketBridge):
    def notify(self, event: AgentEvent) -> Receipt:
        raise OSError("the store is down")


async def test_startup_error_names_link_10_when_the_hub_raises() -> None:
    with pytest.raises(DeterministicStartupError, match="no memory left") as refused:
        await start_application(BridgeConfig(agents={}, hub=HubThatRaises), in_memory())
    assert refused.value.link == 10


async def test_startup_error_names_link_9_when_the_bridge_raises() -> None:
    with pytest.raises(DeterministicStartupError, match="the store is down") as refused:
        await start_application(BridgeConfig(agents={}, bridge=BridgeThatRaises), in_memory())
    assert refused.value.link == 9
