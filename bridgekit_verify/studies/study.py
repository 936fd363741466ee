"""The two comparisons that the notebooks make: one link broken and sound; every fix with every family of thread ids."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import pandas as pd
from matplotlib.figure import Figure

from bridgekit.chain import LINKS, Link
from bridgekit.chain.self_check import SOUND_CHECKS
from bridgekit_verify.measure.experiment import Measurement, measure
from bridgekit_verify.measure.plots import before_after_figure, delivery_figure, matrix_figure
from bridgekit_verify.measure.tables import loss_table, rate_table
from bridgekit_verify.measure.workload import FAMILIES, Workload, thread_ids
from bridgekit_verify.probes.probes import Probe, probe
from bridgekit_verify.probes.wording import Wording, check_wording
from bridgekit_verify.variants import AS_COMMITTED, BROKEN, SOUND, VARIANTS, Variant

__all__ = ["EXAMPLE", "FixStudy", "LinkStudy", "study_fixes", "study_link"]

EXAMPLE = "thread_123"
"""The only shape of thread id in the audit's own text."""

_COMPARED = tuple(row for row in VARIANTS.values() if row is not AS_COMMITTED)


@dataclass(frozen=True)
class LinkStudy:
    """One link: probed as committed and sound, and delivery with the link broken and sound."""

    link: Link
    committed: Probe
    """The probe of the link as committed."""
    wording: Wording
    """The audit's description of the link, tested word for word on the link as committed."""
    sound: Probe
    before: Measurement
    """The sound chain with this link broken."""
    after: Measurement
    """The sound chain."""
    checked: Measurement
    """The same as `before`, with every startup check enabled: it may have refused to start."""

    def rates(self) -> pd.DataFrame:
        """Return counts and rates, broken and sound."""
        return rate_table([self.before, self.after])

    def losses(self) -> pd.DataFrame:
        """Return where the broken chain lost or misrouted events, and why."""
        return loss_table([self.before, self.after])

    def misroutes_of_shared_agent(self) -> int:
        """Return `Workload.misroutes_of_shared_agent` of the measured load."""
        return self.before.workload.misroutes_of_shared_agent()

    def alt_text(self) -> str:
        """Describe the figure in text."""
        return "; ".join(
            f"{measurement.variant.name}: {measurement.verdict.delivery} events reached their user,"
            f" {measurement.verdict.misrouted:,} frames another"
            for measurement in (self.before, self.after)
        )

    def figure(self, title: str) -> Figure:
        """Draw delivered and misrouted, broken and sound."""
        labels = [f"{measurement.variant.name}" for measurement in (self.before, self.after)]
        return delivery_figure([self.before, self.after], labels, title=title)


async def study_link(number: int, *, threads: int, runs: int, at_once: int, seed: int = 0) -> LinkStudy:
    """Probe link 1 to 9, break it, and measure delivery before and after its repair.

    `threads` users with one thread each, `runs` runs per thread, `at_once` of them active together. Link 3 is measured
    with agents that the registry binds, because the core binds its own agents (link 5).
    """
    workload = Workload(
        threads=thread_ids(EXAMPLE, threads, seed=seed), runs_per_thread=runs, at_once=at_once, outside_core=number == 3
    )
    broken = BROKEN[number]
    return LinkStudy(
        LINKS[number - 1],
        committed=await probe(number, AS_COMMITTED, seed=seed),
        wording=await check_wording(number, AS_COMMITTED, seed=seed),
        sound=await probe(number, SOUND, seed=seed),
        before=await measure(broken, workload, seed=seed),
        after=await measure(SOUND, workload, seed=seed),
        checked=await measure(replace(broken, self_checks=SOUND_CHECKS), workload, seed=seed),
    )


@dataclass(frozen=True)
class FixStudy:
    """Every fix with every family of thread ids, on the chain as reported: links 1 to 8 sound."""

    cells: Mapping[tuple[str, str], Measurement]
    """By family of thread ids and name of variant."""

    @property
    def families(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for name, _ in self.cells))

    @property
    def variants(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for _, name in self.cells))

    def example(self, variant: str) -> Measurement:
        """Return that variant's measurement with the audit's own example of a thread id."""
        return self.cells[EXAMPLE, variant]

    def over_families(self, variant: str) -> list[Measurement]:
        """Return that variant's measurements with every family, in their order."""
        return [self.cells[name, variant] for name in self.families]

    def rates(self, variant: str | None = None) -> pd.DataFrame:
        """Return one row per family and variant; with `variant`, only that one."""
        chosen = {key: cell for key, cell in self.cells.items() if variant in (None, key[1])}
        return rate_table(chosen.values(), **{"thread ids": [name for name, _ in chosen]})

    def alt_text(self) -> str:
        """Describe the totals in text, one sentence per variant."""
        example, families = f"{EXAMPLE}: delivered", "all families: delivered"
        return "; ".join(
            f"{row['variant']}: {row[example]} with {EXAMPLE}, {row[families]} over all families,"
            f" {row['misrouted']} misrouted"
            for row in map(self._total, self.variants)
        )

    def totals(self) -> pd.DataFrame:
        """Return one row per variant: the example, then all families together."""
        return pd.DataFrame([self._total(name) for name in self.variants])

    def _total(self, variant: str) -> dict[str, object]:
        example, cells = self.example(variant).verdict, [cell.verdict for cell in self.over_families(variant)]
        return {
            "variant": variant,
            f"{EXAMPLE}: delivered": f"{example.delivered:,} of {example.expected:,}",
            "all families: delivered": f"{sum(v.delivered for v in cells):,} of {sum(v.expected for v in cells):,}",
            "lost": sum(v.lost for v in cells),
            "misrouted": sum(v.misrouted for v in cells),
            "families without a loss": sum(v.delivered == v.expected for v in cells),
            "families that leak": sum(v.misrouted > 0 for v in cells),
        }

    def before_after(self, title: str) -> Figure:
        """Draw the summary: the audit's example, and all families."""
        panels = {
            f"the audit's own example, {EXAMPLE}": {name: [self.example(name)] for name in self.variants},
            f"{len(self.families)} kinds of thread ids seen in use": {
                name: self.over_families(name) for name in self.variants
            },
        }
        return before_after_figure(panels, title=title)

    def matrix(self, title: str) -> Figure:
        """Draw the details: which fix delivers which ids."""
        return matrix_figure(dict(self.cells), title=title)


async def study_fixes(
    *,
    threads: int,
    runs: int,
    at_once: int,
    seed: int = 0,
    families: Iterable[str] = tuple(FAMILIES),
    variants: Iterable[Variant] = _COMPARED,
) -> FixStudy:
    """Measure every variant with every family: `threads` users per family, `runs` runs each, `at_once` together."""
    variants = tuple(variants)
    cells = {}
    for name in families:
        workload = Workload(threads=thread_ids(name, threads, seed=seed), runs_per_thread=runs, at_once=at_once)
        for row in variants:
            cells[name, row.name] = await measure(row, workload, seed=seed)
    return FixStudy(cells)
