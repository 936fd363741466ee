"""Each thread's frames to its sockets, in rising order and each once: from a channel's messages, and from the log.

Sharded pub/sub is at most once, and a subscription that is lost does not tell what it missed. So messages are held
while the log is read.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

import msgspec

from bridgekit.events import Frame, decode_frame
from bridgekit.ids import ThreadId
from bridgekit.signals import Cursor, Gap, GapReason
from bridgekit.stores.redis.functions import ThreadKeys
from bridgekit.transport.log import LocalSink, Replay, replay_after_restart, same_epoch

__all__ = ["ChannelMessage", "LogEntries", "ThreadDelivery"]

_log = logging.getLogger(__name__)

HELD_BYTES: Final = 1_048_576
"""Messages of one thread that are held. What is more is read from its log."""
PART_BYTES: Final = 32_768
"""What is delivered to a thread's sockets before they are written to: much less than an outbox holds."""
EVENT_BYTES: Final = 512
"""An event counts as so many bytes, if it is smaller: an outbox is bounded in events, too."""


def _decodable(entries: Iterable[bytes]) -> Iterator[Frame]:
    for entry in entries:
        try:
            yield decode_frame(entry)
        except msgspec.DecodeError as error:
            # Another program wrote it. Its number is missing, so that clients get a gap.
            _log.warning("a log has an entry that is not a frame: %s", error)


class ChannelMessage(msgspec.Struct, frozen=True, gc=False):
    """Events that were appended together, as published on their thread's channel."""

    epoch: str
    after: int
    """The seq before them."""
    last: int
    """The seq after them. Where there are fewer frames than numbers, the rest was skipped."""
    frames: tuple[Frame, ...]
    size_bytes: int

    @classmethod
    def decode(cls, data: bytes) -> ChannelMessage:
        """ValueError or DecodeError where the server's functions did not publish it."""
        head, *lines = data.split(b"\n")
        epoch, after, last = head.decode().split(" ")
        return cls(
            epoch, int(after), int(last), tuple(map(decode_frame, lines)), max(len(data), EVENT_BYTES * len(lines))
        )

    def split(self) -> tuple[ChannelMessage, ChannelMessage | None]:
        """What may be delivered before sockets are written to, and the rest."""
        size = 0
        for index, frame in enumerate(self.frames[:-1], 1):
            size += max(len(frame.data), EVENT_BYTES)
            if size >= PART_BYTES:
                part = ChannelMessage(self.epoch, self.after, frame.seq, self.frames[:index], size)
                rest = ChannelMessage(self.epoch, frame.seq, self.last, self.frames[index:], self.size_bytes - size)
                return part, rest
        return self, None


class LogEntries(NamedTuple):
    """What a read of a log returned: its head, and the entries after the cursor."""

    head: Cursor
    oldest: int
    """From here on every number is either a frame's or known to be skipped."""
    frames: tuple[Frame, ...]

    @classmethod
    def decode(cls, reply: list[bytes]) -> LogEntries:
        """From the reply of the function."""
        epoch, seq, *entries = reply
        frames = tuple(_decodable(entry for entry in entries if not entry.startswith(b"h")))
        oldest = int(seq) + 1
        if entries and entries[0].startswith(b"h"):
            oldest = int(entries[0][1:].split(b" ")[0])
        elif frames:
            oldest = frames[0].seq
        return cls(Cursor(epoch.decode(), int(seq)), oldest, frames)

    def replay(self, thread_id: ThreadId, after: Cursor) -> Replay:
        """What a client with that cursor is sent. It sees skipped numbers from those of the frames that follow."""
        head, first = self.head, after.seq + 1
        if after == head:
            return Replay(head)
        if not same_epoch(head, after):
            return replay_after_restart(thread_id, head, self.frames, after)
        if self.frames and self.oldest <= first:
            return Replay(after, self.frames)
        reason = GapReason.EXPIRED if self.oldest > first else GapReason.LOST
        return Replay(head, gap=Gap(thread_id=thread_id, epoch=head.epoch, first=first, last=head.seq, reason=reason))


