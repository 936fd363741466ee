"""From the server to the sockets of this worker: subscriptions, and each thread's frames in rising order, each once.

A frame comes in a channel's message, or from the log where messages may have been missed. Sharded pub/sub is at most
once: a subscription that is lost says nothing of what it missed, so that the log is read after each one.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

import anyio
import msgspec
from anyio.abc import TaskGroup
from redis.asyncio.client import PubSub

from bridgekit.errors import StoreAway
from bridgekit.events import EventType, Frame
from bridgekit.ids import RunId, ThreadId
from bridgekit.signals import Cursor, Gap, GapReason
from bridgekit.stores.redis.functions import READ, ThreadKeys
from bridgekit.stores.redis.publishing import encode_settings
from bridgekit.stores.redis.topology import CONNECTION_ERRORS, STORE, Backoff, ClusterTopology, Node, error_message
from bridgekit.transport.log import Keep, Replay, Sink, replay_after_restart, same_epoch

__all__ = ["ChannelMessage", "LogEntries", "LogReader", "PubSubReader", "ThreadDelivery"]

_log = logging.getLogger(__name__)

HEARTBEAT_INTERVAL_SECONDS: Final = 0.5
HEARTBEAT_TIMEOUT_SECONDS: Final = 1.0
"""A subscription that does not bring the worker's own message within this time is dead, whatever its socket says."""
HELD_BYTES: Final = 1_048_576
"""Messages of one thread that are held while its log is read. What is more is read from the log again."""
DELIVERED_EVENTS: Final = 128
"""Events of one thread that are delivered before its sockets are written to."""
ROOM_TIMEOUT_SECONDS: Final = 0.01
"""How long the messages of other threads wait while one thread's sockets are written to."""
READERS: Final = 16
"""Logs that are read at a time from one node. Each reply may be as large as a log."""


class _FrameHead(msgspec.Struct):
    """What has to be known of a frame to deliver it."""

    seq: int
    type: EventType
    run_id: RunId


_decode_head: Final = msgspec.json.Decoder(_FrameHead).decode


def _frame(data: bytes) -> Frame:
    head = _decode_head(data)
    return Frame(head.seq, head.type, head.run_id, data)


def _decodable(entries: Iterable[bytes]) -> Iterator[Frame]:
    for entry in entries:
        try:
            yield _frame(entry)
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
    size_bytes: int = 0

    @classmethod
    def decode(cls, data: bytes) -> ChannelMessage:
        """ValueError or DecodeError where the server's functions did not publish it."""
        head, *lines = data.split(b"\n")
        epoch, after, last = head.decode().split(" ")
        return cls(epoch, int(after), int(last), tuple(map(_frame, lines)), len(data))


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
        head, frames = self.head, self.frames
        if after == head:
            return Replay(head)
        if not same_epoch(head, after):
            return replay_after_restart(thread_id, head, frames, after)
        if frames and self.oldest <= after.seq + 1:
            return Replay(after, frames)
        reason = GapReason.EXPIRED if self.oldest > after.seq + 1 else GapReason.LOST
        return Replay(head, gap=_gap(thread_id, after, head.seq, reason))


def _gap(thread_id: ThreadId, after: Cursor, last: int, reason: GapReason) -> Gap:
    return Gap(thread_id=thread_id, epoch=after.epoch, first=after.seq + 1, last=last, reason=reason)


class LogReader:
    """Reads threads' logs, whichever node has them."""

    def __init__(self, topology: ClusterTopology, keep: Keep, worker: bytes) -> None:
        self._topology = topology
        self._keep = keep
        self._worker = worker

    async def read(self, keys: ThreadKeys, after: Cursor | None) -> LogEntries:
        """The log's head, and every entry after the cursor. StoreAway where no answer comes in time."""
        node = self._topology.node_for_slot(keys.slot)
        if node is None:
            raise StoreAway(STORE, "no node has the slot")
        settings = encode_settings(self._keep, node)
        epoch, seq = after or ("", "")
        reply = await self._topology.call(
            keys.slot, "FCALL", READ, 2, keys.log, keys.head, settings, self._worker, epoch, seq
        )
        return LogEntries.decode(reply)


