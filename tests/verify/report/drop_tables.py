"""Builds the tables that notebook 10 shows, from the counts that a test chooses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import product
from typing import Any

from bridgekit_verify.report.drop_tables import AS_COMMITTED, AS_REPORTED, BEFORE, FIXES, REPAIRS
from bridgekit_verify.report.findings import Table

EACH = 60
"""Events of one kind of thread id."""
KINDS = {
    **dict.fromkeys(("thread_123", "thread_<16 hex>", "thread_<user>_<name>"), True),
    **dict.fromkeys(("session_<ms>_<hex>", "chat_<n>", "starts with another id", "uuid"), False),
}
"""Kinds of thread id, and whether they are documented."""
ALL = EACH * len(KINDS)

Counts = tuple[int, int, int]
"""Delivered, leaked and falsely reported as sent, of the events of one kind."""

EVERY: Counts = (EACH, 0, 0)
NONE: Counts = (0, 0, 0)
NOT_READ: Counts = (0, 0, 24)


def of_kind(name: str) -> Counts:
    """Return what the parser delivers: one kind loses, and one leaks."""
    return {"chat_<n>": NONE, "starts with another id": (20, 40, 0)}.get(name, EVERY)


STEPS: Mapping[tuple[str, str], Callable[[str], Counts]] = {
    (AS_COMMITTED, BEFORE): lambda kind: NONE,
    **{(AS_COMMITTED, name): (lambda kind: NOT_READ) for name in FIXES},
    (AS_REPORTED, BEFORE): lambda kind: NONE,
    (AS_REPORTED, "fix 1"): of_kind,
    (AS_REPORTED, "fix 2 as written"): lambda kind: NONE,
    (AS_REPORTED, "fix 2 with its method"): lambda kind: EVERY,
    (AS_REPORTED, "fix 3"): lambda kind: EVERY,
    (AS_REPORTED, "fixes 1 and 2 as written"): of_kind,
    (AS_REPORTED, "fixes 1 and 2 with the method"): lambda kind: (20, 40, 0) if kind.startswith("starts") else EVERY,
    (AS_REPORTED, "fixes 1, 2 and 3"): lambda kind: EVERY,
}


def for_each_kind(delivered: int, leaked: int, false_success: int) -> Callable[[str], Counts]:
    """Return a function with the same counts for every kind."""
    return lambda kind: (delivered, leaked, false_success)


def table(name: str, records: list[dict[str, Any]]) -> Table:
    columns = tuple(dict.fromkeys(column for record in records for column in record))
    return Table(name=name, caption=f"Caption of {name}", columns=columns, records=tuple(records))


def fate(expected: int, delivered: int, leaked: int) -> dict[str, int]:
    lost = max(expected - delivered - leaked, 0)
    return {"expected": expected, "delivered": delivered, "lost": lost, "leaked": leaked}


def drop_rates(steps: Mapping[tuple[str, str], Callable[[str], Counts]] = STEPS) -> Table:
    records = []
    for ((chain, step), counts), (kind, documented) in product(steps.items(), KINDS.items()):
        delivered, leaked, false_success = counts(kind)
        row = {"chain": chain, "step": step, "thread ids": kind, "documented": documented}
        records.append({**row, **fate(EACH, delivered, leaked), "false success": false_success})
    return table("drop_rates", records)


def repairs(delivered: tuple[int, ...] = (0, 0, 168, ALL), leaked: tuple[int, ...] = (0, 0, 0, 0)) -> Table:
    names = (
        "An agent for each run",
        "The run carries its thread",
        "Each socket has its thread",
        "Link 8 calls the bridge",
    )
    purposes = ("no later repair leaks", "an event finds its thread", "starts and ends arrive", "everything arrives")
    sizes = ((2, 1), (9, 2), (0, 1), (8, 5))
    return table(
        "repairs",
        [
            {
                "order": order,
                "repair": name,
                "links": links,
                "purpose": purpose,
                "lines removed": removed,
                "lines added": added,
                **fate(ALL, k, leak),
            }
            for order, (name, links, purpose, (removed, added), k, leak) in enumerate(
                zip(names, ("3 and 5", "9", "10", "8"), purposes, sizes, delivered, leaked, strict=True), 1
            )
        ],
    )


def subset_counts(made: tuple[bool, ...]) -> tuple[int, int]:
    """Return delivered and leaked of all events with some of the four repairs."""
    agent, *others = made
    if not all(others):
        return 0, 0
    return (ALL, 0) if agent else (ALL // 2, ALL // 2)


def repair_subsets(counts: Callable[[tuple[bool, ...]], tuple[int, int]] = subset_counts) -> Table:
    records = [
        {**dict(zip(REPAIRS, made, strict=True)), **fate(ALL, *counts(made))}
        for made in product((False, True), repeat=len(REPAIRS))
    ]
    return table("repair_subsets", records)


ROUTING = {
    "fix 1": (320, 40),
    "fix 2 as written": (0, 0),
    "fix 2 with its method": (ALL, 0),
    "fix 3": (ALL, 0),
    "thread carried": (ALL, 0),
}


def routing_alternatives(counts: Mapping[str, tuple[int, int]] = ROUTING) -> Table:
    return table(
        "routing_alternatives",
        [
            {
                "routing": name,
                **fate(ALL, *of),
                "kinds that lose or leak": 0 if of[0] == ALL else 3,
                "kinds": len(KINDS),
            }
            for name, of in counts.items()
        ],
    )


def drop_tables() -> tuple[Table, ...]:
    """Return all four tables."""
    return drop_rates(), repairs(), repair_subsets(), routing_alternatives()
