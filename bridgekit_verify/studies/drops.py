"""Measure drop rates before and after each of the audit's fixes, for one broken link and for the audit's two chains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import pandas as pd
from matplotlib.figure import Figure

from bridgekit.chain.self_check import check_routing
from bridgekit.errors import UnknownName
from bridgekit_verify.measure.drop_figure import DropPanel, drop_alt_text, drop_figure
from bridgekit_verify.measure.drops import DropCount, count_drops, total
from bridgekit_verify.measure.experiment import measure
from bridgekit_verify.measure.thread_id_families import FAMILIES, Families, families_by_name
from bridgekit_verify.measure.wording import capitalized
from bridgekit_verify.measure.workload import Workload
from bridgekit_verify.studies.links_and_fixes import KINDS, FixStudy, study_fixes
from bridgekit_verify.variants import AS_COMMITTED, AS_REPORTED, BROKEN, FIXES, SOUND, Variant

__all__ = [
    "BEFORE",
    "DropStudy",
    "FixDrops",
    "drop_columns",
    "study_drops",
    "study_fix_drops",
    "with_each_fix",
]

BEFORE: Final = "before"
ALL_FIXES: Final = "fixes 1, 2 and 3"
LINK_STEPS: Final = ("fix 1", "fix 2 as written", "fix 2 with its method", "fix 3", ALL_FIXES)
"""The fixes that the notebook about a link compares."""
COMMITTED: Final = "as committed"
REPORTED: Final = "as reported"


def with_each_fix(base: Variant) -> list[Variant]:
    """Return the chain `base`, and one variant of it for each of the audit's fixes, named after the fix."""
    return [base, *(fix.applied_to(base, name=fix.name) for fix in FIXES.values())]


def drop_columns(count: DropCount) -> dict[str, int]:
    """Return the counts of one row of a table of drop rates, by column."""
    return {
        "expected": count.expected,
        "delivered": count.delivered,
        "lost": count.lost,
        "leaked": count.leaked,
    }


@dataclass(frozen=True)
class DropStudy:
    """The drops of one broken link before and after each of `LINK_STEPS`, and after the link's repair."""

    link: int
    counts: Mapping[str, DropCount]
    """The counts of events after each step, by the step's name. The last step is the repair of the link."""

    @property
    def repair(self) -> str:
        """The name of the last step."""
        return list(self.counts)[-1]

    def table(self) -> pd.DataFrame:
        """Return one row per step: its counts, false successes, and events dropped at the link and at other links."""
        return pd.DataFrame(
            {
                "step": step,
                **drop_columns(count),
                "false success": count.false_success,
                f"dropped at link {self.link}": count.dropped_at.get(self.link, 0),
                "dropped at other links": count.dropped - count.dropped_at.get(self.link, 0),
            }
            for step, count in self.counts.items()
        )

    @property
    def _panel(self) -> DropPanel:
        """Build a panel with one bar per step, and below each bar the links that dropped events."""
        rows = {capitalized(step): {step: count} for step, count in self.counts.items()}
        notes = {capitalized(step): _links_as_text(count) for step, count in self.counts.items() if count.dropped}
        return DropPanel("", rows, notes=notes)

    def figure(self, title: str) -> Figure:
        """Draw one bar per step, and below each bar the links that dropped events."""
        return drop_figure([self._panel], title=title)

    def alt_text(self) -> str:
        """Return the text equivalent of the figure: each step's dropped and leaked events, and the links."""
        return drop_alt_text([self._panel])

    def finding(self) -> str:
        """Return the result in two sentences, for the title of the figure."""
        fixed, repaired = self.counts[ALL_FIXES], self.counts[self.repair]
        if not (fixed.expected and repaired.expected):
            return f"Unknown: a chain with link {self.link} broken or repaired refused to start"
        leaked = f", and {fixed.leaked:,} leak" if fixed.leaked else ""
        return (
            f"After all three fixes, {fixed.dropped:,} of {fixed.expected:,} events are dropped{leaked}."
            f" With link {self.link} repaired as well,"
            f" {f'{repaired.dropped:,} events are' if repaired.dropped else 'no event is'} dropped"
        )


