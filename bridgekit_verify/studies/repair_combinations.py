"""Find which of the four repairs the chain as committed needs, by measuring every combination of the repairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import permutations
from typing import Final

import pandas as pd
from matplotlib.figure import Figure

from bridgekit.events import EventType
from bridgekit_verify.measure.drop_figure import DropPanel, drop_alt_text, drop_figure
from bridgekit_verify.measure.drops import DropCount, count_drops, total
from bridgekit_verify.measure.thread_id_families import FAMILIES, Families
from bridgekit_verify.measure.wording import listed
from bridgekit_verify.repairs import (
    NEW_CLASSES,
    REPAIRS,
    LineChange,
    changed_lines,
    repaired,
    repaired_links,
    subsets,
)
from bridgekit_verify.studies.drops import drop_columns
from bridgekit_verify.studies.links_and_fixes import study_fixes
from bridgekit_verify.variants import FIXES, Variant

__all__ = ["RepairStudy", "study_repairs"]

CARRIED: Final = "thread carried"
"""The repair that each of the audit's fixes could replace, because each fix also finds the thread of an event."""
ROUTINGS: Final = ("fix 1", "fix 2 as written", "fix 2 with its method", "fix 3", "fixes 1 and 2 with the method")

Applied = frozenset[str]
"""The names of the repairs that a chain has."""
Order = tuple[str, ...]
"""The names of all repairs, in the order in which they are applied."""


@dataclass(frozen=True)
class RepairStudy:
    """The counts of the chain as committed with each combination of the repairs."""

    subsets: Mapping[Applied, Mapping[str, DropCount]]
    """The counts by the set of applied repairs, then by kind of thread id."""
    routings: Mapping[str, Mapping[str, DropCount]]
    """The counts with all repairs except `CARRIED`, by the way to find the thread, then by kind of thread id."""
    lines: Mapping[str, LineChange]
    """The changed lines of code of each repair."""
    groups: Mapping[str, Sequence[str]]
    """The kinds of thread id by group, such as "documented" and "stress"."""

    @property
    def repairs(self) -> Order:
        return tuple(self.lines)

    @cached_property
    def totals(self) -> Mapping[Applied, DropCount]:
        """The counts of each combination over all kinds of thread id."""
        return {applied: total(counts.values()) for applied, counts in self.subsets.items()}

    @property
    def complete(self) -> list[Applied]:
        """The combinations with which every event is delivered and none leaks."""
        return [applied for applied, count in self.totals.items() if count.complete]

    @property
    def leaking(self) -> list[Applied]:
        """The combinations with which at least one event leaks to another user."""
        return [applied for applied, count in self.totals.items() if count.leaked]

    @property
    def needed(self) -> list[str]:
        """Each repair without which the other repairs still lose or leak events."""
        return [name for name in self.repairs if not self.without(name).complete]

    def without(self, name: str) -> DropCount:
        """Return the count with all repairs except `name`."""
        return self.totals[frozenset(self.repairs) - {name}]

    def steps(self, order: Order) -> list[DropCount]:
        """Return the count after each repair, if the repairs are applied in this order."""
        return [self.totals[frozenset(order[:n])] for n in range(1, len(order) + 1)]

    @cached_property
    def orders(self) -> list[Order]:
        """Every order in which the repairs can be applied."""
        return list(permutations(self.repairs))

    @property
    def safe_orders(self) -> list[Order]:
        """The orders in which no event leaks after any step."""
        return [order for order in self.orders if not any(count.leaked for count in self.steps(order))]

    @cached_property
    def order(self) -> Order:
        """The recommended order: fewest leaked events, then earliest safe step, then most events delivered early.

        After a safe step, no event leaks, whichever of the other repairs follow.
        """

        def preference(order: Order) -> tuple[int, int, list[int]]:
            steps = self.steps(order)
            return max(step.leaked for step in steps), self._safe_from(order), [-step.delivered for step in steps]

        return min(self.orders, key=preference)

    def _safe_from(self, order: Order) -> int:
        """Return the smallest n such that no combination that contains the first n repairs leaks."""
        steps = range(len(order) + 1)
        return next((n for n in steps if not any(leak.issuperset(order[:n]) for leak in self.leaking)), len(order) + 1)

    def gain(self, name: str) -> str:
        """Return in one clause what a repair adds to the repairs before it in the recommended order."""
        index = self.order.index(name)
        before, after = (self.totals[frozenset(self.order[:n])] for n in (index, index + 1))
        if after.delivered > before.delivered:
            return f"{_types_in_words(after.arriving - before.arriving) or 'more events'} arrive"
        without = self.without(name)
        if without.leaked:
            return f"without it, the other repairs leak {without.leaked:,} of {without.expected:,} events"
        return f"without it, the other repairs deliver {without.delivered:,} of {without.expected:,} events"

    def table(self) -> pd.DataFrame:
        """Return one row per repair in the recommended order: its links, purpose and changed lines, and the counts.

        The counts are measured with the repair and all earlier repairs.
        """
        return pd.DataFrame(
            {
                "order": number,
                "repair": name,
                "links": " and ".join(map(str, repaired_links(name))),
                "purpose": self.gain(name),
                "lines removed": self.lines[name].removed,
                "lines added": self.lines[name].added,
                **drop_columns(count),
            }
            for number, (name, count) in enumerate(zip(self.order, self.steps(self.order), strict=True), 1)
        )

    def subset_table(self) -> pd.DataFrame:
        """Return one row per combination of the repairs."""
        return pd.DataFrame(
            {name: name in applied for name in self.repairs} | drop_columns(count)
            for applied, count in self.totals.items()
        )

    def routing_table(self) -> pd.DataFrame:
        """Return one row per way to find the thread, with all repairs except `CARRIED` applied."""
        return pd.DataFrame(
            {
                "routing": name,
                **drop_columns(total(counts.values())),
                "kinds that lose or leak": sum(not count.complete for count in counts.values()),
                "kinds": len(counts),
            }
            for name, counts in self.routings.items()
        )

    @property
    def _panels(self) -> list[DropPanel]:
        everything = frozenset(self.repairs)
        in_order = {"Before": self.subsets[frozenset()]}
        for n, name in enumerate(self.order, 1):
            in_order[f"{n}  {'+ ' if n > 1 else ''}{name}"] = self.subsets[frozenset(self.order[:n])]
        left_out = {f"Without {name}": self.subsets[everything - {name}] for name in self.order}
        return [
            DropPanel("Repairs of the code as committed, in order", in_order, self.groups),
            DropPanel("One repair left out", left_out, self.groups),
        ]

    def figure(self, title: str) -> Figure:
        """Draw the counts after each repair in the recommended order, and the counts with one repair left out."""
        return drop_figure(self._panels, title=title)

    def alt_text(self) -> str:
        """Return the text equivalent of the figure: each row's dropped events, or the affected kinds of thread id."""
        return drop_alt_text(self._panels)

    def finding(self) -> str:
        """Return the result in one sentence, for the title of the figure."""
        everything, count = len(self.repairs), self.totals[frozenset(self.repairs)]
        if not count.complete:
            return f"All {everything} repairs together deliver {count.delivered:,} of {count.expected:,} events"
        smallest = min(self.complete, key=len)
        if len(smallest) == everything:
            return f"All {everything} repairs are needed, and together deliver every event"
        return f"{len(smallest)} of {everything} repairs deliver every event: {', '.join(sorted(smallest))}"

    def sentences(self) -> list[str]:
        """Return sentences that list the complete combinations, the needed repairs, the leaks, and the safe orders."""
        orders, safe = len(self.orders), len(self.safe_orders)
        counts = {applied: self.totals[applied] for applied in self.leaking}
        leaks = [f"{_in_words(name)} ({count.leaked:,} of {count.expected:,} events)" for name, count in counts.items()]
        return [
            f"{len(self.complete)} of {len(self.totals)} combinations of the repairs"
            f" {'delivers' if len(self.complete) == 1 else 'deliver'} every event without a leak"
            f"{': ' if self.complete else ''}{'; '.join(map(_in_words, self.complete))}.",
            "If one of these repairs is left out, the other repairs lose or leak events:"
            f" {', '.join(self.needed) or 'none'}.",
            f"These combinations of repairs leak events to another user: {'; '.join(leaks) or 'none'}.",
            f"In {safe} of {orders} orders of the repairs, no event leaks after any repair. Recommended order of the"
            f" repairs: {', '.join(self.order)}.",
        ]


