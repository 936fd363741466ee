"""Compare the bridge's receipts with what sockets read, for several chains under the same load."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from bridgekit_verify.measure.drop_figure import DELIVERED, DROPPED
from bridgekit_verify.measure.experiment import Measurement, measure_each
from bridgekit_verify.measure.history import EventKey, History
from bridgekit_verify.measure.plots import TEXT_COLOUR, frame_grid, new_figure
from bridgekit_verify.measure.workload import Workload, thread_ids
from bridgekit_verify.studies.links_and_fixes import EXAMPLE
from bridgekit_verify.variants import AS_COMMITTED, AS_REPORTED, BROKEN, FIXES, SOUND, Variant

__all__ = ["ARRIVALS", "RECEIPT_CHAINS", "ReceiptStudy", "receipt_table", "study_receipts"]

RECEIPTS: Final = ("sent", "not sent", "no receipt")
ARRIVALS: Final = ("its user read it", "only another user read it", "no user read it")
_IN_WORDS: Final = {
    "sent": "the receipt 'sent'",
    "not sent": "the receipt 'not sent'",
    "no receipt": "no receipt",
    "its user read it": "their user read",
    "only another user read it": "only another user read",
    "no user read it": "no user read",
}
"""The phrase of the alternative text for each receipt and each arrival."""
GRIDS_ACROSS: Final = 2

RECEIPT_CHAINS: Final[tuple[Variant, ...]] = (
    AS_COMMITTED,
    FIXES["fix 1"].applied_to(AS_COMMITTED),
    FIXES["fixes 1, 2 and 3"].applied_to(AS_COMMITTED),
    AS_REPORTED,
    BROKEN[5],
    SOUND,
)
"""The measured chains: as committed, without and with the audit's fixes, and three chains for comparison."""


