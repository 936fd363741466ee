"""The page that `make bench` writes: method, machine, results, and figures with text alternatives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks.measured_values import Series, SeriesKey
from benchmarks.measures.growth import FULL_BACKGROUND, NO_BACKGROUND
from benchmarks.missed_target_reasons import TABLE, Explanation, explanations
from benchmarks.results import Results, TargetResult, client_bound, found_ratio
from benchmarks.targets import ASGI, NATIVE, Met
from benchmarks.workload import BURST, RUN, YIELDING

__all__ = ["memory_growth", "page", "write"]

HEADS: Final = {BURST: "never waiting", RUN: "waiting between runs", YIELDING: "waiting between events"}

PAGE: Final = """\
# Speed, compared with other stacks

Written by `make bench`. {made} UTC, {minutes:.0f} minutes; {machine}. {versions}.

How it was measured:

- Server and clients are separate processes on one machine.
- There are 100 threads with one subscriber each, and runs of five events of about {size:.0f} bytes.
- The client reads, and after the measured time it verifies that every event arrived exactly once, in order and
  unchanged. A stack that fails this check has no result.
- CPU time is the time that the scheduler charges to the stack's processes. It excludes the client and the broker.
- The stacks are interleaved round by round, and every ratio is computed within a round.
- Numbers are medians, with the lowest and the highest value.
- bridgekit runs with its defaults: retention, receipts, metrics and limits are on.
- The other stacks are used as their documentation shows, with the cheaper option where there is a choice. None of them
  retains events, and only bridgekit disconnects a subscriber that does not read.

*bridgekit ASGI, whole runs* executes an agent through all nine links for every five events: for each run, it
creates and signs a run id, claims the thread, registers the run's route, creates the agent, and emits the first and the
last event. In the other rows of bridgekit, the adapter emits every event, and no run is executed.

## Events per second

![{throughput}](throughput.png)

{throughput_table}

*Never waiting*: agents emit all their events without yielding to the event loop. *Waiting between runs*: they yield
after five events. *Waiting between events*: they yield after each event. A * marks a rate that the client limits,
and not the stack.

## From emission to the client's read

![{latency}](latency.png)

## One subscriber stops reading

There are ten sockets in two threads. One emitter sends 500 events per second of 8 kB to the threads in turn, and one
socket stops reading before the first event.

![{stall}](stall.png)

{stall_table}

## Cost and memory under background load

![{growth}](growth.png)

![{memory}](memory.png)

## Targets

{targets}

{missed}

{missing}"""


def page(found: Results) -> str:
    """Return the page as Markdown."""
    series = found.series
    return (
        PAGE.format(
            made=f"{found.made:%Y-%m-%d %H:%M}",
            minutes=found.minutes,
            machine=", ".join(f"{what} {value}" for what, value in found.machine.items()),
            versions=", ".join(f"{name} {version}" for name, version in found.versions.items()),
            size=series.median(SeriesKey("bytes/event", NATIVE, BURST)) or 0.0,
            throughput=_throughput_alt_text(series),
            throughput_table=_throughput_table(series),
            latency=_latency_alt_text(series),
            stall=_stall_alt_text(series),
            stall_table=_stall_table(series),
            growth=_growth_alt_text(series),
            memory=_memory_alt_text(series),
            targets=_targets_table(found),
            missed=_missed_section(found.targets, explanations()),
            missing="\n".join(f"{stack} is missing: {why.splitlines()[0]}" for stack, why in found.missing.items()),
        ).rstrip()
        + "\n"
    )


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table with a left-aligned first column and right-aligned other columns."""
    lines = (heads, ("---", *["--:"] * (len(heads) - 1)), *rows)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _stacks(series: Series, measure: str) -> list[str]:
    return list(dict.fromkeys(key.stack for key in series if key.measure == measure))


def _spread(values: Sequence[float], digits: int = 0) -> str:
    if not values:
        return "–"
    return f"{median(values):,.{digits}f} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"


def _throughput_table(series: Series) -> str:
    kinds = [kind for kind in HEADS if any(key.kind == kind for key in series)]
    rows = [
        (
            stack,
            *(
                _spread(series[SeriesKey("events/s", stack, kind)]) + " *" * client_bound(series, stack, kind)
                for kind in kinds
            ),
            *(_spread(series[SeriesKey("CPU µs/event", stack, kind)], 1) for kind in kinds),
        )
        for stack in _stacks(series, "events/s")
    ]
    rates, costs = (f"events/s, {HEADS[kind]}" for kind in kinds), (f"CPU µs, {HEADS[kind]}" for kind in kinds)
    return _table(("stack", *rates, *costs), rows)


