"""A thread's frames to its sockets in rising order, each once: what was told over its channel, and what the log has."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

import anyio
import msgspec

from bridgekit.events import EventType, Frame
from bridgekit.ids import RunId, ThreadId
from bridgekit.signals import Cursor, Gap, GapReason
from bridgekit.storage.redis_library import Keys
from bridgekit.transport.log import Replay, Sink
from bridgekit.transport.pinned_lru import gap_after

__all__ = ["Joined", "Log", "Told"]

_log = logging.getLogger(__name__)

HELD_BYTES: Final = 1_048_576
"""Of one thread, while its log is read. What is more is read from the log once more."""


class _Numbered(msgspec.Struct):
    """What has to be known of a frame to hand it on."""

    seq: int
    type: EventType
    run_id: RunId


_numbered: Final = msgspec.json.Decoder(_Numbered)


def _frame(data: bytes) -> Frame:
    known = _numbered.decode(data)
    return Frame(known.seq, known.type, known.run_id, data)


def _legible(entries: Iterable[bytes]) -> Iterator[Frame]:
    for entry in entries:
        try:
            yield _frame(entry)
        except msgspec.DecodeError as error:
            # Of another version, or of a stranger: its number is missing, and sockets are told so.
            _log.warning("a log has an entry that is no frame: %s", error)


class Told(msgspec.Struct, frozen=True, gc=False):
    """What is told over a thread's channel: events that were numbered in one go."""

    epoch: str
    after: int
    """The number that was given last before them."""
    last: int
    """The number that was given last. Where there are fewer frames than numbers, the rest was left out."""
    frames: tuple[Frame, ...]
    size_bytes: int

    @classmethod
    def of(cls, data: bytes) -> Told:
        """ValueError or DecodeError where it is none of ours."""
        head, *lines = data.split(b"\n")
        epoch, after, last = head.decode().split(" ")
        return cls(epoch, int(after), int(last), tuple(map(_frame, lines)), len(data))


class Log(NamedTuple):
    """What a read gave: where the numbering is, and what the reader has not."""

    head: Cursor
    oldest: int
    """All numbers from here on are accounted for: by a frame, or by a hole that is known."""
    frames: tuple[Frame, ...]

    @classmethod
    def of(cls, answer: list[bytes]) -> Log:
        """From the answer of the function."""
        epoch, seq, *entries = answer
        frames = tuple(_legible(entry for entry in entries if not entry.startswith(b"h")))
        oldest = int(seq) + 1
        if entries and entries[0].startswith(b"h"):
            oldest = int(entries[0][1:].split(b" ")[0])
        elif frames:
            oldest = frames[0].seq
        return cls(Cursor(epoch.decode(), int(seq)), oldest, frames)

    def replay(self, thread_id: ThreadId, after: Cursor) -> Replay:
        """What a socket is sent that has come that far. A hole that frames follow is seen from their numbers."""
        gap = gap_after(thread_id, self.head, after, oldest=self.oldest)
        if gap is None and after.seq < self.head.seq and not self.frames:
            gap = _gap(thread_id, self.head.epoch, after.seq + 1, self.head.seq, GapReason.LOST)
        if gap is None:
            return Replay(after, self.frames)
        if after.epoch == self.head.epoch:
            return Replay(self.head, gap=gap)
        return self._from_its_beginning(thread_id, gap)

    def _from_its_beginning(self, thread_id: ThreadId, gap: Gap) -> Replay:
        """All of the new numbering, for one who knows an old one."""
        expired = None
        if self.oldest > 1 and self.head.seq:
            expired = _gap(thread_id, self.head.epoch, 1, self.oldest - 1, GapReason.EXPIRED)
        return Replay(Cursor(self.head.epoch, self.oldest - 1), self.frames, gap, expired)


def _gap(thread_id: ThreadId, epoch: str, first: int, last: int, reason: GapReason) -> Gap:
    return Gap(thread_id=thread_id, epoch=epoch, first=first, last=last, reason=reason)


class Joined:
    """A thread that sockets of this worker have joined, and how far they were brought."""

    __slots__ = (
        "_epoch",
        "_held",
        "_held_bytes",
        "_overflowed",
        "_seq",
        "behind",
        "keys",
        "queued",
        "ready",
        "sockets",
        "thread_id",
    )

    def __init__(self, thread_id: ThreadId, keys: Keys) -> None:
        self.thread_id = thread_id
        self.keys = keys
        self.sockets = 0
        """How often it was joined."""
        self.behind = True
        """Whether the log has to be read before anything else is delivered."""
        self.queued = False
        """Whether it waits for its log to be read."""
        self.ready = anyio.Event()
        """Set as soon as it is known from where on events are owed."""
        self._epoch = ""
        self._seq = 0
        self._held: list[Told] = []
        self._held_bytes = 0
        self._overflowed = False

    @property
    def at(self) -> Cursor | None:
        """Every event up to here was delivered, or came before the sockets did, or cannot be had."""
        return Cursor(self._epoch, self._seq) if self._epoch else None

    def hear(self, told: Told, sink: Sink) -> bool:
        """Deliver what was told, if it comes next; else hold it, and answer False: the log is to be read."""
        if not self.behind and told.epoch == self._epoch and told.after <= self._seq:
            self._bring(told.frames, told.last, sink)
            return True
        self.behind = True
        self._held.append(told)
        self._held_bytes += told.size_bytes
        if self._held_bytes > HELD_BYTES:
            self._held.clear()
            self._held_bytes = 0
            self._overflowed = True
        return False

    def catch_up(self, log: Log, sink: Sink) -> bool:
        """Deliver what the log had, then what was held. Answers whether that was all; else it is to be read again."""
        if not self._epoch:
            self._epoch, self._seq = log.head
            self.ready.set()
        elif self._epoch != log.head.epoch:
            self._epoch, self._seq = log.head
            sink.restart(self.thread_id)
        else:
            self._bring(log.frames, log.head.seq, sink)
        held, self._held, self._held_bytes = self._held, [], 0
        self.behind = self._overflowed
        self._overflowed = False
        for told in held:
            self.hear(told, sink)
        return not self.behind

    def _bring(self, frames: Iterable[Frame], last: int, sink: Sink) -> None:
        at, thread_id, deliver = self._seq, self.thread_id, sink.deliver
        for frame in frames:
            if frame.seq > at:
                at = frame.seq
                deliver(thread_id, frame)
        if last > at:
            # Numbers at the end that no frame will show to be missing: sockets that connect again are told of them.
            at = last
            sink.restart(self.thread_id)
        self._seq = at
