"""The parts of a load: the users' clients, the runs that they request, and the interface of a driver."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

import anyio

from bridgekit_verify.faults.proxy import Proxy, RunningToxic

__all__ = ["BackendDriver", "ClientGroup", "LiveClient", "LiveThread", "PlannedCut", "ReceivedMessage", "RequestedRun"]

INSIDE_BYTES: Final = 9
"""The number of bytes that still arrive before a cut inside a frame: the frame's header and a part of its content."""


@dataclass(eq=False)
class RequestedRun:
    """A run that the check requests as a user, and its progress."""

    id: str
    canary: str
    prompt: str
    number: int
    thread_values: dict[str, str]
    ended: bool = False
    """True if a client received the run's end."""
    excused: bool = False
    """True if the check cut the run's connection and the TOML file has no `[resume]`."""
    problem: str | None = None
    """The reason why the run's request failed, or why the check stopped waiting for the run."""
    progress: int = 0
    """The number of the run's model calls plus the number of pieces that the model sent, at the last count."""

    @property
    def values(self) -> dict[str, str]:
        """The values of the placeholders of the run and its thread."""
        own = {"run": self.id, "canary": self.canary, "prompt": self.prompt, "n": str(self.number)}
        return {**self.thread_values, **own}


ReceivedMessage = Callable[["LiveClient", str | bytes | object, str | None, str | None], None]


class LiveClient:
    """One socket or one streamed response of a user."""

    def __init__(self, name: str, values: dict[str, str], base_url: str, on_message: ReceivedMessage) -> None:
        self.id = name
        self.values = values
        """The values of the placeholders, such as `user`, `thread`, and those of `[[users]]` and `[[prepare]]`."""
        self.base_url = base_url
        """The address that the client connects to: the backend's, or a fault proxy's if the scenario needs one."""
        self.connection = 0
        """The number of reconnects so far."""
        self.position = ""
        """The position of the latest frame, for a resume."""
        self.last_event_id = ""
        self.closed_because = ""
        """The reason why the latest connection ended."""
        self._opened = anyio.Event()
        self._on_message = on_message

    @property
    def user(self) -> str:
        return self.values["user"]

    @property
    def thread(self) -> str | None:
        """The client's thread, or None if the client receives all threads of its user."""
        return self.values.get("thread")

    def opened(self) -> None:
        """Record that the client is connected, so that runs may start."""
        self._opened.set()

    @property
    def was_open(self) -> bool:
        return self._opened.is_set()

    async def wait_opened(self) -> None:
        await self._opened.wait()

    def reconnects(self) -> None:
        """Count a reconnect, so that later messages belong to the next connection."""
        self.connection += 1
        self._opened = anyio.Event()

    def received(self, message: str | bytes | object, *, event: str | None = None, event_id: str = "") -> None:
        """Record a message: text, bytes or decoded JSON. `event` and `event_id` are those of a server-sent event."""
        if event_id:
            self.last_event_id = event_id
        self._on_message(self, message, event, event_id or None)


@dataclass
class ClientGroup:
    """The clients that receive the same runs: the clients of one thread, or of all threads of a user."""

    inside: bool
    """True if a scenario cuts the connection inside a frame, and not between two frames."""
    clients: list[LiveClient] = field(default_factory=list)
    open_runs: list[RequestedRun] = field(default_factory=list)
    active_at: float = 0.0
    """The time of the latest activity: a request for a run, a received message, a model call, or a piece from the
    model."""
    changed: anyio.Event = field(default_factory=anyio.Event)

    def wake(self) -> None:
        self.changed.set()
        self.changed = anyio.Event()


class LiveThread(NamedTuple):
    """One thread of a user, and the clients that receive it."""

    name: str
    values: dict[str, str]
    group: ClientGroup


@dataclass
class PlannedCut:
    """A connection to cut after some messages of a run."""

    between: Proxy
    after: int
    inside: bool
    toxic: RunningToxic | None = None

    def count(self) -> None:
        self.after -= 1
        if self.after == 0:
            self.toxic = self.between.limit_data(INSIDE_BYTES) if self.inside else self.between.reset_peer()


class BackendDriver(Protocol):
    """Starts runs and receives frames. `[driver] class` names a driver if a TOML file cannot express the protocol."""

    async def listen(self, client: LiveClient) -> None:
        """Connect, call `client.opened()`, and then call `client.received` for each message until the connection ends.

        The check calls `listen` for each connection. `client.connection` is above 0 after a reconnect.
        """

    async def start(self, client: LiveClient, run: RequestedRun) -> None:
        """Send the run's prompt as this client. Pass the messages of a streamed response to `client.received`."""