def _throughput_alt_text(series: Series) -> str:
    return "Events per second: " + "; ".join(
        f"{stack} {rate:,.0f}"
        for stack in _stacks(series, "events/s")
        if (rate := series.median(SeriesKey("events/s", stack, BURST))) is not None
    )


def _latency_alt_text(series: Series) -> str:
    kinds = [key.kind for key in series if key.measure == "latency p50, µs"]
    rate = kinds[0] if kinds else ""
    return f"Latency at {rate}, median and 99th percentile in µs: " + "; ".join(
        f"{stack} {series.median(SeriesKey('latency p50, µs', stack, rate)) or 0:,.0f}"
        f" and {series.median(SeriesKey('latency p99, µs', stack, rate)) or 0:,.0f}"
        for stack in _stacks(series, "latency p50, µs")
    )


READ: Final = "stall: neighbours' events, %"
STALL: Final = {
    "neighbours' events, %": 0,
    "neighbours' p99, ms": 1,
    "emitter held up at most, ms": 0,
    "piled up, KiB": 0,
    "cut off": 0,
}


def _stall_table(series: Series) -> str:
    rows = [
        (
            stack,
            *(
                f"{series.median(SeriesKey(f'stall: {what}', stack)) or 0:,.{digits}f}"
                for what, digits in STALL.items()
            ),
        )
        for stack in _stacks(series, "stall: cut off")
    ]
    return _table(("stack", *STALL), rows)


def _stall_alt_text(series: Series) -> str:
    return "Events that the neighbours of a stalled subscriber read: " + "; ".join(
        f"{stack} {series.median(SeriesKey(READ, stack)) or 0:.0f} %" for stack in _stacks(series, "stall: cut off")
    )


def _growth_alt_text(series: Series) -> str:
    def grown(stack: str) -> str:
        ratio = series.ratio(
            SeriesKey("CPU µs/event", stack, str(FULL_BACKGROUND)), SeriesKey("CPU µs/event", stack, str(NO_BACKGROUND))
        )
        return f"{stack} {'–' if ratio is None else f'{ratio:.2f}'} times"

    return f"CPU time per event with {FULL_BACKGROUND}, relative to no background load: {grown(NATIVE)}; {grown(ASGI)}"


def _memory_alt_text(series: Series) -> str:
    connections = "; ".join(
        f"{stack} {series.median(SeriesKey('KiB/idle connection', stack)) or 0:.1f}"
        for stack in _stacks(series, "KiB/idle connection")
    )
    return f"KiB per idle connection: {connections}. {memory_growth(series)}"


def memory_growth(series: Series) -> str:
    """Return a sentence about the memory of a server that sends events. It is also the title of the figure."""
    shares = [each for stack in (NATIVE, ASGI) for each in series[SeriesKey("memory, share of the settled", stack)]]
    events = series[SeriesKey("memory, events so far", NATIVE)]
    if not shares or not events:
        return "Memory of idle connections"
    return f"The memory of bridgekit grows by at most {100 * (max(shares) - 1):.1f} % over {events[-1]:,.0f} events"


def _targets_table(found: Results) -> str:
    rows = [
        (
            each.what,
            each.measured,
            each.bound,
            found_ratio(each),
            f"**{each.met}**" if each.met == Met.NO else each.met,
        )
        for each in found.targets
    ]
    return _table(("target", "measured", "wanted", "found", ""), rows)


def _missed_section(targets: Sequence[TargetResult], explained: Sequence[Explanation]) -> str:
    """Return the section with the reasons for the missed targets."""
    missed = {each.measured: each for each in targets if each.met == Met.NO}
    parts = [
        _explained([each for name, each in missed.items() if name in explanation.targets], explanation)
        for explanation in explained
        if not missed.keys().isdisjoint(explanation.targets)
    ]
    known = {name for explanation in explained for name in explanation.targets}
    parts += [f"#### {name}\n\nNo reason is recorded in `{TABLE.name}`." for name in missed if name not in known]
    return "\n\n".join(("### Why targets are missed", *parts)) if parts else ""


def _explained(missed: Sequence[TargetResult], explanation: Explanation) -> str:
    names = "; ".join(f"{each.measured}: {found_ratio(each)}, wanted {each.bound}" for each in missed)
    tries = [f"- {each.change}: {each.measured}. {each.kept}." for each in explanation.tries]
    return "\n\n".join(
        (
            f"#### {names}",
            f"*Reason.* {explanation.reason.strip()}",
            f"*Profile.* {explanation.profile.strip()}",
            "*Tried.*",
            "\n".join(tries),
        )
    )


def write(found: Results, folder: Path) -> Path:
    """Write the page to the folder of the figures, and return the page's path."""
    path = folder / "README.md"
    path.write_text(page(found), encoding="utf-8")
    return path