def _links_as_text(count: DropCount) -> str:
    return "at " + ", ".join(f"link {link}: {dropped:,}" for link, dropped in count.dropped_at.items())


async def study_drops(number: int, workload: Workload, *, seed: int = 0) -> DropStudy:
    """Measure one broken link before and after each of `LINK_STEPS`, and after the link's repair.

    Link `number` is broken, link 9 is as reported, and all other links are sound. Without the defect of link 9, the
    fixes would have no effect. In the last step, the chain has all fixes and the repaired link. For link 9, the last
    step is the sound chain. Link 3 is measured with agents that the registry binds, because the core binds its own
    agents.
    """
    if number not in BROKEN:
        raise UnknownName("link", number, tuple(map(str, BROKEN)))
    workload = replace(workload, outside_core=number == 3)
    before = with_link_9_as_reported(BROKEN[number])
    chains = {BEFORE: before} | {name: FIXES[name].applied_to(before) for name in LINK_STEPS}
    if number == 9:
        chains["link 9 repaired"] = SOUND
    else:
        chains[f"{ALL_FIXES}, link {number} repaired"] = FIXES[ALL_FIXES].applied_to(AS_REPORTED)
    return DropStudy(
        number, {step: count_drops(await measure(chain, workload, seed=seed)) for step, chain in chains.items()}
    )


def with_link_9_as_reported(broken: Variant) -> Variant:
    """Return the chain `broken` with its link 9 replaced by link 9 as reported."""
    return replace(
        broken,
        name=f"{broken.name}, link 9 as reported",
        run_ids=AS_REPORTED.run_ids,
        resolver=AS_REPORTED.resolver,
        self_checks=tuple(check for check in broken.self_checks if check is not check_routing),
    )


