"""Which threads a broker remembers: all that are held, and of the others those that were in use last."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from bridgekit.ids import ThreadId
from bridgekit.signals import Cursor, Gap, GapReason

__all__ = ["Numbering", "Remembered", "gap_after", "new_epoch"]


def new_epoch() -> str:
    """A name for a numbering that nobody can guess: 16 hexadecimal digits."""
    return os.urandom(8).hex()


def gap_after(thread_id: ThreadId, head: Cursor, after: Cursor, *, oldest: int) -> Gap | None:
    """What somebody misses who has come that far, where a log holds the numbers from `oldest` to its head's."""
    last: int | None = head.seq
    reason = GapReason.EXPIRED
    if after.epoch != head.epoch or after.seq > head.seq:
        # Of another numbering, or from ahead of this one: how much is missing nobody knows.
        last, reason = None, GapReason.RESTARTED
    elif after.seq + 1 >= oldest:
        return None
    return Gap(thread_id=thread_id, epoch=after.epoch, first=after.seq + 1, last=last, reason=reason)


class Numbering:
    """One thread's epoch, and the number that was given last."""

    __slots__ = ("epoch", "held", "seq")

    def __init__(self, epoch: str, seq: int = 0) -> None:
        self.epoch = epoch
        self.seq = seq
        self.held = 0
        """By how many it is held. One that is held is never forgotten."""


NumberingT = TypeVar("NumberingT", bound=Numbering)


class Remembered(Generic[NumberingT]):
    """Numberings by thread. Every operation is O(1).

    One that is not held makes room for a new one when there are too many: the one that is idle longest. If all are
    held, there are more than the limit until some are let go of.
    """

    def __init__(
        self,
        limit: int,
        begin: Callable[[ThreadId], NumberingT],
        forget: Callable[[ThreadId, NumberingT], None],
    ) -> None:
        self._limit = limit
        self._begin = begin
        self._forget = forget
        self._all: dict[ThreadId, NumberingT] = {}
        self._idle: OrderedDict[ThreadId, NumberingT] = OrderedDict()
        """Those that nobody holds, the one that is idle longest first."""

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[NumberingT]:
        return iter(self._all.values())

    def of(self, thread_id: ThreadId) -> NumberingT:
        """The thread's numbering, begun if there is none. From now on it was in use last."""
        numbering = self._all.get(thread_id)
        if numbering is None:
            numbering = self._begin(thread_id)
            self.put(thread_id, numbering)
        elif not numbering.held:
            self._idle.move_to_end(thread_id)
        return numbering

    def put(self, thread_id: ThreadId, numbering: NumberingT) -> None:
        """Remember a numbering of a thread that has none."""
        while len(self._all) >= self._limit and self._idle:
            self._forget(*self._forgotten())
        self._all[thread_id] = self._idle[thread_id] = numbering

    def hold(self, thread_id: ThreadId) -> NumberingT:
        """The thread's numbering, not to be forgotten until `let_go` was called as often as this."""
        numbering = self.of(thread_id)
        numbering.held += 1
        self._idle.pop(thread_id, None)
        return numbering

    def let_go(self, thread_id: ThreadId) -> None:
        """Take back one `hold`."""
        numbering = self._all[thread_id]
        numbering.held -= 1
        if not numbering.held:
            self._idle[thread_id] = numbering

    def _forgotten(self) -> tuple[ThreadId, NumberingT]:
        thread_id, numbering = self._idle.popitem(last=False)
        del self._all[thread_id]
        return thread_id, numbering
