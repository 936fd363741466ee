"""Judge link 10: every socket of a thread reads exactly the thread's events, unchanged and numbered without a gap."""

from __future__ import annotations

import json
from collections import Counter, defaultdict, deque
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from bridgekit.errors import FrameTooLarge, PayloadError
from bridgekit.events import FRAME_BYTES, Outcome, Receipt
from bridgekit_verify.probes.recording import EmittedEvent, RecordedCall
from bridgekit_verify.probes.rules import Judgement, ViolationKind, error_text, shown
from bridgekit_verify.probes.scenario import Observation
from bridgekit_verify.probes.scenario_clients import Client

__all__ = ["judge_hub"]

ORDINALS: Final = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")

FIELDS: Final = ["seq", "type", "thread_id", "run_id", "agent_name", "event_id", "timestamp", "payload"]
FRAME_OVERHEAD_BYTES: Final = 8_192
"""More than all fields besides the payload need: ids may have 1 and 2 kB."""


@dataclass
class _Published:
    """An event that the hub accepted, and the clients that read it."""

    call: RecordedCall
    thread: str
    direct: int = 0
    """How many of the sockets that were open at publication read the event."""
    replayed: int = 0

    @property
    def event(self) -> EmittedEvent:
        return self.call.event

    @property
    def seq(self) -> int:
        """The `seq` in the receipt, or 0 if the receipt has no `seq`."""
        return 0 if self.receipt is None or self.receipt.seq is None else self.receipt.seq

    @property
    def receipt(self) -> Receipt | None:
        return self.call.result if isinstance(self.call.result, Receipt) else None

    def may_follow(self, position: int) -> bool:
        """Whether the store may have taken the event after this position, although it was published before."""
        if self.receipt is not None and self.receipt.outcome is Outcome.PENDING:
            return True
        return self.call.entered <= position and (self.call.left is None or self.call.left > position)


@dataclass
class _Threads:
    """The events published to each thread, in order."""

    by_thread: dict[str, list[_Published]] = field(default_factory=lambda: defaultdict(list))
    by_event: dict[str, list[_Published]] = field(default_factory=lambda: defaultdict(list))

    def add(self, published: _Published) -> None:
        self.by_thread[published.thread].append(published)
        self.by_event[published.event.event_id].append(published)


def judge_hub(seen: Observation) -> Judgement:
    """Compare the published events with the frames that the sockets read, field by field."""
    link, threads = Judgement(10), _Threads()
    calls = [call for call in seen.recording.of("hub", "publish") if call.has_event]
    for call in calls:
        if _accepted(link, call):
            threads.add(_Published(call, call.given["thread_id"]))
    for thread, published in threads.by_thread.items():
        _judge_numbers(link, seen, thread, published)
    for client in seen.clients:
        _judge_client(link, seen, client, threads)
    for published in threads.by_thread.values():
        for each in published:
            _judge_receipt(link, seen, each)
    _judge_subscriptions(link, seen)
    link.tried = len(calls) if seen.clients else 0
    read = sum(len(client.frames) for client in seen.clients)
    link.summary = (
        f"{len(seen.clients)} sockets of {len(seen.threads)} threads read {read:,} frames: exactly their threads'"
        " events, unchanged and in order"
    )
    return link


def _accepted(link: Judgement, call: RecordedCall) -> bool:
    """Return whether the hub accepted the event. Record a violation if the decision was wrong."""
    sendable = _sendable(call.event)
    if call.raised is None:
        link.expect(sendable is not False, ViolationKind.CHANGED, "a value that JSON cannot carry is accepted")
        link.expect(
            isinstance(call.result, Receipt), ViolationKind.FALSE_RECEIPT, f"publishing returns {shown(call.result)}"
        )
        return True
    refused = isinstance(call.raised, (PayloadError, FrameTooLarge)) and sendable is not True
    link.expect(refused, ViolationKind.LOST, error_text(call.raised))
    return False


def _sendable(event: EmittedEvent) -> bool | None:
    """Return whether the hub must accept the event, or None if its size is close to the limit."""
    try:
        size = len(json.dumps(event.payload, allow_nan=False, ensure_ascii=False).encode())
    except ValueError:
        return False
    if size > FRAME_BYTES:
        return False
    return True if size < FRAME_BYTES - FRAME_OVERHEAD_BYTES else None


