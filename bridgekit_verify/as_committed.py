"""The defects of the audited code, each as the smallest override of a sound link. A variant combines defects.

The defects are those of commit ced61c673 (2025-09-01) in the public history of `netra-systems/zen`, whose line numbers
the audit uses. The defects are named D1 to D10. The classes at the end of the module break links
that are correct in the audited code, to measure each link's effect on delivery.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from bridgekit.chain.context import RunContext
from bridgekit.chain.link_2_supervisor_agent import SupervisorAgent
from bridgekit.chain.link_3_registry import AgentRegistry
from bridgekit.chain.link_4_engine import ExecutionEngine
from bridgekit.chain.link_5_execution_core import AgentExecutionCore, AgentSource
from bridgekit.chain.link_6_base_agent import BaseAgent
from bridgekit.chain.link_7_8_adapter import WebSocketBridgeAdapter
from bridgekit.chain.link_9_bridge import AgentWebSocketBridge
from bridgekit.chain.models_tools_and_owners import LLMManager, SessionFactory, ToolDispatcher
from bridgekit.events import CRITICAL, AgentEvent, Answer, EventType, Outcome, Payload, Receipt
from bridgekit.ids import RunId, ThreadId
from bridgekit.mapping import MappingStore, MemoryMappingStore, RunThreadMappingService
from bridgekit.thread_resolvers import NoRoute
from bridgekit.transport.hub import Connection, Hub

__all__ = [
    "AdapterThatForgetsTheRun",
    "AdapterThatPassesMetadata",
    "AgentThatKeepsTheBridge",
    "CoreThatSharesAgents",
    "DictMapping",
    "EngineWithItsOwnBridge",
    "HubAsCommitted",
    "HubThatAlwaysSaysSent",
    "HubWithoutThreads",
    "Orchestrator",
    "OrchestratorLookup",
    "OrchestratorThatQueriesTheMapping",
    "RegistryThatBindsAtStartup",
    "SupervisorWithItsOwnBridge",
    "self_check_that_cannot_fail",
]

logger = logging.getLogger(__name__)


async def self_check_that_cannot_fail(bridge: AgentWebSocketBridge, supervisor: SupervisorAgent) -> None:
    """D1, link 1: publishes an event to a thread without subscribers, and accepts any receipt as success."""
    event = AgentEvent(type=EventType.PROGRESS_UPDATE, run_id=RunId("startup-test"), agent_name="startup", payload={})
    assert await bridge.hub.publish(event, ThreadId("startup-test")) is not None


class RegistryThatBindsAtStartup(AgentRegistry):
    """D3, link 3: binds agents at startup without the required run id.

    Each binding raises a TypeError, which the registry catches and logs as a warning. The registry then logs the
    number of bound agents.
    """

    def set_websocket_bridge(self, bridge: AgentWebSocketBridge) -> None:
        super().set_websocket_bridge(bridge)
        self.prebound = {name: self.create(name) for name in self.agents}
        self.bound_count = 0
        for name, agent in self.prebound.items():
            try:
                agent.set_websocket_bridge(bridge)  # type: ignore[call-arg]  # D3: link 6 also needs the run id
                self.bound_count += 1
            except Exception as error:
                logger.warning("agent %s was not bound: %s", name, error)
        logger.info("bridge set for %d/%d agents", self.bound_count, len(self.agents))

    def create_bound(self, context: RunContext) -> BaseAgent:
        return self.prebound[context.agent_name]


class CoreThatSharesAgents(AgentExecutionCore):
    """D5, links 5 to 7: shares one agent object per name.

    Each run overwrites the run id that the agent got from the previous run.
    """

    def __init__(self, registry: AgentSource, websocket_bridge: AgentWebSocketBridge) -> None:
        super().__init__(registry, websocket_bridge)
        self._shared: dict[str, BaseAgent] = {}

    def _prepared(self, context: RunContext) -> BaseAgent:
        name = context.agent_name
        agent = self._shared.get(name) or self._shared.setdefault(name, self.registry.create(name))
        agent.set_websocket_bridge(self.websocket_bridge, context.run_id, thread_id=context.thread_id)
        return agent


class AdapterThatPassesMetadata(WebSocketBridgeAdapter):
    """D8, link 8: passes `metadata=` with the five critical events.

    No `notify_*` method accepts `metadata`. The TypeError is caught, and logged only at level DEBUG.
    """

    def emit(self, event_type: EventType, payload: Payload) -> Answer:
        if event_type not in CRITICAL:
            return super().emit(event_type, payload)
        notify: Any = getattr(self.bridge, f"notify_{event_type}", None)
        try:
            notify(self.run_id, self.agent_name, metadata=payload)
        except Exception as error:
            logger.debug("could not emit %s: %s", event_type, error)
        return Receipt(outcome=Outcome.REFUSED, link=8, reason="a TypeError is logged only at level DEBUG")


class Orchestrator:
    """D9b, link 9: an orchestrator without `get_thread_id_for_run`. In the audited code, only mocks have the method."""


class OrchestratorThatQueriesTheMapping(Orchestrator):
    """Fix 2 with `get_thread_id_for_run`, which queries the mapping. The audit names the method, but gives no code."""

    def __init__(self, mapping: RunThreadMappingService) -> None:
        self._mapping = mapping

    async def get_thread_id_for_run(self, run_id: RunId) -> ThreadId | None:
        return await self._mapping.get_thread_id(run_id)


class OrchestratorLookup:
    """D9b, link 9: Fix 2's lookup, which catches and logs the AttributeError, as `Orchestrator` lacks the method."""

    def __init__(self, orchestrator: Orchestrator) -> None:
        self._orchestrator: Any = orchestrator

    async def resolve(self, event: AgentEvent) -> ThreadId | NoRoute:
        try:
            found: ThreadId | None = await self._orchestrator.get_thread_id_for_run(event.run_id)
        except Exception as error:
            logger.debug("thread resolution failed: %s", error)
            return NoRoute("the orchestrator call failed")
        return found or NoRoute("the orchestrator has no thread for the run")