TYPES_IN_WORDS: Final = (
    ({EventType.AGENT_STARTED, EventType.AGENT_COMPLETED}, "the start and the end of each run"),
    ({EventType.AGENT_STARTED}, "the start of each run"),
    ({EventType.AGENT_COMPLETED}, "the end of each run"),
    ({EventType.AGENT_THINKING}, "thoughts"),
    ({EventType.TOOL_EXECUTING, EventType.TOOL_COMPLETED}, "tool calls"),
    ({EventType.TOOL_EXECUTING}, "the start of each tool call"),
    ({EventType.TOOL_COMPLETED}, "the end of each tool call"),
)
"""Sets of event types, each with a phrase for what the events report. Earlier sets take precedence."""


def _types_in_words(types: frozenset[EventType]) -> str:
    rest, words = set(types), []
    for members, text in TYPES_IN_WORDS:
        if members <= rest:
            rest -= members
            words.append(text)
    return listed(words)


def _in_words(applied: Applied) -> str:
    return " + ".join(repair.name for repair in REPAIRS if repair.name in applied) or "no repair"


async def study_repairs(
    *, threads: int, runs: int, at_once: int, seed: int = 0, families: Families = FAMILIES
) -> RepairStudy:
    """Measure every combination of the repairs, and all repairs with each of `ROUTINGS` in place of `CARRIED`.

    The load is the same as in `study_fixes`: `threads` users of each family of thread ids.
    """
    others = tuple(repair for repair in REPAIRS if repair.name != CARRIED)
    chains = {frozenset(repair.name for repair in chosen): repaired(chosen) for chosen in subsets()}
    routed = {name: repaired((*others, FIXES[name])) for name in ROUTINGS}
    study = await study_fixes(
        threads=threads,
        runs=runs,
        at_once=at_once,
        seed=seed,
        families=families,
        variants=[*chains.values(), *routed.values()],
    )

    def counts(chain: Variant) -> dict[str, DropCount]:
        return {family: count_drops(study.cells[family, chain.name]) for family in study.families}

    by_repairs = {applied: counts(chain) for applied, chain in chains.items()}
    return RepairStudy(
        subsets=by_repairs,
        routings={name: counts(chain) for name, chain in routed.items()}
        | {CARRIED: by_repairs[frozenset(repair.name for repair in REPAIRS)]},
        lines={repair.name: changed_lines(repair, adds=NEW_CLASSES.get(repair.name, ())) for repair in REPAIRS},
        groups=study.groups,
    )
