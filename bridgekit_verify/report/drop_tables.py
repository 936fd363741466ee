"""Reads the tables of notebook 10: what happened to the events before and after each fix and each repair.

A table that no notebook showed is empty, and values that depend on it are unknown. A table that lacks a column, or
whose counts contradict each other, is an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from bridgekit.errors import BridgekitError
from bridgekit_verify.measure.drops import EventCounts, have_equal_shares
from bridgekit_verify.report.findings import Table
from bridgekit_verify.report.report_data import Notebook, Report

__all__ = [
    "AS_COMMITTED",
    "AS_REPORTED",
    "BEFORE",
    "FIXES",
    "REPAIRS",
    "DropTables",
    "Kind",
    "MalformedTable",
    "MeasuredRepair",
    "Routing",
    "Step",
    "Subset",
    "read_drop_tables",
]

AS_COMMITTED: Final = "as committed"
AS_REPORTED: Final = "as reported"
BEFORE: Final = "before"
FIXES: Final = {
    "fix 1": "Fix 1",
    "fix 2 as written": "Fix 2 as written",
    "fix 2 with its method": "Fix 2 with its method",
    "fix 3": "Fix 3",
    "fixes 1 and 2 as written": "Fixes 1 and 2 as written",
    "fixes 1 and 2 with the method": "Fixes 1 and 2 with the method",
    "fixes 1, 2 and 3": "all three fixes",
}
"""The steps after `BEFORE`, in the order of the audit. Each value is the step's name in running text."""
REPAIRS: Final = ("agent per run", "thread carried", "connection bound", "link 8 call")
"""The four repairs in the recommended order. The table "repair_subsets" has a column for each repair."""

_COUNTS: Final = ("expected", "delivered", "lost", "leaked")


class MalformedTable(BridgekitError, ValueError):
    """A table does not have the columns or the counts that the report needs."""

    def __init__(self, table: str, problem: str) -> None:
        super().__init__(f"the table {table} cannot be used in the report: {problem}")
        self.table = table


@dataclass(frozen=True, slots=True)
class Kind(EventCounts):
    """One kind of thread id, with its counts of events."""

    name: str
    documented: bool
    """Whether ids of this kind occur in the audit or in the public history of the audited code."""
    false_success: int
    """Events that the bridge reported as sent and that their user did not read."""


@dataclass(frozen=True, slots=True)
class Step:
    """One chain before the fixes, or after one or several fixes, measured with each kind of thread id."""

    chain: str
    name: str
    kinds: tuple[Kind, ...]

    @property
    def total(self) -> EventCounts:
        """The sum of the counts over all kinds of thread id."""
        return EventCounts(
            sum(kind.expected for kind in self.kinds),
            sum(kind.delivered for kind in self.kinds),
            sum(kind.lost for kind in self.kinds),
            sum(kind.leaked for kind in self.kinds),
        )

    @property
    def false_success(self) -> int:
        return sum(kind.false_success for kind in self.kinds)

    @property
    def same_for_every_kind(self) -> bool:
        """Whether all kinds have the same shares of dropped and leaked events, so that one bar can show them."""
        return have_equal_shares(self.kinds)

    @property
    def losing(self) -> tuple[Kind, ...]:
        """The kinds that have dropped events but no leaked events."""
        return tuple(kind for kind in self.kinds if kind.dropped and not kind.leaked)

    @property
    def leaking(self) -> tuple[Kind, ...]:
        """The kinds with leaked events."""
        return tuple(kind for kind in self.kinds if kind.leaked)


@dataclass(frozen=True, slots=True)
class MeasuredRepair(EventCounts):
    """One repair: its changed lines, and the events after this repair and all earlier repairs."""

    order: int
    name: str
    links: str
    """The numbers of the links that the repair changes, such as "3 and 5"."""
    purpose: str
    lines_removed: int
    lines_added: int


@dataclass(frozen=True, slots=True)
class Subset(EventCounts):
    """The code as committed with some of the four repairs."""

    repairs: frozenset[str]
    """Names of `REPAIRS`."""


@dataclass(frozen=True, slots=True)
class Routing(EventCounts):
    """One way to find an event's thread: the repair "thread carried", or fixes in its place.

    The chain also has all other repairs.
    """

    name: str


