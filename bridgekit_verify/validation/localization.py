"""Check that probes and ledger name the broken link, for each link and each way to break it.

Probes and ledger do not learn which link is broken. A matrix compares the named links with the broken link: one row per
broken link, one column per named link. For every breakage, the broken link must be named. If another link is named, an
explanation must exist.
"""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from string import ascii_lowercase
from typing import Any, Final

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from bridgekit_verify.links import LINKS
from bridgekit_verify.measure.attribution import Attribution
from bridgekit_verify.measure.experiment import Measurement, measure
from bridgekit_verify.measure.overtaken_events import attribute_delays
from bridgekit_verify.measure.plots import GREEN, TEXT_COLOUR, VERMILLION, frame_grid, new_figure
from bridgekit_verify.measure.workload import Workload, thread_ids
from bridgekit_verify.probes.probes import HUB, Observations, Probe, ProbeAnswer, probe_ten
from bridgekit_verify.validation.broken_links import BREAKAGES, Breakage
from bridgekit_verify.variants import SOUND, Variant

__all__ = ["NAMES", "Case", "Localization", "MatrixCell", "localize"]

EMPTY: Final = "#F2F2F2"
LINE_CHARACTERS: Final = 92
LABEL_CHARACTERS: Final = 22


@dataclass(frozen=True, slots=True)
class MatrixCell:
    """One cell of the matrix: counts on the diagonal, and letters of explanations elsewhere."""

    tried: int = 0
    """Number of ways in which the link was broken."""
    named: int = 0
    """Number of ways in which the link was broken and the probes or the ledger named the link."""
    by_probes: int = 0
    by_ledger: int = 0
    note: str = ""
    """The letter that refers to an explanation."""

    def __str__(self) -> str:
        return self.note or "\n".join([f"{self.named} of {self.tried}", *self.fewer])

    @property
    def fewer(self) -> list[str]:
        """The count of each source (probes or ledger) that named the link in fewer cases than both sources together."""
        counts = (("probes", self.by_probes), ("ledger", self.by_ledger))
        return [f"{source} {count}" for source, count in counts if count < self.named]


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, LINE_CHARACTERS, subsequent_indent="     ")


def _draw(axis: Axes, row: int, column: int, cell: MatrixCell | None, *, on_diagonal: bool) -> None:
    colour, text_colour, label = EMPTY, TEXT_COLOUR, "" if cell is None else str(cell)
    if cell is not None and on_diagonal:
        colour, text_colour = (GREEN if cell.named == cell.tried else VERMILLION), "white"
    # Without colour, a border distinguishes a note from an empty cell.
    edge = {"edgecolor": TEXT_COLOUR, "linewidth": 1.8} if label and not on_diagonal else {"edgecolor": "none"}
    axis.add_patch(Rectangle((column + 0.04, row + 0.05), 0.92, 0.9, facecolor=colour, **edge))
    first, *rest = label.split("\n")
    middle: dict[str, Any] = {"ha": "center", "va": "center", "color": text_colour, "fontweight": "bold"}
    axis.text(column + 0.5, row + (0.24 if rest else 0.5), first, fontsize=8.5, **middle)
    # A single count is written on two lines, so that it is legible on a narrow screen.
    below, size = (rest[0].replace(" ", "\n"), 7.5) if len(rest) == 1 else ("\n".join(rest), 6.5)
    axis.text(column + 0.5, row + 0.63, below, fontsize=size, linespacing=0.95, **{**middle, "fontweight": "normal"})


NAMES: Final = {link.number: link.name for link in (*LINKS, HUB)}
"""The names of the audit's nine links and of the hub, by number."""
UNEXPLAINED: Final = "not explained"