@dataclass(frozen=True)
class ReceiptStudy:
    """The measurements of one load on several chains. A receipt *sent* is accurate only if the user read the event."""

    measurements: Sequence[Measurement]

    @property
    def judged(self) -> list[Measurement]:
        """The measurements of the audit's chains, without and with fixes. SOUND and `BROKEN[5]` are left out."""
        return [each for each in self.measurements if each.variant not in (SOUND, BROKEN[5])]

    def of(self, name: str) -> Measurement:
        """Return the measurement of the chain with this name."""
        return next(each for each in self.measurements if each.variant.name == name)

    def table(self) -> pd.DataFrame:
        """Return event counts per chain and kind of receipt, by reader: their user, only another user, or no user."""
        return pd.concat([receipt_table(measurement) for measurement in self.measurements], ignore_index=True)

    def title(self) -> str:
        """State which of the audit's chains has the most false receipts."""
        worst = max(self.judged, key=lambda each: each.verdict.false_success)
        events = len(worst.history.expected)
        if not worst.verdict.false_success:
            return "On every chain, the user reads every event that is reported as sent"
        return (
            f"On the chain {worst.variant.name!r}, {worst.verdict.false_success:,} of {events:,} events\n"
            "are reported as sent, but their users did not read them"
        )

    def figure(self) -> Figure:
        """Draw one grid per chain: receipts as rows, arrivals as columns. Dark cells count false receipts."""
        grids = {each.variant.name: _receipt_counts(each.history) for each in self.measurements}
        columns = min(len(grids), GRIDS_ACROSS)
        rows = -(-len(grids) // columns)
        with new_figure(self.title(), 1.2 + 2.7 * columns, 0.9 + 2.7 * rows) as figure:
            axes = figure.subplots(rows, columns, sharey=True, squeeze=False).flatten()
            for unused in axes[len(grids) :]:
                unused.set_visible(False)
            for axis, (name, counts) in zip(axes[: len(grids)], grids.items(), strict=True):
                for row, receipt in enumerate(RECEIPTS):
                    for column, what in enumerate(ARRIVALS):
                        _cell(axis, row, column, counts[receipt, what], accurate=_is_accurate(receipt, what))
                axis.set_title(_in_two_lines(name), fontsize=10.5)
                labels = ["receipt:\nsent", "receipt:\nnot sent", "no receipt"]
                frame_grid(axis, ["its user\nread it", "only another\nuser read it", "no user\nread it"], labels)
                axis.tick_params(labelsize=9.5)
            handles = [
                Patch(facecolor=DROPPED, edgecolor=TEXT_COLOUR, linewidth=2.0, label="wrong or missing receipt"),
                Patch(facecolor=DELIVERED, edgecolor="#CCCCCC", label="correct receipt"),
            ]
            figure.legend(handles=handles, loc="outside lower left", ncols=2, frameon=False, fontsize=9.5)
            return figure

    def alt_text(self) -> str:
        """Describe the figure in text: for each chain, the counts above 0."""
        return "; ".join(
            f"chain {each.variant.name!r}: "
            + ", ".join(
                f"{count} events with {_IN_WORDS[receipt]} that {_IN_WORDS[got]}"
                for (receipt, got), count in _ordered(each)
                if count
            )
            for each in self.measurements
        )


def _in_two_lines(name: str) -> str:
    return name.replace(" with ", "\nwith ", 1)


def _ordered(measurement: Measurement) -> list[tuple[tuple[str, str], int]]:
    counts = _receipt_counts(measurement.history)
    return [((receipt, got), counts[receipt, got]) for receipt in RECEIPTS for got in ARRIVALS]


def receipt_table(measurement: Measurement) -> pd.DataFrame:
    """Count events by what `notify` reported (rows) and by what sockets read (columns)."""
    counts = _receipt_counts(measurement.history)
    return pd.DataFrame(
        {"chain": measurement.variant.name, "receipt": receipt} | {got: counts[receipt, got] for got in ARRIVALS}
        for receipt in RECEIPTS
    )


async def study_receipts(
    *,
    threads: int,
    users_without_socket: int,
    runs: int = 1,
    at_once: int,
    seed: int = 0,
    chains: Iterable[Variant] = RECEIPT_CHAINS,
) -> ReceiptStudy:
    """Measure the same load on every chain. The first `users_without_socket` users have no socket."""
    workload = Workload(
        threads=thread_ids(EXAMPLE, threads, seed=seed),
        runs_per_thread=runs,
        at_once=at_once,
        users_without_socket=users_without_socket,
    )
    return ReceiptStudy(await measure_each(chains, [workload], seed=seed))


def _receipt_counts(history: History) -> Counter[tuple[str, str]]:
    owners = {expectation.key: expectation.user_id for expectation in history.expected}
    readers: dict[EventKey, set[str]] = {key: set() for key in owners}
    for arrival in history.arrivals:
        if arrival.key in readers:
            readers[arrival.key].add(arrival.socket.user_id)
    return Counter((_receipt_label(history, key), _arrival_label(owner, readers[key])) for key, owner in owners.items())


def _receipt_label(history: History, key: EventKey) -> str:
    if key not in history.acknowledged:
        return "no receipt"
    return "sent" if history.acknowledged[key][1] else "not sent"


def _arrival_label(owner: str, readers: set[str]) -> str:
    if owner in readers:
        return ARRIVALS[0]
    return ARRIVALS[1] if readers else ARRIVALS[2]


def _is_accurate(receipt: str, got: str) -> bool:
    return (receipt, got) in {("sent", "its user read it"), ("not sent", "no user read it")}


def _cell(axis: Axes, row: int, column: int, count: int, *, accurate: bool) -> None:
    """Draw one cell: pale for accurate receipts, dark with a border for false receipts, white for the count 0."""
    colour = "white" if not count else (DELIVERED if accurate else DROPPED)
    edge = {"edgecolor": TEXT_COLOUR, "linewidth": 2.0} if count and not accurate else {"edgecolor": "#CCCCCC"}
    axis.add_patch(Rectangle((column + 0.04, row + 0.05), 0.92, 0.9, facecolor=colour, **edge))
    axis.text(
        column + 0.5,
        row + 0.5,
        f"{count:,}",
        ha="center",
        va="center",
        color="white" if count and not accurate else TEXT_COLOUR if count else "#999999",
        fontsize=12,
        fontweight="bold" if count else "normal",
    )
