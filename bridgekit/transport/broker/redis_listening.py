"""What one server tells this worker: a subscription for each joined thread, and the proof that they still work."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import anyio
import msgspec

from bridgekit.storage.redis import Server, Servers
from bridgekit.storage.redis_door import TROUBLE, Wire, problem_of
from bridgekit.storage.redis_line import Backoff
from bridgekit.transport.broker.redis_order import Joined, Told
from bridgekit.transport.log import Sink

__all__ = ["ECHO_SECONDS", "Listener"]

_log = logging.getLogger(__name__)

PROBE_SECONDS: Final = 0.5
"""Between two looks at whether what is told comes through."""
ECHO_SECONDS: Final = 1.0
"""How long what we tell ourselves may take. After that the connection counts as dead, whatever it says itself."""


class Listener:
    """A connection to one server that subscribes. When it is lost, or mute, another takes its place."""

    def __init__(
        self, server: Server, servers: Servers, worker: str, sink: Sink, behind: Callable[[Joined], None]
    ) -> None:
        """`behind` is called with each thread whose log has to be read before more is delivered."""
        self.server = server
        self.alive = False
        """Whether what this worker told itself a moment ago, by the way that events go, came back here."""
        self.problem = ""
        """What was wrong the last time that it ended."""
        self._servers = servers
        self._worker = worker
        self._sink = sink
        self._behind = behind
        self._channels: dict[bytes, Joined] = {}
        self._connection: Wire | None = None
        self._probe = b""
        self._confirmed = anyio.Event()
        self._echoed = anyio.Event()
        self._proven = anyio.Event()
        self._joining: Counter[bytes] = Counter()
        """Subscriptions that are not confirmed yet. Of a channel that was left and joined again the last one counts."""
        self._leaving: Counter[bytes] = Counter()

    def hears(self, joined: Joined) -> bool:
        """Whether the thread is listened to here, or will be with the next connection."""
        return joined.keys.log in self._channels

    @property
    def complete(self) -> bool:
        """Whether no thread is behind."""
        return not any(joined.behind for joined in self._channels.values())

    async def proven(self) -> None:
        """Wait until it is alive."""
        await self._proven.wait()

    def add(self, joined: Joined) -> None:
        """Subscribe to the thread. When that is confirmed its log is read."""
        joined.behind = True
        self._channels[joined.keys.log] = joined
        self._joining[joined.keys.log] += self._send(b"SSUBSCRIBE", joined.keys.log)

    def remove(self, joined: Joined) -> None:
        """Subscribe no more. Does not wait."""
        if self._channels.pop(joined.keys.log, None) is not None:
            self._leaving[joined.keys.log] += self._send(b"SUNSUBSCRIBE", joined.keys.log)

    async def run(self) -> None:
        """Listen, and begin again whenever that has ended, for ever."""
        backoff = Backoff()
        while True:
            try:
                async with self.server.door.opened(self._hear) as connection:
                    self._begin(connection)
                    await self._prove(backoff)
            except* TROUBLE as group:
                self.problem = problem_of(group)
                for error in group.exceptions:
                    self._servers.heed(self.server, error)
            finally:
                self._end()
            await anyio.sleep(backoff.next())

    def _begin(self, connection: Wire) -> None:
        if not self.server.slots:
            raise ConnectionResetError("it has no slots")
        self._connection = connection
        self._joining.clear()
        self._leaving.clear()
        self._confirmed = anyio.Event()
        self._probe = self._servers.names.probe(self._worker, self.server.slots)
        self._joining[self._probe] += self._send(b"SSUBSCRIBE", self._probe)
        for joined in self._channels.values():
            self.add(joined)

    def _end(self) -> None:
        self._connection = None
        self.alive = False
        if self._proven.is_set():
            self._proven = anyio.Event()
        for joined in self._channels.values():
            joined.behind = True

    def _send(self, *command: bytes) -> bool:
        """Whether it is under way. Where it is not, the next connection begins with what is subscribed to then."""
        if self._connection is None:
            return False
        try:
            self._connection.tell(*command)
        except TROUBLE:
            return False
        return True

    async def _prove(self, backoff: Backoff) -> None:
        """Tell ourselves something, again and again: a dead connection does not say that it is dead."""
        while True:
            await self.server.line.up()
            await self._hear_ourselves()
            self.alive = True
            self._proven.set()
            backoff.reset()
            await anyio.sleep(PROBE_SECONDS)

    async def _hear_ourselves(self) -> None:
        self._echoed = anyio.Event()
        with anyio.move_on_after(ECHO_SECONDS):
            await self._confirmed.wait()
            # By the line, as events are told: it might end at another server than this connection.
            if not await self.server.line.ask(b"SPUBLISH", self._probe, b""):
                raise ConnectionResetError("what is told there is not told here")
            await self._echoed.wait()
            return
        raise ConnectionResetError(f"it did not bring within {ECHO_SECONDS:.0f} s what we told ourselves")

    def _hear(self, message: list[Any]) -> None:
        kind, channel, told = message
        joined = self._channels.get(channel)
        if kind == b"smessage":
            if joined is not None:
                self._deliver(joined, told)
            elif channel == self._probe:
                self._echoed.set()
        elif kind == b"ssubscribe":
            self._note_confirmed(channel, joined)
        elif channel not in self._leaving:
            # Nobody asked for that: the slot has moved.
            self._servers.refresh()
            raise ConnectionResetError("it serves a channel no longer")
        else:
            _was_last(self._leaving, channel)

    def _note_confirmed(self, channel: bytes, joined: Joined | None) -> None:
        if not _was_last(self._joining, channel):
            return
        if channel == self._probe:
            self._confirmed.set()
        elif joined is not None:
            self._behind(joined)

    def _deliver(self, joined: Joined, data: bytes) -> None:
        try:
            told = Told.of(data)
        except (ValueError, msgspec.DecodeError) as error:
            # The log knows what it was, if it was anything.
            _log.warning("a channel brought what is no frame: %s", error)
            joined.behind = True
            self._behind(joined)
            return
        if not joined.hear(told, self._sink):
            self._behind(joined)


def _was_last(awaited: Counter[bytes], channel: bytes) -> bool:
    awaited[channel] -= 1
    if awaited[channel]:
        return False
    del awaited[channel]
    return True
