"""Broken versions of links 9 and 10, each the smallest override of a sound link. See also `broken_links_1_to_5`.

Link 10 is broken for real sockets only. The startup check uses a connection inside the process and must pass, because a
chain that startup refuses cannot be measured.
"""

from __future__ import annotations

import abc
from typing import Any

from bridgekit.chain.link_9_bridge import AgentWebSocketBridge
from bridgekit.chain.self_check import ProbeConnection
from bridgekit.events import AgentEvent, Frame, Outcome, Receipt
from bridgekit.ids import RunId, ThreadId
from bridgekit.mapping import RunThreadMappingService
from bridgekit.thread_resolvers import Carried, NoRoute, Resolver, route_of
from bridgekit.transport.hub import Connection, Hub
from bridgekit.transport.log import EventLog

__all__ = [
    "BridgeThatOnlySaysSent",
    "BridgeThatRaises",
    "BridgeThatSendsLate",
    "HubThatDeliversLate",
    "HubThatGivesToTheNeighbour",
    "HubThatRaises",
    "HubThatSwallows",
    "HubWithoutThreadsForSockets",
    "route_of_the_last_event",
]


class RouteOfTheLastEvent:
    """Link 9, wrong value: routes an event to the thread of the previous event."""

    previous: ThreadId | None = None

    async def resolve(self, event: AgentEvent) -> ThreadId | NoRoute:
        found = await route_of(Carried(), event)
        route, self.previous = self.previous or found, None if isinstance(found, NoRoute) else found
        return route


def route_of_the_last_event(mapping: RunThreadMappingService) -> Resolver:
    """Return a RouteOfTheLastEvent. `mapping` is not used."""
    return RouteOfTheLastEvent()


class _BridgeThatSendsOtherwise(AgentWebSocketBridge, abc.ABC):
    """Base class of bridges that send events wrongly. Observers are notified as in the sound bridge."""

    async def notify(self, event: AgentEvent) -> Receipt:
        receipt = await self._send(event)
        self.record(event, receipt)
        return receipt

    @abc.abstractmethod
    async def _send(self, event: AgentEvent) -> Receipt:
        """Send the event in the broken way, and return its receipt."""


class BridgeThatRaises(_BridgeThatSendsOtherwise):
    """Link 9, raises: sending raises an OSError."""

    async def _send(self, event: AgentEvent) -> Receipt:
        raise OSError("link 9 is broken")


class BridgeThatOnlySaysSent(_BridgeThatSendsOtherwise):
    """Link 9, swallowed: passes nothing to the hub and reports every event that has a thread as sent."""

    async def _send(self, event: AgentEvent) -> Receipt:
        route = await route_of(self.resolver, event)
        if isinstance(route, NoRoute):
            return Receipt(outcome=Outcome.UNROUTABLE, link=9, reason=route.reason)
        return Receipt(outcome=Outcome.SENT, sockets=1, thread_id=route)


class BridgeThatSendsLate(_BridgeThatSendsOtherwise):
    """Link 9, delayed: sends the events of a run in pairs, the second of each pair first.

    The first event of a pair is reported as sent before it is sent.
    """

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.waiting: dict[RunId, AgentEvent] = {}

    async def _send(self, event: AgentEvent) -> Receipt:
        route = await route_of(self.resolver, event)
        if isinstance(route, NoRoute):
            return Receipt(outcome=Outcome.UNROUTABLE, link=9, reason=route.reason)
        if (held := self.waiting.pop(event.run_id, None)) is None:
            self.waiting[event.run_id] = event
            return Receipt(outcome=Outcome.SENT, sockets=1, thread_id=route)
        receipt = await self.hub.publish(event, route)
        await self.hub.publish(held, route)
        return receipt


class HubWithoutThreadsForSockets(Hub):
    """Link 10, not passed on: registers real sockets without a thread, so that no event reaches them."""

    def _thread_of(self, connection: Connection) -> ThreadId:
        return connection.thread_id if isinstance(connection, ProbeConnection) else ThreadId("")


class HubThatGivesToTheNeighbour(Hub):
    """Link 10, wrong value: delivers a thread's events to the sockets of the previous thread."""

    def deliver(self, thread_id: ThreadId, frame: Frame) -> int:
        threads = list(self._connections)
        return super().deliver(threads[threads.index(thread_id) - 1], frame) if thread_id in threads else 0


class _HubThatBreaksDelivery(Hub, abc.ABC):
    """Base class of hubs that deliver frames to real sockets wrongly."""

    def deliver(self, thread_id: ThreadId, frame: Frame) -> int:
        return sum(
            [
                each.put(frame) if isinstance(each, ProbeConnection) else self._put(each, frame)
                for each in self.connections(thread_id)
            ]
        )

    @abc.abstractmethod
    def _put(self, connection: Connection, frame: Frame) -> bool:
        """Break the delivery of a frame, and return whether the frame counts as accepted."""


class HubThatRaises(_HubThatBreaksDelivery):
    """Link 10, raises: delivering a frame raises an OSError."""

    def _put(self, connection: Connection, frame: Frame) -> bool:
        raise OSError("link 10 is broken")


class HubThatSwallows(_HubThatBreaksDelivery):
    """Link 10, swallowed: counts each frame as accepted and drops it."""

    def _put(self, connection: Connection, frame: Frame) -> bool:
        return True


class HubThatDeliversLate(_HubThatBreaksDelivery):
    """Link 10, delayed: delivers the frames of a socket in pairs, the second of each pair first."""

    def __init__(self, broker: EventLog | None = None) -> None:
        super().__init__(broker)
        self._waiting: dict[Connection, Frame] = {}

    def _put(self, connection: Connection, frame: Frame) -> bool:
        if (held := self._waiting.pop(connection, None)) is None:
            self._waiting[connection] = frame
            return True
        accepted = [connection.put(each) for each in (frame, held)]
        return all(accepted)
