"""Faults of links 8 to 10 that developers of such backends make often, each in one method."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator
from datetime import timedelta, timezone
from typing import Any, Final

import msgspec

from bridgekit.chain.link_7_8_adapter import Emitter, WebSocketBridgeAdapter
from bridgekit.chain.link_9_bridge import AgentWebSocketBridge
from bridgekit.counters import DeliveryCounters
from bridgekit.cursors_and_gaps import Cursor, GapReason
from bridgekit.errors import BridgekitError
from bridgekit.events import AgentEvent, EventType, Frame, Outcome, Receipt
from bridgekit.mapping import MemoryMappingStore, RunThreadMappingService
from bridgekit.transport import log as event_log
from bridgekit.transport import outbox
from bridgekit.transport.connections import ConnectionRegistry
from bridgekit.transport.hub import Hub
from bridgekit.transport.log import MemoryEventLog, _RetainedFrames
from bridgekit.transport.outbox import Subscriber
from bridgekit.transport.pinned_lru import new_epoch
from bridgekit.transport.writer import NativeSubscriber
from tests.verify.probes.injected_faults import (
    SENT,
    Fault,
    Original,
    changed,
    event_of_notify,
    event_of_publish,
    mapped,
    payload_of_emit,
)

__all__ = ["DELIVERY_FAULTS"]

Replacement = Callable[..., Any]
TOKYO: Final = timezone(timedelta(hours=9))


# Link 8: emission


def as_type(before: EventType, after: Any) -> Callable[[Original], Replacement]:
    def replacement(original: Original) -> Replacement:
        return lambda self, kind, payload: original(self, after if kind is before else kind, payload)

    return replacement


def losing_the_first(original: Original) -> Replacement:
    def emit(self: Any, kind: EventType, payload: Any) -> Any:
        if not vars(self).setdefault("_open", False):
            self._open = True
            return SENT
        return original(self, kind, payload)

    return emit


def cut_at(length: int) -> Callable[[Any], Any]:
    return lambda payload: mapped(payload, lambda text: text if len(text) <= length else text[: length - 1] + "…")


def as_float(number: Any) -> Any:
    return float(number) if type(number) is int else number


def as_text(number: Any) -> Any:
    return str(number) if type(number) in (int, float) else number


def emitting_again_if_not_sent(original: Original) -> Replacement:
    async def emit(self: Any, kind: EventType, payload: Any) -> Any:
        receipt = await original(self, kind, payload)
        return receipt if receipt or receipt.outcome is Outcome.REFUSED else await original(self, kind, payload)

    return emit


def numbering_the_events_of_an_adapter(original: Original) -> Replacement:
    def emit(self: Any, kind: EventType, payload: Any) -> Any:
        if self.bridge is None or self.guarded:
            return original(self, kind, payload)
        self._count = vars(self).get("_count", 0) + 1
        event = AgentEvent(
            type=kind, run_id=self.run_id, agent_name=self.agent_name, payload=payload, thread_id=self.thread_id,
            event_id=f"event {self._count}",
        )  # fmt: skip
        return self.bridge.notify(event)

    return emit


def default_context_shared(original: Original) -> Replacement:
    shared: dict[str, Any] = {}

    async def emit_agent_started(self: Any, message: Any = None, *, context: Any = None) -> Any:
        shared.update(context or {})
        return await original(self, message, context=dict(shared))

    return emit_agent_started


# Link 9: bridge, mapping


def notifying_again_if_not_sent(original: Original) -> Replacement:
    def notify(self: Any, event: AgentEvent) -> Any:
        answer = original(self, event)
        if isinstance(answer, Receipt) and answer.outcome is Outcome.NO_SUBSCRIBER:
            return original(self, event)
        return answer

    return notify


def grouping_the_events_of_a_tool(original: Original) -> Replacement:
    held: dict[Any, AgentEvent] = {}

    def notify(self: Any, event: AgentEvent) -> Any:
        if event.type is EventType.TOOL_EXECUTING and event.thread_id:
            held[event.run_id, event.payload["tool_call_id"]] = event
            return SENT
        if event.type is EventType.TOOL_COMPLETED:
            first = held.pop((event.run_id, event.payload["tool_call_id"]), None)
            if first is not None:
                original(self, first)
        return original(self, event)

    return notify


def forgetting_all_but(count: int) -> Callable[[Original], Replacement]:
    def replacement(original: Original) -> Replacement:
        def insert(self: Any, run_id: Any, thread_id: Any) -> Any:
            stored = original(self, run_id, thread_id)
            while len(self) > count:
                self.evict(next(iter(self._routes)))
            return stored

        return insert

    return replacement


def reporting_errors_as_refused(original: Original) -> Replacement:
    def notify(self: Any, event: AgentEvent) -> Any:
        try:
            return original(self, event)
        except BridgekitError as error:
            return Receipt(outcome=Outcome.REFUSED, link=9, reason=type(error).__name__)

    return notify


def ignoring_the_named_thread(original: Original) -> Replacement:
    async def notify_in_thread(self: Any, thread_id: Any, event: AgentEvent) -> Any:
        return await self.notify(event)

    return notify_in_thread


def composing_runs(original: Original) -> Replacement:
    return lambda self, run_id, thread_id: original(self, unicodedata.normalize("NFC", run_id), thread_id)


def without_routes_of_ended_runs(original: Original) -> Replacement:
    async def get_thread_id(self: Any, run_id: Any) -> Any:
        return None if self._store.due(run_id) is not None else await original(self, run_id)

    return get_thread_id


def omitting_empty_results(original: Original) -> Replacement:
    async def notify(self: Any, *given: Any, result: Any = None, **options: Any) -> Any:
        return await original(self, *given, result=result or None, **options)

    return notify


def not_calling_observers(original: Original) -> Replacement:
    def record(self: Any, event: Any, receipt: Any) -> None:
        self.counters.count(event, receipt)

    return record


def counting_only_critical_events(original: Original) -> Replacement:
    def count(self: Any, event: Any, receipt: Receipt) -> None:
        if event.type is not EventType.PROGRESS_UPDATE:
            original(self, event, receipt)

    return count


# Link 10: hub, log and outbox


def replaying(more: int) -> Callable[[Original], Replacement]:
    return lambda original: lambda self, count: original(self, max(0, count + more) if count else count)


def retaining(count: int) -> Callable[[Original], Replacement]:
    return lambda original: lambda self, wanted: original(self, min(wanted, count))


def without_the_last_replayed(original: Original) -> Replacement:
    return lambda self, replay: original(self, replay)[:-1] if replay.frames else original(self, replay)


def detaching_the_thread(original: Original) -> Replacement:
    return lambda self, connection: self._connections.pop(connection.thread_id, None)


def detaching_the_user(original: Original) -> Replacement:
    def detach(self: Any, connection: Any) -> None:
        for thread in list(self._connections):
            for other in self.connections(thread):
                if other.user_id == connection.user_id:
                    original(self, other)

    return detach


def forgetting_threads_without_sockets(original: Original) -> Replacement:
    def leave(self: Any, thread_id: Any) -> None:
        original(self, thread_id)
        if not self._threads.get(thread_id).pins:
            self._threads._all.pop(thread_id)
            self._threads._unpinned.pop(thread_id)
            self._with_frames.pop(thread_id, None)

    return leave


def with_a_new_epoch(original: Original) -> Replacement:
    async def replay(self: Any, thread_id: Any, after: Any) -> Any:
        found = await original(self, thread_id, after)
        return found._replace(cursor=Cursor(new_epoch(), found.cursor.seq))

    return replay


def without_gaps(original: Original) -> Replacement:
    return lambda self, first, last, queue: iter(())


def reporting_every_gap_as_lost(original: Original) -> Replacement:
    def encode(signal: Any) -> bytes:
        if hasattr(signal, "reason"):
            signal = msgspec.structs.replace(signal, reason=GapReason.LOST)
        return bytes(original(signal))

    return encode


def ending_gaps_one_too_early(original: Original) -> Replacement:
    def encode(signal: Any) -> bytes:
        if hasattr(signal, "reason") and signal.last is not None:
            signal = msgspec.structs.replace(signal, last=signal.last - 1)
        return bytes(original(signal))

    return encode


def dropping_over_limits(original: Original) -> Replacement:
    def put(self: Any, frame: Frame) -> bool:
        if len(self) >= self._limits.events // 2:
            return True
        return bool(original(self, frame))

    return put


def encoded_by(change: Callable[[bytes], bytes]) -> Callable[[Original], Replacement]:
    return lambda original: lambda event, *limit: change(original(event, *limit))


def seq_as_text(data: bytes) -> bytes:
    head, _, rest = data.partition(b",")
    return b'{"seq":"' + head.rpartition(b":")[2] + b'",' + rest


def not_ending_access(original: Original) -> Replacement:
    def end_access(self: Any, **criteria: Any) -> int:
        return len(self._open_sockets)

    return end_access


def ending_access_of_the_first_socket(original: Original) -> Replacement:
    def end_access(self: Any, **criteria: Any) -> int:
        every = self._open_sockets
        self._open_sockets = set(list(every)[:1])
        try:
            return int(original(self, **criteria))
        finally:
            self._open_sockets = every

    return end_access


def losing_every_tenth_lone_frame(original: Original) -> Replacement:
    count = [0]

    def write(self: Any, frame: Frame) -> bool:
        count[0] += 1
        if count[0] % 10 == 0:
            self._last_sent_seq = frame.seq
            return True
        return bool(original(self, frame))

    return write


def rows() -> Iterator[Fault]:
    adapter, bridge = WebSocketBridgeAdapter, AgentWebSocketBridge
    undefined = as_type(EventType.AGENT_THINKING, EventType("agent_thought"))
    yield Fault("type of an undefined name", 8, adapter, "emit", undefined)
    yield Fault("type as a text", 8, adapter, "emit", as_type(EventType.AGENT_THINKING, "agent_thinking"))
    progress = as_type(EventType.TEXT_DELTA, EventType.PROGRESS_UPDATE)
    yield Fault("text as progress", 8, adapter, "emit", progress)
    yield Fault("first event of an agent lost", 8, adapter, "emit", losing_the_first)
    yield Fault("long texts cut", 8, adapter, "emit", payload_of_emit(cut_at(4_096)))
    yield Fault("numbers as floats", 8, adapter, "emit", payload_of_emit(lambda p: mapped(p, number=as_float)))
    yield Fault("numbers as texts", 8, adapter, "emit", payload_of_emit(lambda p: mapped(p, number=as_text)))
    yield Fault("emitted again if not sent", 8, adapter, "emit", emitting_again_if_not_sent)
    yield Fault("ids numbered by adapter", 8, adapter, "emit", numbering_the_events_of_an_adapter)
    yield Fault("shared default context", 8, Emitter, "emit_agent_started", default_context_shared)
    tokyo = changed(timestamp=lambda event: event.timestamp.astimezone(TOKYO))
    yield Fault("local time by bridge", 9, bridge, "notify", event_of_notify(tokyo))
    yield Fault("notified again if not sent", 9, bridge, "notify", notifying_again_if_not_sent)
    yield Fault("events of a tool grouped", 9, bridge, "notify", grouping_the_events_of_a_tool)
    yield Fault("1,000 routes", 9, MemoryMappingStore, "insert", forgetting_all_but(1_000))
    yield Fault("errors refused by bridge", 9, bridge, "notify", reporting_errors_as_refused)
    yield Fault("named thread ignored", 9, bridge, "notify_in_thread", ignoring_the_named_thread)
    yield Fault("run ids composed", 9, MemoryMappingStore, "insert", composing_runs)
    late = without_routes_of_ended_runs
    yield Fault("no route after the end", 9, RunThreadMappingService, "get_thread_id", late)
    yield Fault("empty results omitted", 9, bridge, "notify_agent_completed", omitting_empty_results)
    yield Fault("observers not called", 9, bridge, "record", not_calling_observers)
    yield Fault("progress not counted", 9, DeliveryCounters, "count", counting_only_critical_events)
    yield Fault("local time by hub", 10, Hub, "publish", event_of_publish(tokyo))
    yield Fault("replay begins too late", 10, _RetainedFrames, "latest", replaying(-1))
    yield Fault("replay begins too early", 10, _RetainedFrames, "latest", replaying(1))
    yield Fault("50 events retained", 10, _RetainedFrames, "latest", retaining(50))
    yield Fault("last replayed frame lost", 10, Subscriber, "start", without_the_last_replayed)
    yield Fault("thread detached", 10, Hub, "detach", detaching_the_thread)
    yield Fault("user detached", 10, Hub, "detach", detaching_the_user)
    yield Fault("log ends with its sockets", 10, MemoryEventLog, "leave", forgetting_threads_without_sockets)
    yield Fault("epoch of each socket", 10, MemoryEventLog, "replay", with_a_new_epoch)
    yield Fault("no gaps", 10, Subscriber, "_gaps", without_gaps)
    yield Fault("every gap lost", 10, outbox, "encode_signal", reporting_every_gap_as_lost)
    yield Fault("gaps end too early", 10, outbox, "encode_signal", ending_gaps_one_too_early)
    yield Fault("dropped if half full", 10, Subscriber, "put", dropping_over_limits)
    yield Fault("seq as a text", 10, event_log, "encode", encoded_by(seq_as_text))
    without_seq = encoded_by(lambda data: b"{" + data.partition(b",")[2])
    yield Fault("frames without seq", 10, event_log, "encode", without_seq)
    yield Fault("frames in a list", 10, event_log, "encode", encoded_by(lambda data: b"[" + data + b"]"))
    camel = encoded_by(lambda data: data.replace(b'"thread_id":', b'"threadId":'))
    yield Fault("names in camel case", 10, event_log, "encode", camel)
    two = encoded_by(lambda data: data + b"\n" + data)
    yield Fault("two frames in a message", 10, event_log, "encode", two)
    null = encoded_by(lambda data: b"null")
    yield Fault("frames of null", 10, event_log, "encode", null)
    lone = losing_every_tenth_lone_frame
    yield Fault("native: lone frames lost", 10, NativeSubscriber, "_write_directly", lone)
    yield Fault("access not ended", 10, ConnectionRegistry, "end_access", not_ending_access)
    yield Fault("access of one socket ended", 10, ConnectionRegistry, "end_access", ending_access_of_the_first_socket)


DELIVERY_FAULTS: Final = tuple(rows())
