"""Counters of delivered and lost events, by event type, link and reason."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from typing import Final

from bridgekit.cursors_and_gaps import Gap, GapReason
from bridgekit.events import AgentEvent, EventType, Outcome, Receipt

__all__ = ["NOT_AWAITED", "NO_BRIDGE", "RUN_ENDED", "DeliveryCounters"]

NO_BRIDGE: Final = "the adapter holds no bridge or no run id"
"""The `reason` of the receipt for an event of an adapter whose `set_websocket_bridge` was not called."""

NOT_AWAITED: Final = "an outbox was crowded, and the caller did not await the result"
"""The `reason` of the receipt for an event that had to wait for room, but whose caller discarded the result."""

RUN_ENDED: Final = "the run has ended"
"""The `reason` of the receipt for a run's second end event."""

_SENT: Final = Outcome.SENT


class DeliveryCounters:
    """The delivery counters of one application since it started.

    Each event is counted exactly once, by its outcome, unless its caller is cancelled before its route is known, or
    does not await the result of a call that looks up the route or asks a store. Every application of the process counts
    an event of an adapter without a bridge.
    """

    def __init__(self) -> None:
        self.sent: Counter[EventType] = Counter()
        """The number of events of each type that a socket, or another worker with sockets of the thread, accepted."""
        self.kept: Counter[EventType] = Counter()
        """The number of events of each type that no socket accepted, and that the thread's log retains for clients that
        resume."""
        self.pending: Counter[EventType] = Counter()
        """The number of events of each type that the store had not confirmed when the bridge returned their receipts,
        or when their callers were cancelled."""
        self.lost: Counter[tuple[int, str]] = Counter()
        """The number of events that no client received and no client can receive later, by link and reason."""
        self.unwritten: Counter[str] = Counter()
        """The number of frames that were in a socket's outbox when the socket closed, by reason. The events of these
        frames count as sent."""
        self.coalesced = 0
        """The number of frames that outboxes of slow sockets replaced with later frames of the same run and type."""
        self.concatenated = 0
        """The number of frames whose text outboxes of slow sockets appended to the text of the previous frame."""
        self.subscriptions: Counter[str] = Counter()
        """The number of accepted subscriptions: "gap" if a gap signal was sent at the start, otherwise "resumed" or
        "new"."""
        self.gaps: Counter[GapReason] = Counter()
        """Gap signals sent, by reason."""
        self.refused: Counter[int] = Counter()
        """Refused subscriptions, by close code."""

    @cached_property
    def instance(self) -> str:
        """A random id, because a process may have several applications, and containers may use the same process id."""
        return secrets.token_hex(4)

    def count(self, event: AgentEvent, receipt: Receipt) -> None:
        """Count an event by its receipt."""
        if (receipt.outcome is _SENT and receipt.sockets) or receipt:
            self.sent[event.type] += 1
        elif receipt.kept:
            self.kept[event.type] += 1
        elif receipt.outcome is Outcome.PENDING:
            self.pending[event.type] += 1
        else:
            self.lost[receipt.link or 0, receipt.reason] += 1

    def count_subscription(self, resuming: bool, gaps: Sequence[Gap]) -> None:
        """Count an accepted subscription and the gap signals that were sent at its start."""
        self.gaps.update(gap.reason for gap in gaps)
        self.subscriptions["gap" if gaps else "resumed" if resuming else "new"] += 1

    def clear(self) -> None:
        """Reset every counter. Startup resets the counters after its self-checks, whose events must not count."""
        for counter in vars(self).values():
            if isinstance(counter, Counter):
                counter.clear()
        self.coalesced = self.concatenated = 0