@dataclass(frozen=True)
class Case:
    """One breakage, and the links that the probes and the ledger named."""

    breakage: Breakage
    probes: tuple[Probe, ...]
    measurement: Measurement

    @property
    def by_probes(self) -> tuple[int, ...]:
        """The links whose probe has the answer "does not hold"."""
        return tuple(probe.link.number for probe in self.probes if probe.answer is ProbeAnswer.DOES_NOT_HOLD)

    @property
    def attributions(self) -> dict[Attribution, int]:
        """How many lost, misrouted and delayed events are attributed to each link and reason.

        If the application refused to start, only the refusal is counted.
        """
        if (refused := self.measurement.refused) is not None:
            return {Attribution(refused.link, "refused to start"): 1}
        verdict = self.measurement.verdict
        late = attribute_delays(self.measurement.history)
        return dict(Counter(verdict.losses) + Counter(verdict.misroutes) + Counter(late))

    @property
    def by_ledger(self) -> tuple[int, ...]:
        """The links that losses, misroutes and delays are attributed to."""
        return tuple(sorted({attribution.link for attribution in self.attributions}))

    @property
    def elsewhere(self) -> tuple[int, ...]:
        """The links that are named although they were not broken."""
        return tuple(sorted({*self.by_probes, *self.by_ledger} - {self.breakage.link}))

    @property
    def row(self) -> dict[str, object]:
        """The case as a row of a table."""
        return {
            "broken": self.breakage.link,
            "way": self.breakage.way,
            "what is wrong": self.breakage.variant.summary,
            "named by probes": _listed(self.by_probes),
            "named by the ledger": _listed(self.by_ledger),
            "observed by the probe": "; ".join(
                p.evidence for p in self.probes if p.answer is ProbeAnswer.DOES_NOT_HOLD
            ),
            "attributed in the ledger": "; ".join(
                f"{count:,} × {attribution.reason}"
                for attribution, count in sorted(self.attributions.items(), key=_by_link)
            ),
        }


def _by_link(item: tuple[Attribution, int]) -> tuple[int, str]:
    return item[0].link, item[0].reason


def _listed(links: Iterable[int]) -> str:
    return ", ".join(str(link) for link in links) or "none"


