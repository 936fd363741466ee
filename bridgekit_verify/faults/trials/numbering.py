"""Numbers for events that were answered before they had one: a store that was away gives them later.

Whether their user was told of such an event can be said all the same. It came between two events whose numbers are
known, so its own is one of those between; and if each of these was read or told to be missing, it was told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice

from msgspec.structs import replace

from bridgekit.events import Receipt
from bridgekit.signals import Cursor
from bridgekit_verify.measure.history import Arrival, Key, Missing

__all__ = ["numbered"]

Gaps = Sequence[Missing]


def numbered(
    asked: Sequence[Key], receipts: Mapping[Key, Receipt], arrivals: Sequence[Arrival], gaps: Gaps
) -> dict[Key, Receipt]:
    """The receipts of one thread with one reader; those without a number have one that tells how the event was lost.

    `asked` are the thread's events in the order in which they were asked for. An event that was read needs no number.
    One that was not gets the first number it may have had that was neither read nor told, if there is any: then it
    counts as lost in silence; else one that was told. Where no number is free, or none came after, it stays without.
    """
    known = {arrival.key: Cursor(arrival.epoch or "", arrival.seq) for arrival in arrivals if arrival.key is not None}
    known |= {key: Cursor(r.epoch or "", r.seq) for key, r in receipts.items() if r.seq is not None}
    read = {(arrival.epoch or "", arrival.seq) for arrival in arrivals}
    found = dict(receipts)
    for place, key in enumerate(asked):
        if key in known or key not in receipts:
            continue
        before = next((known[each] for each in reversed(asked[:place]) if each in known), None)
        after = next((known[each] for each in islice(asked, place + 1, None) if each in known), None)
        number = _number(before, after, read, gaps)
        if number is not None:
            found[key] = replace(receipts[key], seq=number.seq, epoch=number.epoch or None)
    return found


def _number(before: Cursor | None, after: Cursor | None, read: set[tuple[str, int]], gaps: Gaps) -> Cursor | None:
    if after is None:
        return None
    epoch, told = after.epoch, None
    number = before.seq + 1 if before is not None and before.epoch == epoch else 1
    while number < after.seq:
        gap = next((gap for gap in gaps if _covers(gap, epoch, number)), None)
        if gap is not None:
            told = told or Cursor(epoch, number)
            number = after.seq if gap.last is None else gap.last + 1
        elif (epoch, number) in read:
            number += 1
        else:
            return Cursor(epoch, number)
    return told


def _covers(gap: Missing, epoch: str, number: int) -> bool:
    return gap.epoch in (None, epoch or None) and gap.first <= number and (gap.last is None or number <= gap.last)
