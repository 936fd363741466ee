"""How far a reader of a thread has come, over all his sockets: what is new in what comes, and what never comes."""

from __future__ import annotations

from msgspec.structs import replace

from bridgekit.errors import MalformedFrame
from bridgekit.events import RoutedEvent
from bridgekit.signals import Cursor, Gap, GapReason

__all__ = ["Item", "Reading"]

Item = RoutedEvent | Gap


class Reading:
    """Turns what sockets bring into a stream without repetition, in which nothing goes missing without a Gap.

    It believes no server that it will keep its word: what is neither brought nor said to be missing when a later
    number comes is said to be missing here.
    """

    def __init__(self, after: Cursor | None) -> None:
        self.cursor = after
        """Every event up to here came, or was said to be missing. None before the first socket of a new reader."""
        self.duplicates = 0
        """What came again, and was dropped."""
        self._epoch = ""
        """The numbering of the events that come now."""

    def begin(self, begins: Cursor) -> None:
        """A socket was subscribed, whose stream begins there.

        A reader who has been here stays where he is until he is told what he misses: the socket may break before.
        """
        self._epoch = begins.epoch
        if self.cursor is None:
            self.cursor = begins

    def take(self, item: Item) -> list[tuple[Item, Cursor]]:
        """What is new in what came, each with how far the reader is when he has read it."""
        if isinstance(item, Gap):
            return self._take(item, item.epoch, item.first, item.last)
        return self._take(item, self._epoch, item.seq, item.seq)

    def _take(self, item: Item, epoch: str, first: int, last: int | None) -> list[tuple[Item, Cursor]]:
        new = list[tuple[Item, Cursor]]()
        was, seq = self.cursor or Cursor(epoch, 0)
        if epoch != was:
            if epoch != self._epoch:
                raise MalformedFrame("a gap in a numbering that this socket has nothing to do with")
            new.append((_gap(item, was, seq + 1, None, GapReason.RESTARTED), Cursor(epoch, 0)))
            seq = 0
        if last is None:
            self.cursor = Cursor(self._epoch, 0)
            return [*new, (item, self.cursor)]
        if last <= seq:
            self.duplicates += 1
            return new
        if first > seq + 1:
            new.append((_gap(item, epoch, seq + 1, first - 1, GapReason.LOST), Cursor(epoch, first - 1)))
        elif isinstance(item, Gap):
            item = replace(item, first=seq + 1)
        self.cursor = Cursor(epoch, last)
        return [*new, (item, self.cursor)]


def _gap(beside: Item, epoch: str, first: int, last: int | None, reason: GapReason) -> Gap:
    return Gap(thread_id=beside.thread_id, epoch=epoch, first=first, last=last, reason=reason)
