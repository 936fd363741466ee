"""Judge link 10 by comparing the frames that one socket read with the events that the hub accepted."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from bridgekit.cursors_and_gaps import Cursor, GapReason
from bridgekit.event_types import POLICIES, Policy
from bridgekit.events import Outcome, Receipt
from bridgekit_verify.probes.judgement import Judgement, ViolationKind
from bridgekit_verify.probes.observation import Observation
from bridgekit_verify.probes.recorded_calls import EmittedEvent, RecordedCall
from bridgekit_verify.probes.scenario_clients import Client

__all__ = ["Published", "PublishedEvents", "judge_client"]

ORDINALS: Final = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")

FIELDS: Final = ["seq", "type", "thread_id", "run_id", "agent_name", "event_id", "timestamp", "payload"]
CONCATENATED: Final = frozenset(kind for kind, policy in POLICIES.items() if policy is Policy.CONCATENATE)


@dataclass(eq=False)
class Published:
    """An event that the hub accepted, and how many clients read it."""

    call: RecordedCall
    thread: str
    direct: int = 0
    """How many of the sockets that were open at publication read the event."""
    replayed: int = 0
    joining: int = 0
    """How many sockets read the event that were subscribing at publication: in the replay, or directly."""

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
        """Whether the event may have been stored after `position` in the recording."""
        if self.receipt is not None and self.receipt.outcome is Outcome.PENDING:
            return True
        return self.call.entered <= position and (self.call.left is None or self.call.left > position)


@dataclass
class PublishedEvents:
    """The events published to each thread, in order."""

    by_thread: dict[str, list[Published]] = field(default_factory=lambda: defaultdict(list))
    by_event: dict[str, list[Published]] = field(default_factory=lambda: defaultdict(list))

    def add(self, published: Published) -> None:
        self.by_thread[published.thread].append(published)
        self.by_event[published.event.event_id].append(published)


def judge_client(link: Judgement, seen: Observation, client: Client, published: PublishedEvents) -> None:
    """Check that the client reads exactly its thread's events, in order and unchanged, and gets no false gap."""
    if client.start is None:
        link.expect(False, ViolationKind.LOST, f"a socket could not subscribe: {client.error}")
        return
    text = f"a socket reads a message that is no event: {next(iter(client.malformed), '')}"
    link.expect(not client.malformed, ViolationKind.CHANGED, text)
    reading = _Reading(link, seen, client, published, client.start)
    for frame in client.frames:
        reading.add(frame)
    if client.closed_by_client is None:
        reading.judge_missing()
    else:
        reading.superseded()


