"""Compare each link broken and sound, and measure every fix with every family of thread ids."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import pandas as pd

from bridgekit.chain.self_check import SOUND_CHECKS
from bridgekit_verify.errors import InvalidParameter
from bridgekit_verify.links import LINKS, Link
from bridgekit_verify.measure.experiment import Measurement, measure
from bridgekit_verify.measure.tables import count_table
from bridgekit_verify.measure.thread_id_families import FAMILIES, Families, Family, families_by_name, thread_ids
from bridgekit_verify.measure.workload import Workload
from bridgekit_verify.probes.audit_descriptions import Wording, check_wording
from bridgekit_verify.probes.probes import Probe, probe
from bridgekit_verify.variants import AS_COMMITTED, BROKEN, SOUND, VARIANTS, Variant

__all__ = ["EXAMPLE", "FixStudy", "LinkStudy", "study_fixes", "study_link"]

EXAMPLE = "thread_123"
"""The only kind of thread id in the text of the audit."""

KINDS: Final = {
    "documented": "documented kinds",
    "stress": "stress kinds",
    "your own": "kinds of your own",
}
"""The groups of families, with the name of each group for use in a sentence."""

_COMPARED = tuple(row for row in VARIANTS.values() if row is not AS_COMMITTED)


@dataclass(frozen=True)
class LinkStudy:
    """The probe of one link as committed, and the delivery with the link broken and sound."""

    link: Link
    committed: Probe
    """The probe of the link as committed."""
    wording: Wording
    """The audit's description of the link, tested on the link as committed."""
    sound: Probe
    before: Measurement
    """The measurement of the sound chain with this link broken."""
    after: Measurement
    """The measurement of the sound chain."""
    checked: Measurement
    """The measurement of the broken chain with all startup checks, which may refuse to start the chain."""

    def misroutes_of_shared_agent(self) -> int:
        """Return how many events reach another user if concurrent runs of the measured load share one agent."""
        return self.before.workload.misroutes_of_shared_agent()


async def study_link(number: int, *, threads: int, runs: int, at_once: int, seed: int = 0) -> LinkStudy:
    """Probe a link from 1 to 9, break the link, and measure delivery before and after its repair.

    There are `threads` users with one thread each, and `runs` runs per thread, of which `at_once` are active at once.
    Link 3 is measured with agents that the registry binds, because the core binds its own agents (link 5).
    Raises InvalidParameter if a value is not allowed.
    """
    for name, value in (("threads", threads), ("runs", runs)):
        if type(value) is not int or value < 1:
            raise InvalidParameter(name, value, "a whole number of at least 1")
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
    """Measurements of several chains with several families of thread ids.

    The families are not a random sample, so sums over families describe only this study.
    """

    cells: Mapping[tuple[str, str], Measurement]
    """The measurements, by family of thread ids and name of variant."""
    kinds: Mapping[str, Family] = field(default_factory=lambda: FAMILIES)
    """The families by name."""

    @property
    def families(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for name, _ in self.cells))

    @property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """The families by group: documented, stress, and the reader's own. Empty groups are left out."""
        groups = {label: tuple(name for name in self.families if self.kinds[name].group == label) for label in KINDS}
        return {label: names for label, names in groups.items() if names}

    @property
    def variants(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for _, name in self.cells))

    @property
    def known(self) -> bool:
        """Whether every measurement expected at least one event. Otherwise, claims about all families are unknown."""
        return all(cell.verdict.delivery.known for cell in self.cells.values())

    @property
    def example_family(self) -> str:
        """The family of the audit's example or, if this family was not measured, the first family."""
        return EXAMPLE if EXAMPLE in self.families else self.families[0]

    def example(self, variant: str) -> Measurement:
        """Return the variant's measurement with `example_family`."""
        return self.cells[self.example_family, variant]

    def over_families(self, variant: str) -> list[Measurement]:
        """Return the variant's measurements in the order of the families."""
        return [self.cells[name, variant] for name in self.families]

    def delivering(self, variant: str) -> tuple[str, ...]:
        """Return the families whose events all reach their own user, and no other user."""
        return tuple(name for name in self.families if self.cells[name, variant].verdict.all_delivered)

    def dropping(self, variant: str) -> tuple[str, ...]:
        """Return the families with at least one event that does not reach its user."""
        return tuple(name for name in self.families if self.cells[name, variant].verdict.lost)

    def leaking(self, variant: str) -> tuple[str, ...]:
        """Return the families with a misrouted event. Each user has one thread, so a misrouted event is leaked."""
        return tuple(name for name in self.families if self.cells[name, variant].verdict.misrouted)

    def counts(self, variant: str | None = None) -> pd.DataFrame:
        """Return one row per family and variant, or only the rows of `variant`."""
        chosen = {key: cell for key, cell in self.cells.items() if variant in (None, key[1])}
        names = [name for name, _ in chosen]
        labels: dict[str, Sequence[object]] = {
            "thread ids": names,
            "documented": [self.kinds[name].documented for name in names],
        }
        return count_table(chosen.values(), **labels)

    def summary(self, variant: str) -> str:
        """Return two sentences: for how many families every event arrives, and which families leak."""
        delivering, leaking = self.delivering(variant), self.leaking(variant)
        arrived = " and ".join(
            f"{_of(delivering, names)} {_kinds(label, len(names))}" for label, names in self.groups.items()
        )
        leaks = "No event leaks."
        if leaking:
            names = ", ".join(f"'{name}'" for name in leaking)
            leaks = f"Events of {_of(leaking, self.families)} kinds of thread id leak to another user: {names}."
        return f"every event reaches its user for {arrived} of thread id. {leaks}"


def _kinds(label: str, count: int) -> str:
    return KINDS[label].replace("kinds", "kind") if count == 1 else KINDS[label]


def _of(some: Iterable[str], names: Iterable[str]) -> str:
    return f"{len({*some} & {*names})} of {len({*names})}"


async def study_fixes(
    *,
    threads: int,
    runs: int,
    at_once: int,
    seed: int = 0,
    families: Families = FAMILIES,
    variants: Iterable[Variant] = _COMPARED,
) -> FixStudy:
    """Measure every variant with every family of thread ids.

    Each family has `threads` users with `runs` runs each, and `at_once` runs are active at once.

    For thread ids of your own, pass `families={"mine": ["support-42", "support-43"]}`. Each id then gets its own user.
    """
    variants, kinds, cells = tuple(variants), families_by_name(families), {}
    for name, kind in kinds.items():
        workload = Workload(threads=kind.threads(threads, seed=seed), runs_per_thread=runs, at_once=at_once)
        for row in variants:
            cells[name, row.name] = await measure(row, workload, seed=seed)
    return FixStudy(cells, kinds)
