"""Links 9 and 10 broken on purpose, each as the smallest override of a sound one, as `broken_handover` has 1 to 5.

What is wrong with link 10 here is wrong for real sockets only. Startup's own check listens inside the process, so it
passes, as it must: what startup can notice never reaches a measurement.
"""

from __future__ import annotations

import abc
from typing import Any

from bridgekit.chain.link_9_bridge import AgentWebSocketBridge
from bridgekit.chain.self_check import Inbox
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
    """Link 9, passed wrong: an event goes where the one before it belonged."""

    before: ThreadId | None = None

    async def resolve(self, event: AgentEvent) -> ThreadId | NoRoute:
        found = await route_of(Carried(), event)
        route, self.before = self.before or found, None if isinstance(found, NoRoute) else found
        return route


def route_of_the_last_event(mapping: RunThreadMappingService) -> Resolver:
    """The resolver of that name; it asks no mapping."""
    return RouteOfTheLastEvent()


class _BridgeThatSendsOtherwise(AgentWebSocketBridge, abc.ABC):
    """Sends as a breakage has it, and tells what it answers as the sound one does."""

    async def notify(self, event: AgentEvent) -> Receipt:
        receipt = await self._send(event)
        self._record(event, receipt)
        return receipt

    @abc.abstractmethod
    async def _send(self, event: AgentEvent) -> Receipt:
        """The breakage."""


class BridgeThatRaises(_BridgeThatSendsOtherwise):
    """Link 9, raises."""

    async def _send(self, event: AgentEvent) -> Receipt:
        raise OSError("link 9 is broken")


class BridgeThatOnlySaysSent(_BridgeThatSendsOtherwise):
    """Link 9, swallowed: nothing is given to the hub, and everything is called sent."""

    async def _send(self, event: AgentEvent) -> Receipt:
        route = await route_of(self.resolver, event)
        if isinstance(route, NoRoute):
            return Receipt(outcome=Outcome.UNROUTABLE, link=9, reason=route.reason)
        return Receipt(outcome=Outcome.SENT, sockets=1, thread_id=route)


class BridgeThatSendsLate(_BridgeThatSendsOtherwise):
    """Link 9, delayed: of each two events of a run the first waits for the second, and is called sent meanwhile."""

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
    """Link 10, not passed on: a real socket is kept under no thread, so that no event finds it."""

    def _thread_of(self, connection: Connection) -> ThreadId:
        return connection.thread_id if isinstance(connection, Inbox) else ThreadId("")


class HubThatGivesToTheNeighbour(Hub):
    """Link 10, passed wrong: a thread's events go to the sockets of the thread that connected before it."""

    def deliver(self, thread_id: ThreadId, frame: Frame) -> int:
        threads = list(self._connections)
        return super().deliver(threads[threads.index(thread_id) - 1], frame) if thread_id in threads else 0


class Around:
    """A connection that another one stands behind."""

    def __init__(self, behind: Connection) -> None:
        self.behind = behind

    @property
    def thread_id(self) -> ThreadId:
        return self.behind.thread_id

    @property
    def user_id(self) -> UserId:
        return self.behind.user_id

    def put(self, frame: Frame) -> bool:
        """Take it, and lose it."""
        return True

    def force_reconnect(self) -> None:
        self.behind.force_reconnect()


class Raising(Around):
    def put(self, frame: Frame) -> bool:
        raise OSError("link 10 is broken")


class Holding(Around):
    """Of each two frames the first waits for the second, and goes after it."""

    def __init__(self, behind: Connection) -> None:
        super().__init__(behind)
        self.waiting: list[Frame] = []

    def put(self, frame: Frame) -> bool:
        held, self.waiting = self.waiting, [] if self.waiting else [frame]
        taken = [self.behind.put(each) for each in (frame, *held)] if held else []
        return all(taken)


class HubWithSomethingBetween(Hub):
    """Something stands between the hub and each real socket."""

    between: type[Around] = Around

    def __init__(self, broker: EventLog | None = None) -> None:
        super().__init__(broker)
        self._between: dict[Connection, Around] = {}

    def deliver(self, thread_id: ThreadId, frame: Frame) -> int:
        return sum([self._before(each).put(frame) for each in self.connections(thread_id)])

    def _before(self, connection: Connection) -> Connection:
        if isinstance(connection, Inbox):
            return connection
        return self._between.setdefault(connection, self.between(connection))


class HubThatRaises(HubWithSomethingBetween):
    """Link 10, raises."""

    between = Raising


class HubThatSwallows(HubWithSomethingBetween):
    """Link 10, swallowed: what takes the frame for the socket says that it did, and drops it."""


class HubThatDeliversLate(HubWithSomethingBetween):
    """Link 10, delayed."""

    between = Holding
