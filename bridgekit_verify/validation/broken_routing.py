"""Links 9 and 10 broken, each as the smallest override of a sound one; `broken_handover` breaks links 1 to 5.

Link 10 is broken for real sockets only. The startup check uses a connection inside the process and must pass: a defect
that startup detects never reaches a measurement.
"""

from __future__ import annotations

import abc
from typing import Any

from bridgekit.chain.link_9_bridge import AgentWebSocketBridge
from bridgekit.chain.self_check import ProbeConnection
from bridgekit.events import AgentEvent, Frame, Outcome, Receipt
from bridgekit.ids import RunId, ThreadId, UserId
from bridgekit.mapping import RunThreadMappingService
from bridgekit.resolution import Carried, NoRoute, Resolver, route_of
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
    """Link 9, passed wrong: routes an event to the thread of the previous event."""

    previous: ThreadId | None = None

    async def resolve(self, event: AgentEvent) -> ThreadId | NoRoute:
        found = await route_of(Carried(), event)
        route, self.previous = self.previous or found, None if isinstance(found, NoRoute) else found
        return route


def route_of_the_last_event(mapping: RunThreadMappingService) -> Resolver:
    """Return a RouteOfTheLastEvent; the mapping is not used."""
    return RouteOfTheLastEvent()


class _BridgeThatSendsOtherwise(AgentWebSocketBridge, abc.ABC):
    """Replaces sending by the breakage, and notifies observers as the sound bridge does."""

    async def notify(self, event: AgentEvent) -> Receipt:
        receipt = await self._send(event)
        self._record(event, receipt)
        return receipt

    @abc.abstractmethod
    async def _send(self, event: AgentEvent) -> Receipt:
        """The breakage."""


class BridgeThatRaises(_BridgeThatSendsOtherwise):
    """Link 9, raises: sending raises an OSError."""

    async def _send(self, event: AgentEvent) -> Receipt:
        raise OSError("link 9 is broken")


class BridgeThatOnlySaysSent(_BridgeThatSendsOtherwise):
    """Link 9, swallowed: passes nothing to the hub and reports every event as sent."""

    async def _send(self, event: AgentEvent) -> Receipt:
        route = await route_of(self.resolver, event)
        if isinstance(route, NoRoute):
            return Receipt(outcome=Outcome.UNROUTABLE, link=9, reason=route.reason)
        return Receipt(outcome=Outcome.SENT, sockets=1, thread_id=route)


class BridgeThatSendsLate(_BridgeThatSendsOtherwise):
    """Link 9, delayed: sends the first of every two events of a run after the second.

    The first is reported as sent immediately.
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
    """Link 10, not passed on: registers real sockets under no thread, so that no event finds them."""

    def _thread_of(self, connection: Connection) -> ThreadId:
        return connection.thread_id if isinstance(connection, ProbeConnection) else ThreadId("")


class HubThatGivesToTheNeighbour(Hub):
    """Link 10, passed wrong: delivers a thread's events to the sockets of the thread that connected before it."""

    def deliver(self, thread_id: ThreadId, frame: Frame) -> int:
        threads = list(self._connections)
        return super().deliver(threads[threads.index(thread_id) - 1], frame) if thread_id in threads else 0


class ConnectionProxy:
    """Stands between the hub and a connection."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    @property
    def thread_id(self) -> ThreadId:
        return self.connection.thread_id

    @property
    def user_id(self) -> UserId:
        return self.connection.user_id

    def put(self, frame: Frame) -> bool:
        """Accept the frame and drop it."""
        return True

    def force_reconnect(self) -> None:
        self.connection.force_reconnect()


class RaisingConnection(ConnectionProxy):
    def put(self, frame: Frame) -> bool:
        raise OSError("link 10 is broken")


class DelayingConnection(ConnectionProxy):
    """Passes on the first of every two frames after the second."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self.waiting: list[Frame] = []

    def put(self, frame: Frame) -> bool:
        held, self.waiting = self.waiting, [] if self.waiting else [frame]
        taken = [self.connection.put(each) for each in (frame, *held)] if held else []
        return all(taken)


class HubWithConnectionProxies(Hub):
    """Places a proxy between the hub and each real socket."""

    proxy: type[ConnectionProxy] = ConnectionProxy

    def __init__(self, broker: EventLog | None = None) -> None:
        super().__init__(broker)
        self._proxies: dict[Connection, ConnectionProxy] = {}

    def deliver(self, thread_id: ThreadId, frame: Frame) -> int:
        return sum([self._proxy_of(each).put(frame) for each in self.connections(thread_id)])

    def _proxy_of(self, connection: Connection) -> Connection:
        if isinstance(connection, ProbeConnection):
            return connection
        return self._proxies.setdefault(connection, self.proxy(connection))


class HubThatRaises(HubWithConnectionProxies):
    """Link 10, raises: delivering a frame raises an OSError."""

    proxy = RaisingConnection


class HubThatSwallows(HubWithConnectionProxies):
    """Link 10, swallowed: the proxy accepts each frame and drops it."""


class HubThatDeliversLate(HubWithConnectionProxies):
    """Link 10, delayed: the proxy delays every first frame of two."""

    proxy = DelayingConnection