def _judge_numbers(link: Judgement, seen: Observation, thread: str, published: list[_Published]) -> None:
    """Check that `seq` rises by one for each event, from 1 in a new thread."""
    starts = [client.start.seq for client in seen.clients if client.owned.thread_id == thread and client.start]
    last = 0
    if seen.application.stores.durable:  # an earlier process may have numbered events of the same thread
        last = min([*starts, published[0].seq - 1])
    epochs = set()
    for each in published:
        receipt = each.receipt
        if receipt is None or receipt.seq is None:
            last += 1
            continue
        link.expect(
            receipt.seq == last + 1,
            ViolationKind.FALSE_GAP if receipt.seq > last + 1 else ViolationKind.REORDERED,
            f"an event gets the number {receipt.seq} after {last}, although nothing was lost",
        )
        last = receipt.seq
        epochs.add(receipt.epoch)
    link.expect(
        len(epochs) <= 1, ViolationKind.FALSE_GAP, f"a thread has {len(epochs)} epochs, although its log was not lost"
    )


def _judge_client(link: Judgement, seen: Observation, client: Client, threads: _Threads) -> None:
    if client.start is None:
        link.expect(False, ViolationKind.LOST, f"a socket could not subscribe: {client.error}")
        return
    own = threads.by_thread[client.owned.thread_id]
    wanted = _wanted(seen, client, own)
    left: dict[str, deque[_Published]] = defaultdict(deque)
    for each in wanted:
        left[each.event.event_id].append(each)
    position = {id(each): place for place, each in enumerate(wanted)}
    allowed = Counter(
        each.event.event_id for each in own if id(each) not in position and each.may_follow(client.opened)
    )
    highest = -1
    missing = len(wanted)
    last_seq = client.start.seq
    skipped = False
    for frame in client.frames:
        skipped = skipped or frame.get("seq") != last_seq + 1
        last_seq = frame.get("seq", last_seq)
        found = _matching(link, client, frame, left, wanted, threads, allowed)
        if found is None:
            continue
        missing -= 1
        place = position[id(found)]
        link.expect(place > highest, ViolationKind.REORDERED, f"a socket reads {found.event.type} after a later event")
        highest = max(highest, place)
        if found.call.entered < client.opened:
            found.replayed += 1
        else:
            found.direct += 1
        _judge_frame(link, frame, found)
    complete = client.closed_by_client is not None
    if missing and not complete:
        first = next(iter(each for queue in left.values() for each in queue))
        read = len(wanted) - missing
        text = f"{read or 'none'} of {len(wanted)} events {'reach' if read > 1 else 'reaches'}"
        link.expect(False, ViolationKind.LOST, f"{text} the {_which(seen, client)}")
        link.expect(first.call.left is not None, ViolationKind.LOST, "publishing did not end")
    elif not missing:
        link.expect(
            not client.gaps and not skipped, ViolationKind.FALSE_GAP, "a client gets a gap, although no event is lost"
        )


def _which(seen: Observation, client: Client) -> str:
    if client.after is not None:
        return "socket that resumes"
    same = [other.number for other in seen.clients if other.owned is client.owned and other.after is None]
    index = same.index(client.number)
    return f"{ORDINALS[index] if index < len(ORDINALS) else 'last'} socket of a thread"


def _wanted(seen: Observation, client: Client, own: list[_Published]) -> list[_Published]:
    """Return the events that the client must read."""
    if client.after is None:
        wanted = [each for each in own if each.call.entered > client.opened]
    else:
        wanted = [each for each in own if each.seq > client.after.seq]
    if seen.forced and client.opened < seen.forced[0] and client.owned is seen.threads[2]:
        wanted = [each for each in wanted if each.call.entered <= seen.forced[0]]
    return wanted


def _matching(
    link: Judgement,
    client: Client,
    frame: dict[str, Any],
    left: dict[str, deque[_Published]],
    wanted: list[_Published],
    threads: _Threads,
    allowed: Counter[str],
) -> _Published | None:
    """Return the event that the frame carries. Record a violation if this socket must not read the event."""
    event_id, thread = frame.get("event_id"), client.owned.thread_id
    if left.get(str(event_id)):
        return left[str(event_id)].popleft()
    if allowed[str(event_id)]:
        allowed[str(event_id)] -= 1
        return None
    known = threads.by_event.get(str(event_id), [])
    if any(each.thread == thread for each in known):
        link.expect(False, ViolationKind.DUPLICATED, f"a socket reads {frame.get('type')} twice")
    elif known:
        link.expect(
            False,
            ViolationKind.MISROUTED,
            f"a socket of thread {thread!a} reads an event of thread {known[0].thread!a}",
        )
    else:
        same_place = [
            each
            for each in wanted
            if each.receipt is not None and each.receipt.seq == frame.get("seq") and left[each.event.event_id]
        ]
        link.expect(
            False, ViolationKind.CHANGED, f"a socket reads {frame.get('type')} with an event_id that was not emitted"
        )
        if same_place:
            return left[same_place[0].event.event_id].popleft()
    return None