@dataclass(frozen=True)
class FixDrops:
    """Drop rates before and after each fix and all fixes together, by chain and kind of thread id."""

    counts: Mapping[str, Mapping[str, Mapping[str, DropCount]]]
    """The counts by chain ("as committed" or "as reported"), step and kind of thread id."""
    groups: Mapping[str, Sequence[str]]
    """The kinds of thread id by group, such as "documented" and "stress"."""

    studies: Mapping[str, FixStudy] = field(default_factory=dict)
    """The measurements from which the counts are computed, by chain."""

    def total(self, chain: str, step: str) -> DropCount:
        """Return the count over all kinds of thread id."""
        return total(self.counts[chain][step].values())

    def affected(self, chain: str, step: str) -> list[str]:
        """Return the kinds of thread id for which an event is lost or leaked."""
        return [kind for kind, count in self.counts[chain][step].items() if not count.complete]

    def complete(self, chain: str) -> list[str]:
        """Return the fixes after which every event is delivered and none leaks."""
        return [fix for fix in FIXES if not self.affected(chain, fix)]

    def leaking(self, chain: str) -> list[str]:
        """Return the fixes after which at least one event leaks to another user."""
        return [fix for fix in FIXES if self.total(chain, fix).leaked]

    def table(self) -> pd.DataFrame:
        """Return one row per chain, step and kind of thread id, with the counts and the false successes."""
        documented = {
            kind: None if group == "your own" else group == "documented"
            for group, kinds in self.groups.items()
            for kind in kinds
        }
        return pd.DataFrame(
            {
                "chain": chain,
                "step": step,
                "thread ids": kind,
                "documented": documented.get(kind, False),
                **drop_columns(count),
                "false success": count.false_success,
            }
            for chain, steps in self.counts.items()
            for step, kinds in steps.items()
            for kind, count in kinds.items()
        )

    @property
    def _panels(self) -> list[DropPanel]:
        headings = {COMMITTED: "The code as committed", REPORTED: "With only link 9 broken"}
        return [DropPanel(headings[chain], _rows(steps), self.groups) for chain, steps in self.counts.items()]

    def figure(self, title: str) -> Figure:
        """Draw one panel per chain."""
        return drop_figure(self._panels, title=title)

    def alt_text(self) -> str:
        """Return the text equivalent of the figure: each step's dropped events, or the affected kinds of thread id."""
        return drop_alt_text(self._panels)

    def finding(self) -> str:
        """Return the result in two sentences, for the title of the figure."""
        name, kinds = next(iter(self.groups.items()))
        failing = {fix: sum(kind in self.affected(REPORTED, fix) for kind in kinds) for fix in ("fix 1", "fix 3")}
        return (
            f"As committed, {self._committed_as_text()}.\n"
            f"With only link 9 broken, Fix 1 fails for {_none(failing['fix 1'])} of {len(kinds)} {KINDS[name]} of"
            f" thread id, and Fix 3 for {_none(failing['fix 3'])}."
        )

    def _committed_as_text(self) -> str:
        totals = [self.total(COMMITTED, fix) for fix in FIXES]
        best = max(totals, key=lambda count: count.delivered)
        if complete := self.complete(COMMITTED):
            return f"every event is delivered after {capitalized(complete[0])}"
        if not best.expected:
            return "no event was expected"
        if not best.delivered:
            return "no fix delivers an event"
        return f"the fixes deliver at most {best.delivered:,} of {best.expected:,} events"

    def sentences(self) -> list[str]:
        """Return sentences on the fixes that deliver every event, on the fixes that leak, and on false receipts."""
        kinds = sum(map(len, self.groups.values()))
        after = {fix: self.affected(REPORTED, fix) for fix in FIXES}
        method, both = after["fix 2 with its method"], after["fixes 1 and 2 with the method"]
        wrong = {fix: self.total(COMMITTED, fix).false_success for fix in FIXES}
        worst = max(wrong, key=wrong.__getitem__)
        leaks = {fix: self.total(REPORTED, fix) for fix in self.leaking(REPORTED)}
        leaking = [
            f"{capitalized(fix)} ({count.leaked:,} of {count.expected:,} events)" for fix, count in leaks.items()
        ]
        return [
            f"On the code as committed, {self._committed_as_text()}.",
            f"With only link 9 broken, these fixes deliver every event of every kind of thread id:"
            f" {'; '.join(map(capitalized, self.complete(REPORTED))) or 'none'}.",
            f"With only link 9 broken, these fixes leak events to another user: {'; '.join(leaking) or 'none'}.",
            f"With only link 9 broken, Fix 2 with its method fails for {_none(len(method))} of {kinds} kinds of thread"
            f" id. Together with Fix 1, Fix 2 with its method fails for {_none(len(both))} of {kinds} kinds.",
            f"On the code as committed, after {capitalized(worst)}, {wrong[worst]:,} of"
            f" {self.total(COMMITTED, worst).expected:,} events are reported as sent but not delivered.",
        ]


async def study_fix_drops(
    *, threads: int, runs: int, at_once: int, seed: int = 0, families: Families = FAMILIES
) -> FixDrops:
    """Measure both chains of the audit before and after each fix, with the load of `study_fixes`."""
    load = {"threads": threads, "runs": runs, "at_once": at_once, "seed": seed}
    chosen = families_by_name(families)  # once, because the ids of a family may be an iterator
    studies = {
        base.name: await study_fixes(**load, families=chosen, variants=with_each_fix(base))
        for base in (AS_COMMITTED, AS_REPORTED)
    }
    counts = {
        chain: {
            step: {kind: count_drops(study.cells[kind, chain if step == BEFORE else step]) for kind in study.families}
            for step in (BEFORE, *FIXES)
        }
        for chain, study in studies.items()
    }
    return FixDrops(counts, studies[REPORTED].groups, studies)


def _rows(steps: Mapping[str, Mapping[str, DropCount]]) -> dict[str, Mapping[str, DropCount]]:
    """Return the rows of a chain's panel, or a single row if no fix changes the shares."""
    shares = {tuple(count.shares for count in kinds.values()) for kinds in steps.values()}
    if len(shares) == 1 and len(steps) > 1:
        return {"Before, and after each fix": next(iter(steps.values()))}
    return {capitalized(step): kinds for step, kinds in steps.items()}


def _none(count: int) -> str:
    return f"{count:,}" if count else "none"
