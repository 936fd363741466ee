"""Counting what was sent and what was not, by link and reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from bridgekit.events import AgentEvent, EventType, Outcome, Receipt
from bridgekit.signals import Gap, GapReason

__all__ = ["DeliveryCounters"]

_SENT: Final = Outcome.SENT


class DeliveryCounters:
    """The books of one application, from its start: every event is counted once, by what became of it."""

    def __init__(self) -> None:
        self.sent: Counter[EventType] = Counter()
        """Events that at least one socket took, or another worker for its sockets, by type."""
        self.kept: Counter[EventType] = Counter()
        """Events that no socket took yet, and that the thread's log has for who resumes."""
        self.pending: Counter[EventType] = Counter()
        """Events that waited for a store that did not answer when their sender was."""
        self.lost: Counter[tuple[int, str]] = Counter()
        """Events that nobody got and nobody will, by (link, reason)."""
        self.unwritten: Counter[str] = Counter()
        """Frames that a socket took and then closed on, by reason. Their events were counted as sent."""
        self.coalesced = 0
        """Frames that made room for later ones of their run and type, because their socket was slow."""
        self.subscriptions: Counter[str] = Counter()
        """Sockets let in: "new", "resumed" whole, or "gap": told what they miss."""
        self.gaps: Counter[GapReason] = Counter()
        """Gaps that sockets were told of, by reason; of those told between events, once the socket has ended."""
        self.refused: Counter[int] = Counter()
        """Sockets not let in, by close code."""

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
        """Count a socket that was let in, and what it was told that it misses."""
        self.gaps.update(gap.reason for gap in gaps)
        self.subscriptions["gap" if gaps else "resumed" if resuming else "new"] += 1

    def count_end(self, reason: str, *, unwritten: int, coalesced: int, gaps: Mapping[GapReason, int]) -> None:
        """Count what a socket that has ended left behind, and what it was told between events."""
        if unwritten:
            self.unwritten[reason] += unwritten
        self.coalesced += coalesced
        self.gaps.update(gaps)

    def clear(self) -> None:
        """Forget everything: the counting starts when the application is up."""
        counters: tuple[Counter[Any], ...] = (
            self.sent, self.kept, self.pending, self.lost, self.unwritten, self.subscriptions, self.gaps, self.refused
        )  # fmt: skip
        for counter in counters:
            counter.clear()
        self.coalesced = 0