class _Reading:
    """The events that one client must read, and the events that it has read so far."""

    def __init__(
        self, link: Judgement, seen: Observation, client: Client, published: PublishedEvents, start: Cursor
    ) -> None:
        self._link, self._seen, self._client, self._published = link, seen, client, published
        own = published.by_thread[client.owned.thread_id]
        self._wanted = _wanted(client, own)
        self._position = {id(each): place for place, each in enumerate(self._wanted)}
        self._left: dict[str, deque[Published]] = defaultdict(deque)
        """The events that were not read yet, by event id."""
        for each in self._wanted:
            self._left[each.event.event_id].append(each)
        self._allowed = Counter(
            each.event.event_id for each in own if id(each) not in self._position and each.may_follow(client.opened)
        )
        self._highest = -1
        self._last_seq = start.seq
        self._skipped = set[int]()
        """Every `seq` that the client had not read when it read a frame with a higher `seq`."""
        self._read = set[int]()
        """`id()` of each `Published` that the client has read."""

    def add(self, frame: dict[str, Any]) -> None:
        """Judge the next frame."""
        seq = frame["seq"]
        self._skipped.update(range(self._last_seq + 1, frame.get("first_seq") or seq))
        self._last_seq = seq
        joined = list(self._joined(frame)) if frame.get("first_seq") else []
        found = joined[-1] if joined else self._matching(frame)
        if found is None:
            return
        place = self._position[id(found)]
        self._link.expect(
            place > self._highest, ViolationKind.REORDERED, f"a socket reads {found.event.type} after a later event"
        )
        self._highest = max(self._highest, place)
        for each in joined or [found]:
            self._count(each)
        if not joined:
            _judge_frame(self._link, frame, found)

    def judge_missing(self) -> None:
        """Judge the events that the client did not read. A full outbox may drop only superseded events."""
        superseded = {each.seq for each in self.superseded()}
        gaps = self._client.gaps
        signalled = {seq for gap in gaps if gap.get("reason") == GapReason.COALESCED for seq in _range_of(gap)}
        lost = len(self._wanted) - len(self._read) + len(superseded - signalled)
        if lost:
            count = len(self._wanted) - lost
            text = f"{count or 'none'} of {len(self._wanted)} events {'reach' if count > 1 else 'reaches'}"
            self._link.expect(False, ViolationKind.LOST, f"{text} the {_which(self._seen, self._client)}")
            return
        self._link.expect(
            superseded >= signalled >= self._skipped
            and all(gap.get("reason") == GapReason.COALESCED for gap in self._client.gaps),
            ViolationKind.FALSE_GAP,
            "a client gets a gap, although no event is lost",
        )

    def superseded(self) -> list[Published]:
        """Return the unread events that a full outbox may have dropped, and count them as read."""
        found = [each for each in self._wanted if id(each) not in self._read and self._is_superseded(each)]
        for each in found:
            self._count(each)
        return found

    def _count(self, published: Published) -> None:
        self._read.add(id(published))
        entered, client = published.call.entered, self._client
        if entered < client.opened:
            published.replayed += 1
        elif client.subscribed is not None and entered <= client.subscribed:
            published.joining += 1
        else:
            published.direct += 1

    def _is_superseded(self, missing: Published) -> bool:
        """Return whether a full outbox may have dropped the event.

        Only types whose events are coalesced are dropped. The client must have read a later event of the same run and
        type. All events that the client should read after the missing event must fill at least half an outbox.
        """
        later = self._wanted[self._position[id(missing)] + 1 :]
        limits = self._seen.application.config.outbox
        key = missing.event.run_id, missing.event.type
        return (
            POLICIES[missing.event.type] is Policy.COALESCE
            and any((each.event.run_id, each.event.type) == key and id(each) in self._read for each in later)
            and (
                len(later) >= limits.events // 2
                or sum(len(str(each.event.payload)) for each in later) >= limits.size_bytes // 2
            )
        )

    def _joined(self, frame: dict[str, Any]) -> Iterator[Published]:
        """Yield the `text_delta` events that a full outbox joined into this frame, or none if it joins other events."""
        link, first, last = self._link, frame["first_seq"], frame["seq"]
        deltas = [each for each in self._wanted if first <= each.seq <= last]
        messages = {(each.event.type, each.event.run_id, each.event.payload.get("message_id")) for each in deltas}
        if not link.expect(
            len(deltas) == last - first + 1 and len(messages) == 1 and deltas[0].event.type in CONCATENATED,
            ViolationKind.LOST,
            "a frame joins events of several messages, or of no message",
        ):
            return
        event = deltas[-1].event
        text = "".join(each.event.payload["delta"] for each in deltas)
        for name in ("type", "run_id", "event_id"):
            link.equal(str(getattr(event, name)), frame.get(name), f"the {name} of a frame of joined deltas")
        link.equal({**event.payload, "delta": text}, frame.get("payload"), "the payload of a frame of joined deltas")
        for each in deltas:
            if each in self._left[each.event.event_id]:
                self._left[each.event.event_id].remove(each)
                yield each
            else:
                link.expect(False, ViolationKind.DUPLICATED, f"a socket reads {each.event.type} twice")

    def _matching(self, frame: dict[str, Any]) -> Published | None:
        """Return the event that the client must read and that the frame carries, or None.

        Record a violation if this socket must not read the frame.
        """
        event_id, thread = str(frame.get("event_id")), self._client.owned.thread_id
        if waiting := self._left.get(event_id):
            # If link 8 is broken, several events can have the same id. Take the event with the frame's `seq`.
            found = next((each for each in waiting if each.seq == frame.get("seq")), waiting[0])
            waiting.remove(found)
            return found
        if self._allowed[event_id]:
            self._allowed[event_id] -= 1
            return None
        known = self._published.by_event.get(event_id, [])
        ended = self._client.access_ended
        if ended is not None and any(each.thread == thread and each.call.entered > ended for each in known):
            self._link.expect(False, ViolationKind.MISROUTED, "a socket reads an event after the end of its access")
            return None
        if any(each.thread == thread for each in known):
            self._link.expect(False, ViolationKind.DUPLICATED, f"a socket reads {frame.get('type')} twice")
            return None
        if known:
            text = f"a socket of thread {thread!a} reads an event of thread {known[0].thread!a}"
            self._link.expect(False, ViolationKind.MISROUTED, text)
            return None
        text = f"a socket reads {frame.get('type')} with an event_id that was not emitted"
        self._link.expect(False, ViolationKind.CHANGED, text)
        same_place = [
            each
            for each in self._wanted
            if each.receipt is not None and each.receipt.seq == frame.get("seq") and self._left[each.event.event_id]
        ]
        return self._left[same_place[0].event.event_id].popleft() if same_place else None


def _range_of(gap: dict[str, Any]) -> range:
    return range(gap["from"], (gap.get("to") or gap["from"]) + 1)


def _which(seen: Observation, client: Client) -> str:
    if client.after is not None:
        return "socket that resumes"
    same = [other.number for other in seen.clients if other.owned is client.owned and other.after is None]
    index = same.index(client.number)
    return f"{ORDINALS[index] if index < len(ORDINALS) else 'last'} socket of a thread"


def _wanted(client: Client, own: list[Published]) -> list[Published]:
    """Return the events that the client must read."""
    if client.after is None:
        wanted = [each for each in own if each.call.entered > client.opened and not _before(client, each)]
    else:
        wanted = [each for each in own if each.seq > client.after.seq]
    if client.closed_by_server is not None:
        wanted = [each for each in wanted if each.call.entered <= client.closed_by_server]
    return wanted


def _before(client: Client, published: Published) -> bool:
    """Return whether the event was published while the client subscribed, before its stream begins."""
    subscribed = client.subscribed is None or published.call.entered > client.subscribed
    return not subscribed and client.start is not None and 0 < published.seq <= client.start.seq


def _judge_frame(link: Judgement, frame: dict[str, Any], published: Published) -> None:
    event, receipt = published.event, published.receipt
    link.equal(FIELDS, list(frame), "the list of fields of a frame")
    for name in ("type", "run_id", "agent_name", "event_id"):
        value = getattr(event, name)
        link.equal(str(value) if isinstance(value, str) else value, frame.get(name), f"the {name} of a frame")
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