class ThreadDelivery:
    """A thread that has sockets in this worker, and how far its events were delivered to them."""

    __slots__ = (
        "_epoch",
        "_held",
        "_held_bytes",
        "_overflowed",
        "_seq",
        "behind",
        "draining",
        "keys",
        "must_read",
        "queued",
        "ready",
        "sockets",
        "thread_id",
    )

    def __init__(self, thread_id: ThreadId, keys: ThreadKeys) -> None:
        self.thread_id = thread_id
        self.keys = keys
        self.sockets = 0
        """How often it was joined."""
        self.behind = True
        """Whether messages are held: the log has to be read before them, or sockets have to be written to."""
        self.must_read = True
        """Whether the log has to be read before anything else is delivered."""
        self.queued = False
        """Whether it waits until its log is read."""
        self.draining = False
        """Whether a task delivers what is held."""
        self.ready = asyncio.Event()
        """Set when it is known from where on events are delivered."""
        self._epoch = ""
        self._seq = 0
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

    def on_message(self, message: ChannelMessage, sink: Sink) -> bool:
        """Deliver a message that comes next, or hold it. Return False where the log has to be read first."""
        if not self.behind:
            if self._comes_next(message):
                self._deliver(message.frames, message.last, sink)
                return True
            self.lost()
        self._held.append(message)
        self._held_bytes += message.size_bytes
        if self._held_bytes > HELD_BYTES:
            self._held, self._held_bytes = [], 0
            self._overflowed = True
        return not self.must_read

    def on_read(self, log: LogEntries, sink: Sink) -> None:
        """Take what the log has after the position. `drain` delivers it, and what was held meanwhile."""
        epoch, seq = log.head
        self.must_read = False
        if not self._epoch:
            self._epoch, self._seq = epoch, seq
            self.ready.set()
        elif self._epoch != epoch:
            self._epoch, self._seq = epoch, seq
            sink.restart(self.thread_id)
        elif seq > self._seq:
            self._held.insert(0, ChannelMessage(epoch, self._seq, seq, log.frames))
        self.behind = bool(self._held) or self._overflowed

    async def drain(self, sink: Sink) -> None:
        """Deliver what is held, as fast as the sockets are written to, until the log has to be read or all is done."""
        while self.sockets and self._held and not self.must_read:
            message = self._held.pop(0)
            if not self._comes_next(message):
                self._held.insert(0, message)
                self.must_read = True
                break
            frames, rest, last = message.frames, message.frames[DELIVERED_EVENTS:], message.last
            if rest:
                frames = frames[:DELIVERED_EVENTS]
                last = frames[-1].seq
                self._held.insert(0, ChannelMessage(message.epoch, last, message.last, rest, message.size_bytes))
            else:
                self._held_bytes = max(0, self._held_bytes - message.size_bytes)
            self._deliver(frames, last, sink)
            await sink.wait_for_room(self.thread_id)
        self.must_read = self.must_read or self._overflowed
        self._overflowed = False
        self.behind = self.must_read

    def _comes_next(self, message: ChannelMessage) -> bool:
        return message.epoch == self._epoch and message.after <= self._seq

    def _deliver(self, frames: Iterable[Frame], last: int, sink: Sink) -> None:
        seq, thread_id, deliver = self._seq, self.thread_id, sink.deliver
        for frame in frames:
            if frame.seq > seq:
                seq = frame.seq
                deliver(thread_id, frame)
        if last > seq:
            # No later frame shows that these numbers are missing. Clients reconnect, and get a gap.
            seq = last
            sink.restart(self.thread_id)
        self._seq = seq


