"""The results of a benchmark run, as a JSON file and as tables."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Final

import msgspec

from benchmarks.measured_values import Series, SeriesKey
from benchmarks.peers import Peer
from benchmarks.targets import JudgedTarget, Met, judge_targets

__all__ = [
    "Results",
    "client_bound",
    "found_ratio",
    "machine",
    "read",
    "results",
    "target_table",
    "throughput_table",
    "write",
]

CLIENT_BUSY: Final = 0.9
"""A client that was busy for more than 90 % of the time may have been the bottleneck."""


class MeasuredSeries(msgspec.Struct, frozen=True):
    """The values of one measure of one stack, with their median and range."""

    measure: str
    stack: str
    kind: str
    median: float
    low: float
    high: float
    values: list[float]


class TargetResult(msgspec.Struct, frozen=True):
    """One target and its result."""

    what: str
    measured: str
    bound: str
    ratio: float | None
    met: str


class Results(msgspec.Struct, frozen=True):
    """One run of the benchmarks."""

    plan: str
    made: datetime
    minutes: float
    machine: dict[str, str]
    versions: dict[str, str]
    missing: dict[str, str]
    """Stacks that were not measured, or not in all rounds, with the missing packages or the error."""
    measured: list[MeasuredSeries]
    targets: list[TargetResult]

    @property
    def series(self) -> Series:
        """The measured values by key."""
        series = Series()
        for each in self.measured:
            series.add(SeriesKey(each.measure, each.stack, each.kind), *each.values)
        return series


def machine() -> dict[str, str]:
    """Return a description of this machine, without its host name."""
    return {
        "system": platform.system(),
        "processor": _processor(),
        "processors": str(os.cpu_count()),
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "load before": ", ".join(f"{load:.1f}" for load in os.getloadavg()),
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()


def results(
    plan: str, series: Series, peers: Iterable[Peer], *, missing: dict[str, str], minutes: float, where: dict[str, str]
) -> Results:
    """Build the results of a run, including the comparison with the targets."""
    versions = {name: found for peer in peers for name, found in peer.versions.items() if found}
    return Results(
        plan=plan,
        made=datetime.now(UTC),
        minutes=round(minutes, 1),
        machine=where,
        versions=dict(sorted(versions.items())),
        missing=missing,
        measured=[_measured_series(key, series[key]) for key in series],
        targets=[_target(each) for each in judge_targets(series)],
    )


def _measured_series(key: SeriesKey, values: Sequence[float]) -> MeasuredSeries:
    return MeasuredSeries(*key, median(values), min(values), max(values), [float(f"{value:.5g}") for value in values])


def _target(each: JudgedTarget) -> TargetResult:
    of, over = each.target.of, each.target.over
    return TargetResult(
        what=each.target.what,
        measured=str(of) if over is None else f"{of} / {over.stack if over.kind == of.kind else over}",
        bound=f"{each.target.sign} {each.target.bound:g}",
        ratio=each.value,
        met=each.met,
    )


def found_ratio(each: TargetResult) -> str:
    """Return the ratio with 3 significant digits, or with more if rounding would move the ratio across the bound."""
    if each.ratio is None:
        return "–"
    sign, _, bound = each.bound.partition(" ")
    shown = ""
    for digits in range(3, 17):
        shown = f"{each.ratio:.{digits}g}"
        reached = float(shown) <= float(bound) if sign == "≤" else float(shown) >= float(bound)
        if reached == (each.met == Met.YES):
            break
    return shown


def write(found: Results, path: Path) -> None:
    path.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n")


def read(path: Path) -> Results:
    """Read a file that `write` has written. Raises msgspec.ValidationError if the file has another structure."""
    return msgspec.json.decode(path.read_bytes(), type=Results)


def target_table(found: Results) -> str:
    """Return a table of all targets with the measured values, the numbers of met and missed targets, and a list of the
    missed ones."""
    rows = [
        (
            each.what,
            each.measured,
            each.bound,
            found_ratio(each),
            each.met,
        )
        for each in found.targets
    ]
    table = _table(("target", "measured", "wanted", "found", ""), rows)
    counts = {met: sum(each.met == met for each in found.targets) for met in Met}
    not_met = [f"  {each.measured}: {each.bound} wanted" for each in found.targets if each.met == Met.NO]
    summary = ", ".join(f"{count} {met}" for met, count in counts.items())
    return "\n".join((table, "", f"{len(found.targets)} targets: {summary}", *not_met))


def throughput_table(found: Results) -> str:
    """Return one row for each stack: median and range of events/s and of CPU time per event, by kind of agent.

    The row of a missing stack shows the reason.
    """
    series = found.series
    kinds = list(dict.fromkeys(key.kind for key in series if key.measure == "events/s"))
    stacks = list(dict.fromkeys(key.stack for key in series if key.measure == "events/s"))
    rows = [(stack, *(cell for kind in kinds for cell in _cells(series, stack, kind))) for stack in stacks]
    rows += [(stack, why.splitlines()[0], *[""] * (2 * len(kinds) - 1)) for stack, why in found.missing.items()]
    return _table(("stack", *(head for kind in kinds for head in (f"{kind}, events/s", "CPU µs"))), rows)


def client_bound(series: Series, stack: str, kind: str) -> bool:
    """Return whether the client was busy nearly all the time and may have been the bottleneck."""
    busy = series.median(SeriesKey("client busy", stack, kind))
    return busy is not None and busy > CLIENT_BUSY


def _cells(series: Series, stack: str, kind: str) -> tuple[str, str]:
    rates, costs = series[SeriesKey("events/s", stack, kind)], series[SeriesKey("CPU µs/event", stack, kind)]
    if not rates:
        return "–", "–"
    return (
        f"{median(rates):,.0f} ({min(rates):,.0f}–{max(rates):,.0f}){' client!' * client_bound(series, stack, kind)}",
        f"{median(costs):.1f} ({min(costs):.1f}–{max(costs):.1f})",
    )


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in (heads, *rows)) for column in range(len(heads))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (heads, *rows)]
    return "\n".join(line.rstrip() for line in (lines[0], "-" * len(lines[0]), *lines[1:]))