def _judge_frame(link: Judgement, frame: dict[str, Any], published: _Published) -> None:
    event, receipt = published.event, published.receipt
    link.equal(FIELDS, list(frame), "the list of fields of a frame")
    for name in ("type", "run_id", "agent_name", "event_id"):
        link.equal(str(getattr(event, name)), frame.get(name), f"the {name} of a frame")
    link.equal(published.thread, frame.get("thread_id"), "the thread_id of a frame", ViolationKind.MISROUTED)
    link.equal(event.payload, frame.get("payload"), f"the payload of {event.type} on the wire")
    link.equal(event.timestamp, _time(frame.get("timestamp")), f"the timestamp of {event.type} on the wire")
    if receipt is not None and receipt.seq is not None:
        link.equal(receipt.seq, frame.get("seq"), "the seq of a frame", ViolationKind.FALSE_RECEIPT)


def _time(text: Any) -> object:
    try:
        return datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return text


def _sockets(count: int) -> str:
    return f"{count or 'no'} {'sockets' if count > 1 else 'socket'}"


def _judge_receipt(link: Judgement, seen: Observation, published: _Published) -> None:
    """Check that the receipt reports the number of sockets that read the event. Clients that left may be included."""
    receipt, call = published.receipt, published.call
    if receipt is None:
        return
    # A client that has just left may not read what was written to its socket.
    leaving = sum(
        client.closed_by_client is not None and client.opened < call.entered
        for client in seen.clients
        if client.owned.thread_id == published.thread
    )
    what, read = f"{published.event.type} is reported as {receipt.outcome}", published.direct
    if receipt.outcome is Outcome.SENT:
        link.expect(
            read <= receipt.sockets <= read + leaving,
            ViolationKind.FALSE_RECEIPT,
            f"{what} to {_sockets(receipt.sockets)}, but {_sockets(read)} read it",
        )
    elif receipt.outcome is Outcome.RELAYED:
        link.expect(
            bool(receipt) is bool(read) or leaving > 0 or published.replayed > 0,
            ViolationKind.FALSE_RECEIPT,
            f"{what} to {receipt.workers} workers, but {_sockets(read)} read it",
        )
    elif receipt.outcome is not Outcome.PENDING:
        link.expect(not receipt and not read, ViolationKind.FALSE_RECEIPT, f"{what}, but {_sockets(read)} read it")
        link.expect(receipt.link == 10, ViolationKind.MISCOUNTED, f"{what} at link {receipt.link} instead of link 10")
        if published.replayed:
            link.expect(
                receipt.kept, ViolationKind.FALSE_RECEIPT, f"{what} and not retained, but a client could resume it"
            )
    if receipt.thread_id is not None or receipt.seq is not None:
        link.equal(published.thread, receipt.thread_id, "the thread of a receipt", ViolationKind.FALSE_RECEIPT)


def _judge_subscriptions(link: Judgement, seen: Observation) -> None:
    counters, intruder = seen.application.counters, seen.intruder
    link.expect(
        intruder is None or intruder.start is None,
        ViolationKind.MISROUTED,
        "a user may subscribe to a thread of another user",
    )
    wanted = Counter("new" if client.after is None else "resumed" for client in seen.clients if client.start)
    counted = Counter({name: count for name, count in counters.subscriptions.items() if count})
    if counted != wanted and not counted["gap"]:
        link.expect(False, ViolationKind.MISCOUNTED, f"{dict(wanted)} subscriptions are counted as {dict(counted)}")
    for client in seen.clients:
        if client.start is not None and client.after is not None:
            link.expect(
                client.start == client.after,
                ViolationKind.FALSE_GAP,
                f"a client that resumes after {client.after.seq} begins after {client.start.seq}",
            )
