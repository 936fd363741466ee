"""What both edges' subscribers share: each event that is put counts, and asks for one flush and not for another."""

from __future__ import annotations

import anyio
from bridgekit.transport.flushed import FlushedSubscriber
from bridgekit.transport.flusher import Flusher

from bridgekit.transport.admission import Subscription
from bridgekit.transport.outbox import Outbox
from tests.samples import ALICE, THREAD, frame
from tests.transport.browser import PATIENCE_SECONDS


class Noted(FlushedSubscriber):
    """Takes all that waits, and keeps a book of how much that was."""

    def __init__(self, flusher: Flusher) -> None:
        super().__init__(Subscription(ALICE, THREAD), flusher, outbox=Outbox())
        self.book: list[int] = []

    def flush(self) -> None:
        self._marked = False
        self.book.append(self.waiting)
        self.take()

    def fail(self, error: Exception) -> None:
        raise error


async def test_every_event_counts_and_those_of_one_turn_are_flushed_once() -> None:
    with anyio.fail_after(PATIENCE_SECONDS):
        async with Flusher() as flusher:
            sockets = [Noted(flusher), Noted(flusher)]
            for seq in (1, 2, 3):
                assert all(socket.put(frame(seq)) for socket in sockets)
            assert flusher.puts == 6
            await anyio.wait_all_tasks_blocked()
            assert sockets[0].put(frame(4))
            await anyio.wait_all_tasks_blocked()
    assert [socket.book for socket in sockets] == [[3, 1], [3]]