class _LastWins(MemoryMappingStore):
    async def add(self, run_id: RunId, thread_id: ThreadId) -> ThreadId:
        self._evict_due()
        self._routes[run_id] = thread_id
        return thread_id


class DictMapping(RunThreadMappingService):
    """D9e, link 9: Fix 3 as written.

    A second registration moves a run to another thread. After a run's cleanup, its late events are lost.
    """

    def __init__(self, store: MappingStore | None = None) -> None:
        super().__init__(_LastWins(), grace_seconds=0)

    @property
    def known(self) -> Mapping[RunId, ThreadId]:
        """An empty mapping, so that the bridge does not compare an event's thread with the run's mapped thread."""
        return {}


class HubWithoutThreads(Hub):
    """D10, link 10: registers each connection under an empty thread id, so that no event finds a connection."""

    def _thread_of(self, connection: Connection) -> ThreadId:
        return ThreadId("")


class HubThatAlwaysSaysSent(Hub):
    """D10, link 10: reports an event without any subscriber as sent."""

    def publish(self, event: AgentEvent, thread_id: ThreadId) -> Answer:
        return self._reported_as_sent(super().publish(event, thread_id))

    async def _reported_as_sent(self, answer: Answer) -> Receipt:
        receipt = await answer
        return replace(receipt, outcome=Outcome.SENT, sockets=max(receipt.sockets, 1), link=None, reason="")


class HubAsCommitted(HubThatAlwaysSaysSent, HubWithoutThreads):
    """D10, link 10, both defects together: no event reaches a socket, and every event is reported as sent."""


# The classes below break links that are correct in the audited code, to measure each link's effect on delivery.


def _second_bridge(bridge: AgentWebSocketBridge) -> AgentWebSocketBridge:
    """Return a new bridge whose hub has no sockets."""
    return type(bridge)(Hub(), bridge.resolver, bridge.mapping)


class SupervisorWithItsOwnBridge(SupervisorAgent):
    """Link 2 broken: receives the bridge, but passes on another bridge."""

    def __init__(
        self,
        db_session_factory: SessionFactory,
        llm_manager: LLMManager,
        websocket_bridge: AgentWebSocketBridge,
        tool_dispatcher: ToolDispatcher,
        **choices: Any,
    ) -> None:
        super().__init__(db_session_factory, llm_manager, _second_bridge(websocket_bridge), tool_dispatcher, **choices)


class EngineWithItsOwnBridge(ExecutionEngine):
    """Link 4 broken: receives the bridge, but passes on another bridge."""

    def __init__(
        self, registry: AgentSource, websocket_bridge: AgentWebSocketBridge, *, core: type[AgentExecutionCore]
    ) -> None:
        super().__init__(registry, _second_bridge(websocket_bridge), core=core)


class AgentThatKeepsTheBridge(BaseAgent):
    """Link 6 broken: receives the bridge and does not pass it to its adapter."""

    def set_websocket_bridge(
        self, bridge: AgentWebSocketBridge, run_id: RunId, *, thread_id: ThreadId | None = None
    ) -> None:
        self.kept = bridge


class AdapterThatForgetsTheRun(WebSocketBridgeAdapter):
    """Link 7 broken: stores the bridge, but not the run id."""

    def set_websocket_bridge(
        self,
        bridge: AgentWebSocketBridge,
        run_id: RunId,
        agent_name: str,
        *,
        thread_id: ThreadId | None = None,
    ) -> None:
        super().set_websocket_bridge(bridge, run_id, agent_name, thread_id=thread_id)
        self.run_id = None
