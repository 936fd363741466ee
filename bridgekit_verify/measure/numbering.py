"""Find numbering errors: events whose `seq` contradicts the order of emission, and gaps without a lost event."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Final

from bridgekit_verify.measure.history import Arrival, EventKey, History
from bridgekit_verify.measure.ledger import Row

__all__ = ["false_gaps", "irregular_sockets", "reordered_in_run"]

END: Final = 1 << 63
"""A number greater than every `seq`, which stands for the unknown last `seq` of a gap."""


def irregular_sockets(positions: Mapping[EventKey, int], arrivals: Iterable[Arrival]) -> set[int]:
    """Return the sockets whose frames are not numbered consecutively in the order of emission.

    Frames of all other sockets have no numbering error. `positions` maps each event to its position in the order of
    emission.
    """
    last: dict[int, tuple[int, int]] = {}
    irregular: set[int] = set()
    for arrival in arrivals:
        number, seq, key = arrival.socket.number, arrival.seq, arrival.key
        place = -1 if key is None else positions.get(key, -1)
        if (before := last.get(number)) is not None and (seq != before[0] + 1 or place <= before[1]):
            irregular.add(number)
        last[number] = seq, place
    return irregular


def reordered_in_run(positions: Mapping[EventKey, int], arrivals: Iterable[Arrival], irregular: set[int]) -> int:
    """Return how many frames have a higher `seq` than an event that their run emitted later.

    `arrivals` are frames at entitled sockets. Each socket and epoch is counted separately, and only the first copy of
    an event counts. The order of reading does not matter.
    """
    numbered: dict[tuple[int, str | None, str], list[tuple[int, int]]] = defaultdict(list)
    for arrival in arrivals if irregular else ():
        if arrival.socket.number in irregular and (key := arrival.key) is not None:
            numbered[arrival.socket.number, arrival.epoch, key.request].append((arrival.seq, positions[key]))
    return sum(map(_behind, numbered.values()))


def _behind(numbered: list[tuple[int, int]]) -> int:
    seen: set[int] = set()
    latest, behind = -1, 0
    for _, place in sorted(numbered):
        if place not in seen:
            seen.add(place)
            behind += place < latest
            latest = max(latest, place)
    return behind


def false_gaps(history: History, rows: Iterable[Row], arrivals: Iterable[Arrival], irregular: set[int]) -> int:
    """Return how many gaps a client received, or can infer from `seq`, although no event in the gap is lost.

    `arrivals` are the frames of each socket's own thread. If a socket lost an event whose `seq` is unknown, none of its
    gaps counts as false, because each gap may contain the event. A gap without a last `seq` never counts as false.
    """
    if not history.all_types:
        return 0
    suspects, uncertain = irregular | history.gaps.keys(), set[int]()
    for row in rows:
        if not row.copies:
            suspects.add(row.socket.number)
            _, receipt = history.acknowledged.get(row.expectation.key, (None, None))
            if receipt is None or receipt.seq is None:
                uncertain.add(row.socket.number)
    suspects -= uncertain
    if not suspects:
        return 0
    read: dict[tuple[int, str | None], set[int]] = defaultdict(set)
    for arrival in arrivals:
        if arrival.socket.number in suspects:
            read[arrival.socket.number, arrival.epoch].add(arrival.seq)
    unread = _unread_numbers(history, arrivals, suspects)
    skipped = sum(
        _skipped(numbers | _in_epoch(unread.get(socket, ()), epoch), _signalled(history, socket, epoch))
        for (socket, epoch), numbers in read.items()
    )
    return skipped + _falsely_signalled(history, unread)


def _unread_numbers(
    history: History, arrivals: Iterable[Arrival], suspects: set[int]
) -> dict[int, set[tuple[str | None, int]]]:
    """Return, for each socket, the epoch and `seq` of its thread's events that the socket did not read.

    Events that were sent to the thread by mistake also have a `seq` in the thread, and are included.
    """
    read: dict[int, set[EventKey | None]] = defaultdict(set)
    for arrival in arrivals:
        if arrival.socket.number in suspects:
            read[arrival.socket.number].add(arrival.key)
    sent: dict[str | None, list[tuple[EventKey, str | None, int]]] = defaultdict(list)
    for key, (_, receipt) in history.acknowledged.items():
        if receipt.seq is not None:
            sent[receipt.thread_id].append((key, receipt.epoch, receipt.seq))
    return {
        socket.number: {
            (epoch, seq)
            for thread in (socket.thread_id, None)
            for key, epoch, seq in sent.get(thread, ())
            if key not in read[socket.number]
        }
        for socket in history.sockets
        if socket.number in suspects
    }


def _skipped(known: set[int], signalled: list[tuple[int, int]]) -> int:
    """Return how many ranges between known `seq` values are missing, without a signalled gap that covers the range."""
    numbers = sorted(known)
    starts = [first for first, _ in signalled]
    count = 0
    for before, after in pairwise(numbers):
        if after - before > 1:
            index = bisect_right(starts, before + 1) - 1
            count += index < 0 or signalled[index][1] < after - 1
    return count


def _signalled(history: History, socket: int, epoch: str | None) -> list[tuple[int, int]]:
    """Return the signalled ranges of an epoch in ascending order. Adjacent ranges are merged."""
    gaps = [gap for gap in history.gaps.get(socket, ()) if None in (gap.epoch, epoch) or gap.epoch == epoch]
    joined: list[tuple[int, int]] = []
    for first, last in sorted((gap.first, END if gap.last is None else gap.last) for gap in gaps):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = joined[-1][0], max(last, joined[-1][1])
        else:
            joined.append((first, last))
    return joined


def _in_epoch(numbers: Iterable[tuple[str | None, int]], epoch: str | None) -> set[int]:
    return {number for each, number in numbers if None in (each, epoch) or each == epoch}


def _falsely_signalled(history: History, unread: Mapping[int, set[tuple[str | None, int]]]) -> int:
    count = 0
    for socket, pairs in unread.items():
        for gap in history.gaps.get(socket, ()):
            numbers = sorted(number for epoch, number in pairs if gap.epoch in (None, epoch))
            first = bisect_left(numbers, gap.first)
            count += gap.last is not None and (first == len(numbers) or numbers[first] > gap.last)
    return count