@dataclass(frozen=True)
class Localization:
    """The cases of all breakages, and of the sound chain for comparison."""

    cases: tuple[Case, ...]
    sound: Case
    """The case of the sound chain (link number 0), in which no link may be named."""

    def table(self) -> pd.DataFrame:
        """Return one row per breakage: the broken link, the named links, and the evidence."""
        return pd.DataFrame([case.row for case in self.cases])

    def cells(self) -> dict[tuple[int, int], MatrixCell]:
        """Return the non-empty cells of the matrix, by broken and named link. Cells off the diagonal have a letter."""
        letters = {(broken, named): letter for letter, broken, named, *_ in self._elsewhere()}
        cells = {pair: MatrixCell(note=letter) for pair, letter in letters.items()}
        for link in NAMES:
            cases = [case for case in self.cases if case.breakage.link == link]
            if cases:
                cells[link, link] = MatrixCell(
                    tried=len(cases),
                    named=sum(link in {*case.by_probes, *case.by_ledger} for case in cases),
                    by_probes=sum(link in case.by_probes for case in cases),
                    by_ledger=sum(link in case.by_ledger for case in cases),
                )
        return cells

    def matrix(self) -> pd.DataFrame:
        """Return the matrix as a table: broken links as rows, named links as columns, "" for empty cells."""
        cells = self.cells()
        rows = [[str(cells.get((broken, named), "")).replace("\n", ", ") for named in NAMES] for broken in NAMES]
        index = pd.Index([f"{number} {name}" for number, name in NAMES.items()], name="broken")
        return pd.DataFrame(rows, index=index, columns=pd.Index(list(NAMES), name="named"))

    def explanations(self) -> pd.DataFrame:
        """Return one row for each link that was named although another link was broken, with the source and the
        reason."""
        return pd.DataFrame(self._elsewhere(), columns=["cell", "broken", "named", "way", "by", "why"])

    def _elsewhere(self) -> list[tuple[str, int, int, str, str, str]]:
        found = [(case, named) for case in self.cases for named in case.elsewhere]
        pairs = list(dict.fromkeys((case.breakage.link, named) for case, named in found))
        return [
            (
                ascii_lowercase[pairs.index((case.breakage.link, named))],
                case.breakage.link,
                named,
                case.breakage.way,
                " and ".join(
                    source
                    for source, links in (("the probes", case.by_probes), ("the ledger", case.by_ledger))
                    if named in links
                ),
                case.breakage.also_named.get(named, UNEXPLAINED),
            )
            for case, named in found
        ]

    @property
    def named(self) -> int:
        """The number of breakages for which the probes and the ledger named the broken link.

        Instead of the broken link, the ledger may name a link of `Breakage.also_named`.
        """
        return sum(
            case.breakage.link in case.by_probes
            and (case.breakage.link in case.by_ledger or bool(set(case.by_ledger) & set(case.breakage.also_named)))
            for case in self.cases
        )

    @property
    def holds(self) -> bool:
        """Whether broken links are named, other named links are explained, and no link of the sound chain is named."""
        return (
            bool(self.cases)
            and self.named == len(self.cases)
            and UNEXPLAINED not in set(self.explanations()["why"])
            and not self.sound.elsewhere
        )

    def alt_text(self) -> str:
        """Return a text alternative without the cells: how often the broken link or another link was named."""
        others = sum(bool(case.elsewhere) for case in self.cases)
        named = self.sound.elsewhere
        return (
            f"For {self.named} of {len(self.cases)} breakages, the suite names the broken link. For {others} of"
            f" {len(self.cases)} breakages, the suite names another link, as well or instead. In the sound chain, the"
            " probes and the ledger"
            f" name {f'these links as broken: {_listed(named)}' if named else 'no link as broken'}."
        )

    def title(self) -> str:
        """State for how many breakages the broken link was named."""
        return f"For {self.named} of {len(self.cases)} breakages, the suite names the broken link"

    def figure(self) -> Figure:
        """Draw the matrix, with its letters explained below."""
        notes = {
            letter: f"link {broken} is broken ({way}), and link {named} is named by {by}. {why}"
            for letter, broken, named, way, by, why in self._elsewhere()
        }
        cells = self.cells()
        lines = [line for letter, text in notes.items() for line in _wrapped(f"{letter}:  {text}")]
        with new_figure(self.title(), 6.5, 5.4 + 0.17 * len(lines)) as figure:
            axis = figure.subplots()
            for row, broken in enumerate(NAMES):
                for column, named in enumerate(NAMES):
                    _draw(axis, row, column, cells.get((broken, named)), on_diagonal=broken == named)
            rows = [f"{textwrap.fill(name, LABEL_CHARACTERS)}  {number}" for number, name in NAMES.items()]
            frame_grid(axis, [str(number) for number in NAMES], rows)
            axis.tick_params(labelsize=8.5)
            axis.xaxis.tick_top()
            axis.xaxis.set_label_position("top")
            axis.set_xlabel("named: by the probes or by the ledger", fontsize=9)
            axis.set_ylabel("broken: one link at a time", fontsize=9)
            figure.supxlabel(
                "\n".join(
                    [
                        "Numbers: breakages that were named, of all breakages. Below: the source that named fewer"
                        " breakages.",
                        "Empty: never named.",
                        *lines,
                    ]
                ),
                x=0.01,
                ha="left",
                fontsize=8.5,
            )
            return figure


async def localize(
    breakages: Iterable[Breakage] = BREAKAGES, *, users: int = 3, steps: int = 2, seed: int = 0
) -> Localization:
    """Probe and measure every breakage and the sound chain.

    Each of `users` users has one run of `steps` steps. Two runs are concurrent. Use an even number of steps, because
    some breakages deliver the events of a run only in pairs. The measurement of a breakage takes about 0.4 s.
    """
    shared = Observations(seed, threads=1)
    cases = [await _case(breakage, users, steps, seed, shared) for breakage in breakages]
    return Localization(tuple(cases), await _case(Breakage(0, "sound", SOUND), users, steps, seed, shared))


async def _case(breakage: Breakage, users: int, steps: int, seed: int, shared: Observations) -> Case:
    variant: Variant = breakage.variant
    workload = Workload(
        threads=thread_ids("thread_123", users, seed=seed), steps=steps, at_once=2, outside_core=breakage.outside_core
    )
    probes = await probe_ten(variant, shared=shared)
    return Case(breakage, tuple(probes), await measure(variant, workload, seed=seed))
