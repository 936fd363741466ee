"""Tracks a client's position in a thread across sockets, to find which items are new and which events are missing."""

from __future__ import annotations

from msgspec.structs import replace

from bridgekit.cursors_and_gaps import START, Cursor, Gap, GapReason
from bridgekit.errors import MalformedFrame
from bridgekit.events import RoutedEvent

__all__ = ["CursorTracker", "Item"]

Item = RoutedEvent | Gap


class CursorTracker:
    """Merges the items of successive sockets into one stream without duplicates.

    The client gets a Gap for every event that it will not get. If a `seq` is skipped and the server sends no gap for
    it, the tracker adds a gap.
    """

    def __init__(self, after: Cursor | None) -> None:
        self.cursor = after
        """Every event up to this position was received or is in a gap. None until a new client's first socket is
        subscribed."""
        self.duplicates = 0
        """The number of events that were received again and discarded."""
        self._epoch = ""
        """The epoch of the current socket's events."""

    def start(self, start: Cursor) -> None:
        """Record that a socket is subscribed and that its stream starts at `start`.

        A cursor other than START is kept until an item is accepted, because the socket may break before the first item.
        """
        self._epoch = start.epoch
        if self.cursor is None:
            self.cursor = start
        elif self.cursor == START:
            self.cursor = Cursor(start.epoch, 0)

    def accept(self, item: Item) -> list[tuple[Item, Cursor]]:
        """Return a gap if events are missing, and the item if it is new, each with the cursor that follows it.

        Raises MalformedFrame if the item contradicts the items before it.
        """
        if isinstance(item, Gap):
            return self._accept(item, item.epoch, item.first, item.last)
        return self._accept(item, self._epoch, item.first_seq or item.seq, item.seq)

    def _accept(self, item: Item, epoch: str, first: int, last: int | None) -> list[tuple[Item, Cursor]]:
        new = list[tuple[Item, Cursor]]()
        old_epoch, seq = self.cursor or Cursor(epoch, 0)
        if epoch != old_epoch:
            if epoch != self._epoch:
                raise MalformedFrame("the gap's epoch is neither the client's nor this socket's")
            new.append((_gap(item, old_epoch, seq + 1, None, GapReason.RESTARTED), Cursor(epoch, 0)))
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
        elif first <= seq:
            raise MalformedFrame(f"the events {first} to {last} were joined, and some of them were received before")
        self.cursor = Cursor(epoch, last)
        return [*new, (item, self.cursor)]


def _gap(beside: Item, epoch: str, first: int, last: int | None, reason: GapReason) -> Gap:
    return Gap(thread_id=beside.thread_id, epoch=epoch, first=first, last=last, reason=reason)
