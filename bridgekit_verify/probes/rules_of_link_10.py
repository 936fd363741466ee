"""Judge link 10: every socket of a thread reads exactly the thread's events, unchanged and numbered without a gap."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Final

from bridgekit.errors import FrameTooLarge, PayloadError
from bridgekit.events import FRAME_BYTES, Outcome, Receipt
from bridgekit.transport.hub import NO_ROOM
from bridgekit_verify.probes.judgement import Judgement, ViolationKind, error_text, shown
from bridgekit_verify.probes.observation import Observation
from bridgekit_verify.probes.recorded_calls import EmittedEvent, RecordedCall
from bridgekit_verify.probes.rules_of_link_10_sockets import Published, PublishedEvents, judge_client

__all__ = ["judge_hub"]

FRAME_OVERHEAD_BYTES: Final = 8_192
"""Upper bound in bytes on the fields of a frame without the payload. A run id has up to 2 kB, a thread id and an agent
name up to 1 kB each."""


def judge_hub(seen: Observation) -> Judgement:
    """Compare the published events with the frames that the sockets read, field by field."""
    link, threads = Judgement(10), PublishedEvents()
    if seen.edge.hub is not seen.application.bridge.hub:
        return link  # startup gave the sockets another hub, so that no event can reach them
    calls = [
        call
        for call in seen.recording.of("hub", "publish")
        if call.has_event and (seen.ended is None or call.entered <= seen.ended)
    ]
    for call in calls:
        if _accepted(link, call) and not _has_no_room(seen, call, threads):
            threads.add(Published(call, call.given["thread_id"]))
    for thread, published in threads.by_thread.items():
        _judge_numbers(link, seen, thread, published)
    for client in seen.clients:
        judge_client(link, seen, client, threads)
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


def _has_no_room(seen: Observation, call: RecordedCall, threads: PublishedEvents) -> bool:
    """Return whether the hub refused the event because an outbox had no room, and was right.

    The refusal is right if the thread's earlier events are enough to fill an outbox.
    """
    if not isinstance(call.result, Receipt) or call.result.reason != NO_ROOM:
        return False
    limits, earlier = seen.application.config.outbox, threads.by_thread[call.given["thread_id"]]
    size = sum(len(str(each.event.payload)) for each in earlier)
    return len(earlier) >= limits.events or size >= limits.size_bytes


def _accepted(link: Judgement, call: RecordedCall) -> bool:
    """Return whether the hub accepted the event. Record a violation if the hub should have decided otherwise."""
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
    """Return whether the hub must accept the event, or None if its size is close to the limit or an id is no text."""
    # A broken link may pass on values of other types.
    if getattr(event.timestamp, "tzinfo", None) is None or not isinstance(event.payload, Mapping):
        return False
    try:
        size = len(json.dumps(event.payload, allow_nan=False, ensure_ascii=False).encode())
    except (TypeError, ValueError, RecursionError):
        return False
    if not all(isinstance(each, str) for each in (event.type, event.run_id, event.agent_name, event.event_id)):
        return None
    if size > FRAME_BYTES:
        return False
    return True if size < FRAME_BYTES - FRAME_OVERHEAD_BYTES else None


def _judge_numbers(link: Judgement, seen: Observation, thread: str, published: list[Published]) -> None:
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


def _sockets(count: int) -> str:
    return f"{count or 'no'} {'sockets' if count > 1 else 'socket'}"


def _judge_receipt(link: Judgement, seen: Observation, published: Published) -> None:
    """Check the receipt's count of sockets: those that read the event, and perhaps those of clients that left."""
    receipt, call = published.receipt, published.call
    if receipt is None:
        return
    # The receipt may count the socket of a client that left before it read the frame.
    leaving = sum(
        client.closed_by_client is not None and client.opened < call.entered
        for client in seen.clients
        if client.owned.thread_id == published.thread
    )
    what, read = f"{published.event.type} is reported as {receipt.outcome}", published.direct
    if receipt.outcome is Outcome.SENT:
        link.expect(
            read <= receipt.sockets <= read + published.joining + leaving,
            ViolationKind.FALSE_RECEIPT,
            f"{what} to {_sockets(receipt.sockets)}, but {_sockets(read)} received it",
        )
    elif receipt.outcome is Outcome.RELAYED:
        link.expect(
            bool(receipt) is bool(read) or leaving > 0 or published.replayed + published.joining > 0,
            ViolationKind.FALSE_RECEIPT,
            f"{what} to {receipt.workers} workers, but {_sockets(read)} received it",
        )
    elif receipt.outcome is not Outcome.PENDING:
        link.expect(not receipt and not read, ViolationKind.FALSE_RECEIPT, f"{what}, but {_sockets(read)} received it")
        link.expect(receipt.link == 10, ViolationKind.MISCOUNTED, f"{what} at link {receipt.link} instead of link 10")
        if published.replayed + published.joining:
            link.expect(
                receipt.kept, ViolationKind.FALSE_RECEIPT, f"{what} and not retained, but a client could resume it"
            )
    if receipt.thread_id is not None or receipt.seq is not None:
        link.equal(published.thread, receipt.thread_id, "the thread of a receipt", ViolationKind.FALSE_RECEIPT)


def _judge_subscriptions(link: Judgement, seen: Observation) -> None:
    counters = seen.edge.counters
    link.expect(
        not seen.attached, ViolationKind.HANDOVER, f"the hub has {seen.attached} connections after all sockets closed"
    )
    link.expect(not seen.kept_access, ViolationKind.MISROUTED, "a socket stays open after the end of its access")
    for what, intruder in seen.intruders:
        link.expect(intruder.start is None, ViolationKind.MISROUTED, f"a user may subscribe to {what}")
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