class ThreadDelivery:
    """A thread that has sockets in this worker, and how far its events were delivered to them."""

    __slots__ = (
        "_delivered_bytes", "_epoch", "_held", "_held_bytes", "_overflowed", "_seq", "behind", "keys", "must_read",
        "ready", "sockets", "thread_id",
    )  # fmt: skip

    def __init__(self, thread_id: ThreadId, keys: ThreadKeys) -> None:
        self.thread_id = thread_id
        self.keys = keys
        self.sockets = 0
        """How often it was joined."""
        self.behind = True
        """Whether messages are held: the log has to be read before them, or sockets have to be written to."""
        self.must_read = True
        """Whether the log has to be read before anything else is delivered."""
        self.ready = asyncio.Event()
        """Set when it is known from where on events are delivered."""
        self._epoch = ""
        self._seq = 0
        self._delivered_bytes = 0
        """Since the sockets were last written to, as far as is known."""
        self._held: list[ChannelMessage] = []
        self._held_bytes = 0
        self._overflowed = False
        """Whether held messages were dropped, which the log has."""

    @property
    def position(self) -> Cursor | None:
        """Every event up to here was delivered, or came before the sockets did, or is lost."""
        return Cursor(self._epoch, self._seq) if self._epoch else None

    def lost(self) -> None:
        """Messages may have been missed."""
        self.behind = self.must_read = True

    def on_message(self, message: ChannelMessage, sink: LocalSink) -> None:
        """Deliver a message that comes next, or hold it: then `behind` is set."""
        if not self.behind:
            if self._comes_next(message):
                self._delivered_bytes += message.size_bytes
                if self._delivered_bytes <= PART_BYTES:
                    self._deliver(message, sink)
                    return
                self.behind = True
            else:
                self.lost()
        self._held.append(message)
        self._held_bytes += message.size_bytes
        if self._held_bytes > HELD_BYTES:
            self._held, self._held_bytes = [], 0
            self._overflowed = True

    def on_read(self, log: LogEntries, sink: LocalSink) -> None:
        """Take what the log has after the position. `drain` delivers it, and what was held meanwhile."""
        epoch, seq = log.head
        self.must_read = False
        if not self._epoch:
            self._epoch, self._seq = epoch, seq
            self.ready.set()
        elif self._epoch != epoch:
            self._epoch, self._seq = epoch, seq
            sink.force_reconnect(self.thread_id)
        elif seq > self._seq:
            size = sum([max(len(frame.data), EVENT_BYTES) for frame in log.frames])
            self._held.insert(0, ChannelMessage(epoch, self._seq, seq, log.frames, size))
            self._held_bytes += size
        self.behind = bool(self._held) or self._overflowed

    async def drain(self, sink: LocalSink) -> None:
        """Deliver what is held, as fast as sockets are written to, until the log has to be read or nothing is held."""
        while True:
            await sink.wait_for_room(self.thread_id)
            self._delivered_bytes = 0
            if self.must_read or not (self.sockets and self._held):
                break
            if not self._comes_next(self._held[0]):
                self.must_read = True
                break
            part, rest = self._held.pop(0).split()
            if rest is not None:
                self._held.insert(0, rest)
            self._held_bytes -= part.size_bytes
            self._deliver(part, sink)
        if self._overflowed:
            self.must_read, self._overflowed = True, False
        self.behind = self.must_read or bool(self._held)

    def _comes_next(self, message: ChannelMessage) -> bool:
        return message.epoch == self._epoch and message.after <= self._seq

    def _deliver(self, message: ChannelMessage, sink: LocalSink) -> None:
        seq, thread_id, deliver = self._seq, self.thread_id, sink.deliver
        for frame in message.frames:
            if frame.seq > seq:
                seq = frame.seq
                deliver(thread_id, frame)
        if message.last > seq:
            # No later frame shows that these numbers are missing. Clients reconnect, and get a gap.
            seq = message.last
            sink.force_reconnect(thread_id)
        self._seq = seq
