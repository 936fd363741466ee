"""Computes the chart of the first screen: the share of dropped events before and after each fix and each repair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from bridgekit_verify.measure.drops import EventCounts
from bridgekit_verify.measure.statistics import percent
from bridgekit_verify.report.drop_tables import AS_COMMITTED, AS_REPORTED, BEFORE, REPAIRS, DropTables, Step
from bridgekit_verify.report.summary import of

__all__ = ["Bar", "ChartRow", "bar", "chart", "unchanged"]

CHART_LABELS: Final = {
    BEFORE: "no fix",
    "fix 1": "Fix 1: thread in run id",
    "fix 2 as written": "Fix 2 as written",
    "fix 2 with its method": "Fix 2 with its method",
    "fix 3": "Fix 3: lookup table",
    "fixes 1 and 2 as written": "Fixes 1 and 2 as written",
    "fixes 1 and 2 with the method": "Fixes 1, 2 with the method",
    "fixes 1, 2 and 3": "all three fixes",
}


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of the chart. If the shares differ between the kinds of thread id, the bar has a part for each kind."""

    parts: tuple[EventCounts, ...]
    text: str
    """The text next to the bar, such as "5 % dropped"."""
    alt: str
    """The counts in words."""


@dataclass(frozen=True, slots=True)
class ChartRow:
    """One row of the chart: its label, the code as committed, and the chain as reported (None: not measured)."""

    label: str
    committed: Bar | None
    reported: Bar | None


def share(k: int, n: int) -> str:
    """Return k of n in percent as text. The text is "0 %" or "100 %" only if the share is exact."""
    return f"{percent(k / n).removesuffix('.0')} %" if n else "unknown"


def bar(step: Step) -> Bar:
    """Return a step's bar, with a single part if every kind of thread id has the same shares."""
    found, kinds = step.total, len(step.kinds)
    alt = f"{of(found.dropped, found.expected)} events dropped, {found.leaked:,} of them read by another user"
    if step.same_for_every_kind:
        return Bar((found,), _bar_text(found), alt)
    # A kind that has both leaked and lost events counts only as leaked.
    counts = {"lost": len(step.losing), "leaked": len(step.leaking)}
    first, *rest = [(word, count) for word, count in counts.items() if count]
    text = ", ".join([f"{first[1]} of {kinds} kinds {first[0]}", *(f"{count} {word}" for word, count in rest)])
    each = "; ".join(f"{kind.name}: {of(kind.dropped, kind.expected)} dropped" for kind in step.kinds)
    return Bar(step.kinds, text, f"{alt}. {each}")


def _bar_text(found: EventCounts) -> str:
    """Return the share of dropped events or, if events leaked, the shares of lost, leaked and delivered events."""
    if not found.leaked:
        return f"{share(found.dropped, found.expected)} dropped"
    counts = {"lost": found.lost, "leaked": found.leaked, "delivered": found.delivered}
    return ", ".join(f"{share(count, found.expected)} {word}" for word, count in counts.items() if count)


def chart(tables: DropTables) -> dict[str, tuple[ChartRow, ...]]:
    """Return the chart's rows by group: the audit's fixes on both chains, the repairs, the repairs without repair 1.

    A group without data is left out.
    """
    fixes = tuple(
        ChartRow(
            label,
            bar(committed) if (committed := tables.step(AS_COMMITTED, name)) else None,
            bar(reported) if (reported := tables.step(AS_REPORTED, name)) else None,
        )
        for name, label in CHART_LABELS.items()
        if tables.step(AS_COMMITTED, name) or tables.step(AS_REPORTED, name)
    )
    repairs = tuple(
        ChartRow(
            f"{'+ ' if repair.order > 1 else ''}{repair.order} {repair.name}",
            _total(repair),
            None,
        )
        for repair in tables.repairs
    )
    without = tables.subset(*REPAIRS[1:])
    others = (ChartRow("2, 3 and 4", _total(without), None),) if without else ()
    groups = {"The audit's fixes": fixes, "The repairs, one after another": repairs, "Without repair 1": others}
    return {title: rows for title, rows in groups.items() if rows}


def unchanged(rows: Sequence[ChartRow]) -> Bar | None:
    """Return the bar of the code as committed if it is the same in all rows, and otherwise None.

    Also returns None for a single row, for a bar of several parts, and if a row has no bar of the chain as reported.
    """
    first = rows[0].committed
    if len(rows) < 2 or first is None or len(first.parts) > 1:
        return None
    same = all(row.committed == first and row.reported is not None for row in rows)
    return replace(first, text=f"{first.text} without any fix, and after each fix") if same else None


def _total(found: EventCounts) -> Bar:
    alt = f"{of(found.dropped, found.expected)} events dropped, {found.leaked:,} of them read by another user"
    return Bar((found,), _bar_text(found), alt)
