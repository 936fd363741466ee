"""Broken versions of links 6 to 8, each the smallest override of a sound link. See also `broken_links_1_to_5`."""

from __future__ import annotations

import logging
from typing import Any

from bridgekit.chain.link_6_base_agent import BaseAgent
from bridgekit.chain.link_7_8_adapter import WebSocketBridgeAdapter
from bridgekit.chain.link_9_bridge import AgentWebSocketBridge
from bridgekit.events import Answer, EventType, Outcome, Payload, Receipt
from bridgekit.ids import RunId, ThreadId

logger = logging.getLogger(__name__)


class AgentThatTakesTheRunForTheThread(BaseAgent):
    """Link 6, wrong value: passes the run id as the thread id."""

    def set_websocket_bridge(
        self, bridge: AgentWebSocketBridge, run_id: RunId, *, thread_id: ThreadId | None = None
    ) -> None:
        super().set_websocket_bridge(bridge, run_id, thread_id=ThreadId(run_id))


class AgentThatRaises(BaseAgent):
    """Link 6, raises: binding raises an OSError."""

    def set_websocket_bridge(
        self, bridge: AgentWebSocketBridge, run_id: RunId, *, thread_id: ThreadId | None = None
    ) -> None:
        raise OSError("link 6 is broken")


class AgentThatSwallowsItsMistake(BaseAgent):
    """Link 6, swallowed: binds its adapter with missing arguments, and logs the TypeError at debug level."""

    def set_websocket_bridge(
        self, bridge: AgentWebSocketBridge, run_id: RunId, *, thread_id: ThreadId | None = None
    ) -> None:
        adapter: Any = self._websocket_adapter
        try:
            adapter.set_websocket_bridge(bridge)
        except TypeError as error:
            logger.debug("the adapter was not bound: %s", error)


class AgentThatTellsLate(BaseAgent):
    """Link 6, delayed: binds its adapter only after the first event."""

    def set_websocket_bridge(
        self, bridge: AgentWebSocketBridge, run_id: RunId, *, thread_id: ThreadId | None = None
    ) -> None:
        self.waiting = bridge, run_id, thread_id

    async def emit(self, event_type: EventType, payload: Payload) -> Receipt:
        receipt = await super().emit(event_type, payload)
        bridge, run_id, thread_id = self.waiting
        super().set_websocket_bridge(bridge, run_id, thread_id=thread_id)
        return receipt


class AdapterThatTakesTheRunForTheThread(WebSocketBridgeAdapter):
    """Link 7, wrong value: stores the run id as the thread id."""

    def set_websocket_bridge(self, bridge: Any, run_id: RunId, agent_name: str, **given: Any) -> None:
        super().set_websocket_bridge(bridge, run_id, agent_name, thread_id=ThreadId(run_id))


class AdapterThatRefusesItsBridge(WebSocketBridgeAdapter):
    """Link 7, raises: binding raises an OSError."""

    def set_websocket_bridge(self, bridge: Any, run_id: RunId, agent_name: str, **given: Any) -> None:
        raise OSError("link 7 is broken")


class AdapterThatSwallowsItsMistake(WebSocketBridgeAdapter):
    """Link 7, swallowed: binding fails with a TypeError, which the adapter logs at debug level."""

    def set_websocket_bridge(self, bridge: Any, run_id: Any, agent_name: str, **given: Any) -> None:
        try:
            super().set_websocket_bridge(bridge, run_id["id"], agent_name)
        except TypeError as error:
            logger.debug("the adapter was not bound: %s", error)


class AdapterThatKeepsLate(WebSocketBridgeAdapter):
    """Link 7, delayed: stores its binding only after the first request to emit."""

    waiting: tuple[Any, RunId, str, dict[str, Any]] | None = None

    def set_websocket_bridge(self, bridge: Any, run_id: RunId, agent_name: str, **given: Any) -> None:
        self.waiting = bridge, run_id, agent_name, given

    async def emit(self, event_type: EventType, payload: Payload) -> Receipt:
        receipt = await super().emit(event_type, payload)
        if self.waiting is not None:
            bridge, run_id, agent_name, given = self.waiting
            super().set_websocket_bridge(bridge, run_id, agent_name, **given)
        return receipt


class AdapterThatDropsEvents(WebSocketBridgeAdapter):
    """Link 8, not passed on: drops every event."""

    def emit(self, event_type: EventType, payload: Payload) -> Answer:
        return Receipt(outcome=Outcome.REFUSED, link=8, reason="dropped")


class AdapterThatNamesTheRunAsThread(WebSocketBridgeAdapter):
    """Link 8, wrong value: holds the right thread, but puts another thread on the event."""

    def emit(self, event_type: EventType, payload: Payload) -> Answer:
        own_thread, self.thread_id = self.thread_id, ThreadId(f"{self.run_id}")
        try:
            return super().emit(event_type, payload)
        finally:
            self.thread_id = own_thread


class AdapterThatRaises(WebSocketBridgeAdapter):
    """Link 8, raises: emitting raises an OSError."""

    def emit(self, event_type: EventType, payload: Payload) -> Answer:
        raise OSError("link 8 is broken")


class AdapterThatEmitsLate(WebSocketBridgeAdapter):
    """Link 8, delayed: emits events in pairs, the second of each pair first."""

    waiting: tuple[EventType, Payload] | None = None

    async def emit(self, event_type: EventType, payload: Payload) -> Receipt:
        held, self.waiting = self.waiting, (event_type, payload)
        if held is None:
            return Receipt(outcome=Outcome.REFUSED, link=8, reason="delayed")
        self.waiting = None
        receipt = await super().emit(event_type, payload)
        await super().emit(*held)
        return receipt
