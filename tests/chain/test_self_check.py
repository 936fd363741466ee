"""Self-checks: an error that a link raises during its check is attributed to that link, and not to startup."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bridgekit.chain.link_1_startup import BridgeConfig, start_application
from bridgekit.chain.link_2_supervisor_agent import SupervisorAgent
from bridgekit.chain.link_9_bridge import AgentWebSocketBridge
from bridgekit.chain.self_check import check_handover
from bridgekit.errors import DeterministicStartupError
from bridgekit.events import AgentEvent, Receipt
from bridgekit.ids import ThreadId
from bridgekit.stores import in_memory
from bridgekit.transport.hub import Hub
from tests.chain.agents import started

HOLDERS: dict[int, Callable[[SupervisorAgent], Any]] = {
    2: lambda supervisor: supervisor,
    3: lambda supervisor: supervisor.registry,
    4: lambda supervisor: supervisor.engine,
    5: lambda supervisor: supervisor.engine.agent_core,
}
"""The object of each link that holds the application's bridge."""


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


@pytest.mark.parametrize("link", HOLDERS)
@pytest.mark.parametrize("held", ["another bridge", "no bridge"])
async def test_handover_check_names_the_link_when_it_holds_another_bridge(link: int, held: str) -> None:
    application, other = await started(), await started()
    await check_handover(application.bridge, application.supervisor)
    HOLDERS[link](application.supervisor).websocket_bridge = other.bridge if held == "another bridge" else None
    with pytest.raises(DeterministicStartupError, match="holds a bridge other than the application's") as refused:
        await check_handover(application.bridge, application.supervisor)
    assert refused.value.link == link
