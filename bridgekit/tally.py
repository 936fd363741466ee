"""Counting what was sent and what was not, by link and reason."""

from __future__ import annotations

from collections import Counter

from bridgekit.events import AgentEvent, EventType, Outcome, Receipt

__all__ = ["Tally"]


class Tally:
    """The books of one application, from its start: every event is counted once, sent or lost."""

    def __init__(self) -> None:
        self.sent: Counter[EventType] = Counter()
        """Events that at least one socket took, by type."""
        self.lost: Counter[tuple[int, str]] = Counter()
        """Events that nobody got, by (link, reason)."""
        self.unwritten: Counter[str] = Counter()
        """Frames that a socket took and then closed on, by reason. Their events were counted as sent."""

    def count(self, event: AgentEvent, receipt: Receipt) -> None:
        if receipt.outcome is Outcome.SENT:
            self.sent[event.type] += 1
        else:
            self.lost[receipt.link or 0, receipt.reason] += 1

    def clear(self) -> None:
        """Forget everything: the counting starts when the application is up."""
        self.sent.clear()
        self.lost.clear()
        self.unwritten.clear()
