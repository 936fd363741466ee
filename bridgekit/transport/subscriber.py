"""One subscription, whatever carries its bytes: what waits for it, what is said before and between, how it ends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final

from bridgekit.events import Frame
from bridgekit.signals import Gap, GapReason, Subscribed, encode_signal
from bridgekit.transport.admission import CLOSE_DRAINED, CLOSE_RESTARTED, CLOSE_TOO_SLOW, Subscription
from bridgekit.transport.broker import Replay
from bridgekit.transport.outbox import Outbox

__all__ = ["BATCH_FRAMES", "Subscriber"]

BATCH_FRAMES: Final = 64
"""Frames that an edge takes at a time, beside those that wait in the outbox."""
NO_GAPS: Final = Counter[GapReason]()
"""What all that were told of none share."""


class Subscriber:
    """A Connection over an outbox. One that cannot keep up is given up: its client connects again, and resumes.

    What carries its bytes is a subclass's business. This one has nobody behind it.
    """

    __slots__ = ("_epoch", "_told", "code", "gaps", "in_hand", "outbox", "thread_id", "user_id")

    def __init__(self, subscription: Subscription, *, outbox: Outbox | None = None) -> None:
        self.thread_id = subscription.thread_id
        self.user_id = subscription.user_id
        self._epoch = ""
        self._told = 0
        """Every number up to here was sent, or said to be missing."""
        self.outbox = Outbox() if outbox is None else outbox
        self.gaps = NO_GAPS
        """Gaps that were told between events."""
        self.in_hand = 0
        """What was taken and is not written yet. The edge counts it down."""
        self.code: int | None = None
        """The close code, once its end is decided; until what waits is taken it may live on."""

    def wake(self) -> None:
        """There is something to take, or the end has come. Does not wait."""

    def cut(self) -> None:
        """The socket must be let go of without waiting for it. Does not wait."""

    @property
    def unwritten(self) -> int:
        """Frames that were put here and not written."""
        return len(self.outbox) + self.in_hand

    def put(self, frame: Frame) -> bool:
        if self.code is not None:
            return False
        if self.outbox.put(frame):
            self.wake()
            return True
        self.cut_off()
        return False

    def restart(self) -> None:
        self._end(CLOSE_RESTARTED)

    def drain(self) -> None:
        """Take no more; the end comes when all that waits was taken."""
        self._end(CLOSE_DRAINED)

    def cut_off(self) -> None:
        """Let go of a client that does not read. What waited for it is in the thread's log."""
        if self.code is None:
            self.code = CLOSE_TOO_SLOW
        self.cut()

    def begin(self, replay: Replay) -> list[bytes]:
        """What is sent first: the confirmation, the gaps if there are any, and the replay.

        The frames that were put meanwhile follow by `take`. Those that the replay has already are let go, also where
        they are put only later.
        """
        self._epoch, self._told = replay.cursor
        first = [encode_signal(Subscribed(self.thread_id, *replay.cursor)), *map(encode_signal, replay.gaps)]
        first += self._with_gaps(replay.frames)
        self.outbox.drop_up_to(self._told)
        return first

    def take(self, limit: int = BATCH_FRAMES) -> list[bytes]:
        """What is to be sent next, in order, with a gap where numbers are missing; nothing when nothing waits."""
        frames = self.outbox.take(limit)
        count, told = len(frames), self._told
        # They rise. So nothing is missing where the last is as far ahead as there are frames.
        if count and frames[-1].seq == told + count and frames[0].seq == told + 1:
            self._told = told + count
            self.in_hand += count
            return [frame.data for frame in frames]
        taken = self._with_gaps(frames)
        self.in_hand += len(taken)
        return taken

    def _end(self, code: int) -> None:
        if self.code is None:
            self.code = code
            self.wake()

    def _with_gaps(self, frames: Iterable[Frame]) -> list[bytes]:
        said: list[bytes] = []
        for frame in frames:
            if frame.seq != self._told + 1:
                said += self._gaps(self._told + 1, frame.seq - 1)
            self._told = frame.seq
            said.append(frame.data)
        return said

    def _gaps(self, first: int, last: int) -> Iterator[bytes]:
        """A hole in the numbers, told by its reasons: what was coalesced here, and what never came."""
        for start, end in self.outbox.made_room_before(last + 1):
            if first < start:
                yield self._gap(first, start - 1, GapReason.LOST)
            if first <= end:
                yield self._gap(max(first, start), end, GapReason.COALESCED)
            first = max(first, end + 1)
        if first <= last:
            yield self._gap(first, last, GapReason.LOST)

    def _gap(self, first: int, last: int, reason: GapReason) -> bytes:
        self.gaps = self.gaps + Counter((reason,))
        return encode_signal(Gap(thread_id=self.thread_id, epoch=self._epoch, first=first, last=last, reason=reason))
