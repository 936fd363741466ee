"""What a socket is sent first, by its cursor and what a log still holds: the one rule that all brokers follow."""

from __future__ import annotations

from collections.abc import Sequence

from bridgekit.events import Frame
from bridgekit.ids import ThreadId
from bridgekit.signals import Cursor, Gap, GapReason
from bridgekit.transport.broker import Replay

__all__ = ["began_anew", "replayed", "same_numbering"]


def same_numbering(head: Cursor, after: Cursor) -> bool:
    """Whether the cursor can be answered by numbers: it is of this epoch, and not from ahead of the log."""
    return after.epoch == head.epoch and after.seq <= head.seq


def replayed(thread_id: ThreadId, head: Cursor, held: Sequence[Frame], after: Cursor | None) -> Replay:
    """What comes after a cursor, where `held` is all that the log, which ends at `head`, still holds after it.

    All or nothing: every event, or a gap and the stream from the log's end on. For a cursor of another numbering see
    `began_anew`, which wants all that the log holds.
    """
    if after is None or after == head:
        return Replay(head)
    if not same_numbering(head, after):
        return began_anew(thread_id, head, held, after)
    if not held or held[0].seq != after.seq + 1:
        return Replay(head, gap=_gap(thread_id, after, head.seq, GapReason.EXPIRED))
    return Replay(after, tuple(held))


def began_anew(thread_id: ThreadId, head: Cursor, held: Sequence[Frame], after: Cursor) -> Replay:
    """A socket comes from a numbering that was lost: it is given all of the new one, and told what it misses.

    How much of the old one it misses nobody knows. Of the new one it misses what the log does not hold any more.
    """
    begins = Cursor(head.epoch, held[0].seq - 1 if held else head.seq)
    expired = _gap(thread_id, Cursor(head.epoch, 0), begins.seq, GapReason.EXPIRED) if begins.seq else None
    return Replay(begins, tuple(held), _gap(thread_id, after, None, GapReason.RESTARTED), expired)


def _gap(thread_id: ThreadId, after: Cursor, last: int | None, reason: GapReason) -> Gap:
    return Gap(thread_id=thread_id, epoch=after.epoch, first=after.seq + 1, last=last, reason=reason)
