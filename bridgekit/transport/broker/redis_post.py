"""What a worker has with one server of the store: what goes there, what comes from there, and how that is going."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import anyio

from bridgekit.events import Frame
from bridgekit.ids import ThreadId
from bridgekit.storage.redis import Server, Servers
from bridgekit.transport.broker.redis_backlog import Backlog, Lane
from bridgekit.transport.broker.redis_listening import Listener
from bridgekit.transport.broker.redis_reading import CatchingUp, Logs
from bridgekit.transport.broker.redis_sending import Sender
from bridgekit.transport.log import Keep, Sink

__all__ = ["Outlet", "Post", "Worker"]


class Outlet:
    """The sink, once there is one."""

    def __init__(self) -> None:
        self.sink: Sink | None = None

    def deliver(self, thread_id: ThreadId, frame: Frame) -> int:
        return 0 if self.sink is None else self.sink.deliver(thread_id, frame)

    def restart(self, thread_id: ThreadId) -> None:
        if self.sink is not None:
            self.sink.restart(thread_id)


@dataclass(frozen=True)
class Worker:
    """What all posts of a worker share."""

    name: str
    """Random, and told to nobody but the store: it tells this worker's parcels from others'."""
    servers: Servers
    keep: Keep
    backlog: Backlog
    logs: Logs
    route: Callable[[Lane], None]
    """Given each lane with more to send: to whom it is to go may have changed."""
    outlet: Outlet = field(default_factory=Outlet)


class Post:
    """One server's."""

    def __init__(self, server: Server, worker: Worker) -> None:
        self.line = server.line
        self.scope = anyio.CancelScope()
        self.catching_up = CatchingUp(worker.logs, worker.outlet)
        self.listener = Listener(server, worker.servers, worker.name, worker.outlet, self.catching_up.push)
        self.sender = Sender(server, worker.servers, worker.backlog, worker.keep, worker.name.encode(), worker.route)

    @property
    def away(self) -> bool:
        """Whether nobody should wait for it."""
        return self.sender.away or self.line.away

    @property
    def healthy(self) -> bool:
        """Whether it answers, is listened to, and has told us all that the joined threads are owed."""
        return self.line.connected and not self.sender.away and self.listener.alive and self.listener.complete

    @property
    def problem(self) -> str:
        """What is wrong, where something is."""
        if not self.line.connected:
            return self.line.problem
        return self.sender.problem or self.listener.problem or "it takes too long"

    async def run(self) -> None:
        """Until the server has left."""
        with self.scope:
            async with anyio.create_task_group() as tasks:
                for part in (self.sender, self.listener, self.catching_up):
                    tasks.start_soon(part.run)
