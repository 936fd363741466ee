"""What the sockets read of a wave, judged: by the project's checker, and by the moments at which events were due."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from bridgekit_verify.capacity.pipe import Heard
from bridgekit_verify.capacity.schedule import Wave
from bridgekit_verify.measure.checker import check
from bridgekit_verify.measure.history import History, Key

__all__ = ["heard", "quantile"]

QUICK_SHARE: Final = 0.25


def heard(
    wave: Wave,
    history: History,
    *,
    within_seconds: float,
    shares: tuple[float, float] = (0.0, 0.0),
    closed: int = 0,
) -> Heard:
    """Judge what was read; LedgerDoesNotClose where it does not add up.

    What the bridge answered is not in this history: a loss is counted here, and not charged to a link.
    """
    verdict = check(history)
    late, said = _lateness(wave, history)
    ordered, said = sorted(late.values()), sorted(said)
    first, last, apart = _thirds(sorted((wave.due(key), seconds) for key, seconds in late.items()))
    return Heard(
        expected=verdict.expected,
        delivered=verdict.delivered,
        within=sum(seconds <= within_seconds for seconds in ordered),
        lost=verdict.lost,
        told=sum((gap.last or gap.first) - gap.first + 1 for gaps in history.gaps.values() for gap in gaps),
        misrouted=verdict.misrouted,
        extra_copies=verdict.extra_copies,
        unexpected=verdict.unexpected,
        reordered=verdict.reordered,
        closed=closed,
        late_p50=quantile(ordered, 0.5),
        late_p99=quantile(ordered, 0.99),
        late_max=quantile(ordered, 1.0),
        late_mean=sum(ordered) / len(ordered) if ordered else 0.0,
        late_first=first,
        late_last=last,
        apart_seconds=apart,
        said_p50=quantile(said, 0.5),
        said_p99=quantile(said, 0.99),
        share=shares[0],
        kept_waiting=shares[1],
    )


def _lateness(wave: Wave, history: History) -> tuple[dict[Key, float], list[float]]:
    """How late each event was first read, and how late each was said, in seconds after it was due."""
    read, said = dict[Key, float](), list[float]()
    for arrival in history.arrivals:
        if arrival.key is not None and arrival.key not in read:
            due = wave.due(arrival.key)
            read[arrival.key] = arrival.read_at - due
            said.append(arrival.emitted_at - due)
    return read, said


def _thirds(by_due: Sequence[tuple[float, float]]) -> tuple[float, float, float]:
    """Lateness of the quick ones in the first and in the last third of the events, and how far these are apart.

    The quick ones, because a process that stood still for a moment makes many late, and one that falls behind all.
    """
    size = max(len(by_due) // 3, 1)
    first, last = by_due[:size], by_due[-size:]
    if not first:
        return 0.0, 0.0, 0.0
    apart = last[len(last) // 2][0] - first[len(first) // 2][0]
    return _quick(first), _quick(last), apart


def _quick(third: Sequence[tuple[float, float]]) -> float:
    return quantile(sorted(seconds for _, seconds in third), QUICK_SHARE)


def quantile(ordered: Sequence[float], share: float) -> float:
    """The value below which that share of the others lie; 0 of nothing."""
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else 0.0