class PubSubReader:
    """The subscriptions at one node. When their connection is lost or dead, another one replaces it."""

    def __init__(self, node: Node, topology: ClusterTopology, worker: str, log_reader: LogReader, sink: Sink) -> None:
        self.node = node
        self.live = False
        """Whether the worker's last heartbeat, published as events are, came back here."""
        self.problem = ""
        """Why the last connection ended."""
        self._topology = topology
        self._worker = worker
        self._log_reader = log_reader
        self._sink = sink
        self._threads: dict[bytes, ThreadDelivery] = {}
        self._tasks: TaskGroup | None = None
        self._heartbeat_channel = b""
        self._subscribed = asyncio.Event()
        self._returned = asyncio.Event()
        self._live = asyncio.Event()
        self._changes: deque[tuple[bytes, bool]] = deque()
        """Channels to subscribe to (True) or unsubscribe from."""
        self._changed = asyncio.Event()
        self._subscribing: Counter[bytes] = Counter()
        """Subscriptions that were requested and are not confirmed. Of a channel's requests only the last one counts."""
        self._unsubscribing: Counter[bytes] = Counter()
        self._to_read: deque[ThreadDelivery] = deque()
        self._to_read_changed = asyncio.Event()

    @property
    def complete(self) -> bool:
        """Whether every thread has been delivered all that is known."""
        return not any(thread.behind for thread in self._threads.values())

    def is_subscribed(self, thread: ThreadDelivery) -> bool:
        """Whether the thread's channel is subscribed to here, now or by the next connection."""
        return self._threads.get(thread.keys.log) is thread

    async def wait_live(self) -> None:
        await self._live.wait()

    def add(self, thread: ThreadDelivery) -> None:
        """Subscribe to the thread's channel. When that is confirmed its log is read."""
        thread.lost()
        self._threads[thread.keys.log] = thread
        self._change(thread.keys.log, subscribe=True)

    def remove(self, thread: ThreadDelivery) -> None:
        """Unsubscribe from the thread's channel."""
        if self.is_subscribed(thread):
            del self._threads[thread.keys.log]
            self._change(thread.keys.log, subscribe=False)

    async def run(self) -> None:
        """Read messages, with one connection after the other, until the node has left the Cluster."""
        backoff = Backoff()
        while True:
            try:
                await self.node.wait_answering()
                async with (
                    self.node.client.pubsub(push_handler_func=_unchanged) as pubsub,
                    anyio.create_task_group() as tasks,
                ):
                    self._start(tasks)
                    # The first subscription connects. Two tasks that did so would get a connection each.
                    self._subscribing[self._heartbeat_channel] += 1
                    await pubsub.ssubscribe(self._heartbeat_channel)
                    tasks.start_soon(self._write_changes, pubsub)
                    tasks.start_soon(self._send_heartbeats, backoff)
                    for _ in range(READERS):
                        tasks.start_soon(self._read_logs)
                    async for message in pubsub.listen():
                        await self._on_message(message)
            except* CONNECTION_ERRORS as group:
                self.problem = error_message(group)
                self._topology.refresh()
            finally:
                self._end()
            await asyncio.sleep(backoff.next())

    def _start(self, tasks: TaskGroup) -> None:
        self._tasks = tasks
        self._heartbeat_channel = self._own_channel()
        self._subscribed = asyncio.Event()
        self._changes.clear()
        self._subscribing.clear()
        self._unsubscribing.clear()
        self._to_read.clear()
        for thread in self._threads.values():
            thread.queued = False
            self.add(thread)

    def _own_channel(self) -> bytes:
        """A channel of this worker alone, in a slot of this node."""
        if not self.node.slots:
            raise ConnectionResetError("the node has no slots")
        names, number = self._topology.names, 0
        while (key := names.heartbeat(self._worker, number)).slot not in self.node.slots:
            number += 1
        return key.name

    def _end(self) -> None:
        self._tasks = None
        self.live = False
        if self._live.is_set():
            self._live = asyncio.Event()
        for thread in self._threads.values():
            thread.lost()

    def _change(self, channel: bytes, *, subscribe: bool) -> None:
        # Without a connection there is nothing to write: the next one subscribes to what is wanted then.
        if self._tasks is not None:
            self._changes.append((channel, subscribe))
            self._changed.set()

    async def _write_changes(self, pubsub: PubSub) -> None:
        while True:
            while not self._changes:
                self._changed.clear()
                await self._changed.wait()
            channel, subscribe = self._changes.popleft()
            if subscribe:
                self._subscribing[channel] += 1
                await pubsub.ssubscribe(channel)
            else:
                self._unsubscribing[channel] += 1
                await pubsub.sunsubscribe(channel)

    async def _send_heartbeats(self, backoff: Backoff) -> None:
        """Publish to the worker's own channel: a dead connection is noticed because nothing comes back."""
        while True:
            try:
                async with asyncio.timeout(HEARTBEAT_TIMEOUT_SECONDS):
                    await self._send_heartbeat()
            except TimeoutError:
                problem = f"no heartbeat came back within {HEARTBEAT_TIMEOUT_SECONDS:g} s"
                raise ConnectionResetError(problem) from None
            self.live = True
            self._live.set()
            backoff.reset()
            await asyncio.sleep(HEARTBEAT_INTERVAL_SECONDS)

    async def _send_heartbeat(self) -> None:
        self._returned.clear()
        await self._subscribed.wait()
        # As events are published: that connection might end at another server than this one.
        if not await self.node.request("SPUBLISH", self._heartbeat_channel, b""):
            raise ConnectionResetError("what is published there is not received here")
        await self._returned.wait()

    async def _on_message(self, message: dict[str, Any]) -> None:
        kind, channel = message["type"], message["channel"]
        thread = self._threads.get(channel)
        if kind == "smessage":
            if thread is not None:
                await self._deliver(thread, message["data"])
            elif channel == self._heartbeat_channel:
                self._returned.set()
        elif kind == "ssubscribe":
            if _was_last(self._subscribing, channel):
                if channel == self._heartbeat_channel:
                    self._subscribed.set()
                elif thread is not None:
                    self._request_read(thread)
        elif kind == "sunsubscribe":
            if channel not in self._unsubscribing:
                raise ConnectionResetError("the slot of a channel has moved")
            _was_last(self._unsubscribing, channel)

    async def _deliver(self, thread: ThreadDelivery, data: bytes) -> None:
        try:
            message = ChannelMessage.decode(data)
        except (ValueError, msgspec.DecodeError) as error:
            # If it was an event, the log has it.
            _log.warning("a channel has a message that is not a frame: %s", error)
            thread.lost()
            self._request_read(thread)
            return
        if not thread.on_message(message, self._sink):
            self._request_read(thread)
        elif not thread.behind:
            with anyio.move_on_after(ROOM_TIMEOUT_SECONDS) as limit:
                await self._sink.wait_for_room(thread.thread_id)
            if limit.cancelled_caught:
                thread.behind = True
                self._start_drain(thread)

    def _request_read(self, thread: ThreadDelivery) -> None:
        """Read the thread's log when its turn comes."""
        if not thread.queued:
            thread.queued = True
            self._to_read.append(thread)
            self._to_read_changed.set()

    async def _read_logs(self) -> None:
        """Read one log after the other. One that cannot be read is tried again."""
        backoff = Backoff()
        while True:
            while not self._to_read:
                self._to_read_changed.clear()
                await self._to_read_changed.wait()
            thread = self._to_read.popleft()
            thread.queued = False
            if not thread.sockets:
                continue
            try:
                log = await self._log_reader.read(thread.keys, thread.position)
            except StoreAway:
                self._request_read(thread)
                await asyncio.sleep(backoff.next())
                continue
            backoff.reset()
            thread.on_read(log, self._sink)
            if thread.behind:
                self._start_drain(thread)

    def _start_drain(self, thread: ThreadDelivery) -> None:
        if self._tasks is not None and not thread.draining:
            thread.draining = True
            self._tasks.start_soon(self._drain, thread)

    async def _drain(self, thread: ThreadDelivery) -> None:
        try:
            await self._sink.wait_for_room(thread.thread_id)
            await thread.drain(self._sink)
        finally:
            thread.draining = False
        if thread.must_read:
            self._request_read(thread)


async def _unchanged(message: Any) -> Any:
    """Replaces redis-py's own handler, which formats each message for its log."""
    return message


def _was_last(requested: Counter[bytes], channel: bytes) -> bool:
    """Count a confirmation; return whether it is that of the last request."""
    requested[channel] -= 1
    if requested[channel]:
        return False
    del requested[channel]
    return True
