"""Delivers each frame to its thread's sockets once, in order of seq, from channel messages and from the log.

Sharded pub/sub delivers a message at most once, and a lost subscription does not report which messages it missed. If a
worker may have missed messages, it reads the log, and buffers new messages meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

import msgspec

from bridgekit.cursors_and_gaps import Cursor
from bridgekit.events import Frame, decode_frame
from bridgekit.ids import ThreadId
from bridgekit.stores.redis.keys_and_functions import ThreadKeys
from bridgekit.transport.log import LocalSink, Replay, replay_after

__all__ = ["ChannelMessage", "LogEntries", "ThreadDelivery"]

_log = logging.getLogger(__name__)

BUFFER_BYTES: Final = 1_048_576
"""Limit on one thread's buffered messages. Over the limit, the worker drops the buffer and reads the log."""
PART_BYTES: Final = 32_768
"""Limit on the bytes that are delivered between two writes to the sockets, far below the limit of an outbox."""
EVENT_BYTES: Final = 512
"""A smaller event counts as this many bytes, because an outbox also limits the number of events."""


def _decodable(entries: Iterable[bytes]) -> Iterator[Frame]:
    for entry in entries:
        try:
            yield decode_frame(entry)
        except msgspec.DecodeError as error:
            # Skip an entry that another program wrote. Clients get a gap if a seq is missing.
            _log.warning("skipped an entry of the log that is not a frame: %s", error)


class ChannelMessage(msgspec.Struct, frozen=True, gc=False):
    """A batch of events that was published on the thread's channel."""

    epoch: str
    after: int
    """The thread's seq before the batch."""
    last: int
    """The thread's seq after the batch. A seq between `after` and `last` that has no frame was skipped."""
    frames: tuple[Frame, ...]
    size_bytes: int

    @classmethod
    def decode(cls, data: bytes) -> ChannelMessage:
        """Decode a message.

        Raises ValueError or DecodeError if the functions in `functions.lua` did not publish the message.
        """
        head, *lines = data.split(b"\n")
        epoch, after, last = head.decode().split(" ")
        return cls(
            epoch, int(after), int(last), tuple(map(decode_frame, lines)), max(len(data), EVENT_BYTES * len(lines))
        )

    def split(self) -> tuple[ChannelMessage, ChannelMessage | None]:
        """Return the frames that may be delivered before the next write to the sockets, and the rest.

        The rest is None if no frame is left.
        """
        size = 0
        for index, frame in enumerate(self.frames[:-1], 1):
            size += max(len(frame.data), EVENT_BYTES)
            if size >= PART_BYTES:
                part = ChannelMessage(self.epoch, self.after, frame.seq, self.frames[:index], size)
                rest = ChannelMessage(self.epoch, frame.seq, self.last, self.frames[index:], self.size_bytes - size)
                return part, rest
        return self, None


class LogEntries(NamedTuple):
    """The head of a log, and the log's entries after a cursor."""

    head: Cursor
    oldest: int
    """From this seq on, each seq either has a frame or was skipped."""
    frames: tuple[Frame, ...]

    @classmethod
    def decode(cls, reply: list[bytes]) -> LogEntries:
        """Decode the reply of the READ function."""
        epoch, seq, *entries = reply
        frames = tuple(_decodable(entry for entry in entries if not entry.startswith(b"h")))
        oldest = int(seq) + 1
        if entries and entries[0].startswith(b"h"):
            oldest = int(entries[0][1:].split(b" ")[0])
        elif frames:
            oldest = frames[0].seq
        return cls(Cursor(epoch.decode(), int(seq)), oldest, frames)

    def replay(self, thread_id: ThreadId, after: Cursor | None) -> Replay:
        """Return the replay for a client with this cursor."""
        return replay_after(thread_id, self.head, self.frames, after, self.oldest)


