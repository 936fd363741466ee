"""A socket behind ASGI: written to by the edge's flusher, as far as the server takes it without being waited for.

A server's `send` is a coroutine that may wait, and mostly does not: uvicorn's goes through at once while little waits
in the connection's own buffer. So the flusher takes the first step of each; only where the coroutine has not come to
its end by that, it is awaited.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextvars import Context, copy_context
from typing import Any, Final

import anyio
from starlette.types import Send

from bridgekit.transport.admission import Subscription
from bridgekit.transport.broker import Replay
from bridgekit.transport.flushed import FlushedSubscriber
from bridgekit.transport.flusher import Flusher
from bridgekit.transport.outbox import Outbox

__all__ = ["AsgiSubscriber"]

_NOTHING: Final[list[bytes]] = []


class AsgiSubscriber(FlushedSubscriber):
    """A subscriber that sends by the `send` of an ASGI connection. Its own task reads, within the scope `stay`.

    The scope is cancelled when there is nothing more to read for: the client is to be said goodbye to, or let go of.
    """

    __slots__ = ("_context", "_first", "_send", "_stay", "_waits")

    def __init__(
        self, subscription: Subscription, flusher: Flusher, send: Send, stay: anyio.CancelScope, *, outbox: Outbox
    ) -> None:
        super().__init__(subscription, flusher, outbox=outbox)
        self._send = send
        self._stay = stay
        self._context = copy_context()
        """What middleware around the application has set for this connection; a send runs in it."""
        self._first: list[bytes] | None = None
        """What is to be sent before what waits in the outbox; None before its client is told that it is subscribed."""
        self._waits: _Waits | None = None

    def start(self, replay: Replay) -> None:
        """Send this first; from now on whatever is put follows."""
        self._first = self.begin(replay)
        self.wake()

    def cut(self) -> None:
        self._over = True
        self._stay.cancel()
        if self._waits is not None:
            self._waits.scope.cancel()

    async def let_go(self) -> None:
        """Wait until nothing is being sent any more."""
        if self._waits is not None:
            await self._waits.over.wait()

    def flush(self) -> Awaitable[None] | None:
        if self._over or self._first is None:
            self._marked = False
            return None
        writing = self._write(self._first)
        try:
            waits_for = self._context.run(writing.send, None)
        except StopIteration:
            return None
        return _Rest(self._context, writing, waits_for)

    def begin_waiting(self, scope: anyio.CancelScope) -> None:
        self._waits = _Waits(scope)

    def end_waiting(self) -> None:
        if self._waits is not None:
            self._waits.over.set()
            self._waits = None

    def fail(self, error: Exception) -> None:
        self.failure = error

    async def _write(self, first: list[bytes]) -> None:
        """Send what waits until nothing does."""
        send, stays = self._send, False
        try:
            self._first = _NOTHING
            for data in first:
                await send({"type": "websocket.send", "text": data.decode()})
            while taken := self.take():
                for data in taken:
                    await send({"type": "websocket.send", "text": data.decode()})
                    self.in_hand -= 1
            stays = self.code is None
        finally:
            self._marked = False
            if not stays:
                # Either all was sent that will be, or it is broken.
                self._over = True
                self._stay.cancel()


class _Waits:
    """That a send is being awaited."""

    __slots__ = ("over", "scope")

    def __init__(self, scope: anyio.CancelScope) -> None:
        self.scope = scope
        self.over = anyio.Event()


class _Rest(Generator[Any, Any, None]):
    """The rest of a coroutine that has taken its first step, to be awaited in the task in which it took it."""

    __slots__ = ("_begun", "_coroutine", "_run", "_waits_for")

    def __init__(self, context: Context, coroutine: Coroutine[Any, Any, None], waits_for: object) -> None:
        self._run: Callable[..., Any] = context.run
        self._coroutine = coroutine
        self._waits_for = waits_for
        self._begun = False

    def __await__(self) -> Generator[Any, Any, None]:
        return self

    def send(self, value: object) -> object:
        """The next step, with what the event loop answers. The first one was taken: here is what it waits for."""
        if not self._begun:
            self._begun = True
            return self._waits_for
        return self._run(self._coroutine.send, value)

    def throw(self, *error: Any) -> object:
        return self._run(self._coroutine.throw, *error)