@dataclass(frozen=True, slots=True)
class DropTables:
    """The tables of notebook 10. A table that no notebook showed is empty."""

    steps: dict[tuple[str, str], Step]
    """By chain and step."""
    repairs: tuple[MeasuredRepair, ...]
    """In the recommended order."""
    subsets: tuple[Subset, ...]
    routing: tuple[Routing, ...]
    notebook: Notebook | None
    """The notebook that showed the drop rates."""

    def step(self, chain: str, name: str = BEFORE) -> Step | None:
        return self.steps.get((chain, name))

    def fixes(self, chain: str) -> tuple[Step, ...]:
        """Return the measured fixes of a chain, in the audit's order."""
        return tuple(self.steps[chain, name] for name in FIXES if (chain, name) in self.steps)

    def subset(self, *repairs: str) -> Subset | None:
        """Return the subset with exactly the given repairs."""
        return next((subset for subset in self.subsets if subset.repairs == frozenset(repairs)), None)


def read_drop_tables(report: Report) -> DropTables:
    """Read the tables of notebook 10. Raises MalformedTable for missing columns and for contradictory counts."""
    rates = report.table("drop_rates")
    return DropTables(
        steps=_steps(
            _records(report, "drop_rates", "chain", "step", "thread ids", "documented", "false success", *_COUNTS)
        ),
        repairs=_repairs(report),
        subsets=tuple(
            Subset(*_counts("repair_subsets", row), repairs=frozenset(name for name in REPAIRS if row[name]))
            for row in _records(report, "repair_subsets", *REPAIRS, *_COUNTS)
        ),
        routing=tuple(
            Routing(*_counts("routing_alternatives", row), name=row["routing"])
            for row in _records(report, "routing_alternatives", "routing", *_COUNTS)
        ),
        notebook=rates[1] if rates else None,
    )


def _records(report: Report, name: str, *columns: str) -> tuple[Mapping[str, Any], ...]:
    """Return the rows of a table, or no rows if there is no table. Raises MalformedTable for a missing column."""
    found = report.table(name)
    if found is None:
        return ()
    table: Table = found[0]
    if missing := [column for column in columns if column not in table.columns]:
        raise MalformedTable(name, f"it has no column {', '.join(map(repr, missing))}")
    return table.records


def _steps(records: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], Step]:
    kinds: dict[tuple[str, str], list[Kind]] = {}
    for row in records:
        kind = Kind(
            *_counts("drop_rates", row),
            name=str(row["thread ids"]),
            documented=bool(row["documented"]),
            false_success=_count("drop_rates", row, "false success"),
        )
        kinds.setdefault((row["chain"], row["step"]), []).append(kind)
    # The documented kinds come first, so that the chart can separate them from the stress kinds.
    return {
        (chain, name): Step(chain, name, tuple(sorted(members, key=lambda kind: not kind.documented)))
        for (chain, name), members in kinds.items()
    }


def _repairs(report: Report) -> tuple[MeasuredRepair, ...]:
    columns = ("order", "repair", "links", "purpose", "lines removed", "lines added")
    repairs = [
        MeasuredRepair(
            *_counts("repairs", row),
            order=_count("repairs", row, "order"),
            name=row["repair"],
            links=str(row["links"]),
            purpose=row["purpose"],
            lines_removed=_count("repairs", row, "lines removed"),
            lines_added=_count("repairs", row, "lines added"),
        )
        for row in _records(report, "repairs", *columns, *_COUNTS)
    ]
    return tuple(sorted(repairs, key=lambda repair: repair.order))


def _counts(table: str, row: Mapping[str, Any]) -> tuple[int, int, int, int]:
    """Return the counts of expected, delivered, lost and leaked events.

    Raises MalformedTable if the counts contradict each other.
    """
    expected, delivered, lost, leaked = (_count(table, row, name) for name in _COUNTS)
    if delivered > expected:
        raise MalformedTable(table, f"{delivered:,} events were delivered, but only {expected:,} were expected")
    if not 0 <= expected - delivered - lost <= leaked:
        raise MalformedTable(
            table,
            f"the counts contradict each other: {expected:,} events expected, {delivered:,} delivered, {lost:,} lost"
            f" and {leaked:,} leaked",
        )
    return expected, delivered, lost, leaked


def _count(table: str, row: Mapping[str, Any], column: str) -> int:
    value = row[column]
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise MalformedTable(table, f"{column} is {value!r}: a count must be a whole number, 0 or more")
    return value