class ThreadDelivery:
    """The delivery state of a thread that has sockets in this worker."""

    __slots__ = (
        "_buffer", "_buffered_bytes", "_delivered_bytes", "_epoch", "_overflowed", "_seq", "behind", "keys",
        "must_read", "problem", "ready", "sockets", "thread_id",
    )  # fmt: skip

    def __init__(self, thread_id: ThreadId, keys: ThreadKeys) -> None:
        self.thread_id = thread_id
        self.keys = keys
        self.sockets = 0
        """The number of sockets that have joined."""
        self.behind = True
        """True while messages are buffered instead of delivered."""
        self.must_read = True
        """True if the log must be read before any other event is delivered."""
        self.ready = asyncio.Event()
        """Set once the worker knows the position from which to deliver events."""
        self.problem = ""
        """The reason why the log cannot be read although its node answers."""
        self._epoch = ""
        self._seq = 0
        self._delivered_bytes = 0
        """An upper bound on the bytes that were delivered since the last write to the sockets."""
        self._buffer: list[ChannelMessage] = []
        self._buffered_bytes = 0
        self._overflowed = False
        """True if the buffer was dropped. The log still has the dropped events."""

    @property
    def position(self) -> Cursor | None:
        """The last seq that does not need delivery, or None before the first read of the log.

        Each event up to this position was delivered, was published before the sockets joined, or is lost.
        """
        return Cursor(self._epoch, self._seq) if self._epoch else None

    def require_read(self) -> None:
        """Buffer messages until the log is read, because the worker may have missed some messages."""
        self.behind = self.must_read = True

    def on_message(self, message: ChannelMessage, sink: LocalSink) -> None:
        """Deliver a message that directly follows the position, up to PART_BYTES bytes between two writes to the
        sockets.

        Buffer any other message and set `behind`.
        """
        if not self.behind:
            if self._comes_next(message):
                self._delivered_bytes += message.size_bytes
                if self._delivered_bytes <= PART_BYTES:
                    self._deliver(message, sink)
                    return
                self.behind = True
            else:
                self.require_read()
        self._buffer.append(message)
        self._buffered_bytes += message.size_bytes
        if self._buffered_bytes > BUFFER_BYTES:
            self._buffer, self._buffered_bytes = [], 0
            self._overflowed = True

    def on_read(self, log: LogEntries, sink: LocalSink) -> None:
        """Buffer the log's entries after the position. `drain` delivers the entries, and then the buffered messages.

        The first read only sets the position. If the log has a new epoch, make the thread's clients reconnect.
        """
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
            self._buffer.insert(0, ChannelMessage(epoch, self._seq, seq, log.frames, size))
            self._buffered_bytes += size
        self.behind = bool(self._buffer) or self._overflowed

    async def drain(self, sink: LocalSink) -> None:
        """Deliver the buffer in parts. Before each part, wait until the outboxes have room.

        Stop if the buffer is empty, no socket is left, or the log must be read.
        """
        while True:
            await sink.wait_for_room(self.thread_id)
            self._delivered_bytes = 0
            if self.must_read or not (self.sockets and self._buffer):
                break
            if not self._comes_next(self._buffer[0]):
                self.must_read = True
                break
            part, rest = self._buffer.pop(0).split()
            if rest is not None:
                self._buffer.insert(0, rest)
            self._buffered_bytes -= part.size_bytes
            self._deliver(part, sink)
        if self._overflowed:
            self.must_read, self._overflowed = True, False
        self.behind = self.must_read or bool(self._buffer)

    def _comes_next(self, message: ChannelMessage) -> bool:
        return message.epoch == self._epoch and message.after <= self._seq

    def _deliver(self, message: ChannelMessage, sink: LocalSink) -> None:
        seq, thread_id, deliver = self._seq, self.thread_id, sink.deliver
        for frame in message.frames:
            if frame.seq > seq:
                seq = frame.seq
                deliver(thread_id, frame)
        if message.last > seq:
            # No later frame shows that the last seqs of the message are missing, so clients must reconnect to get a
            # gap.
            seq = message.last
            sink.force_reconnect(thread_id)
        self._seq = seq
