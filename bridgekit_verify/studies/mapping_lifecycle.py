"""Compare the run-thread mapping of Fix 3 as written with the sound mapping service, over the lifecycle of runs.

Fix 3's dict appears to work as long as a single process runs and no event is emitted after the end of its run.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bridgekit.errors import RunAlreadyMapped
from bridgekit.ids import ThreadId, UserId
from bridgekit.mapping import MemoryMappingStore, RunThreadMappingService
from bridgekit.mapping.service import GRACE_SECONDS
from bridgekit_verify.as_committed import DictMapping
from bridgekit_verify.audited_routing import OpaqueRunIds
from bridgekit_verify.measure.checker import Verdict, check
from bridgekit_verify.measure.history import ExpectedEvents
from bridgekit_verify.measure.ledger import ledger
from bridgekit_verify.measure.plots import BLUE, GREEN, TEXT_COLOUR, VERMILLION, draw_rates, new_figure
from bridgekit_verify.measure.statistics import Rate
from bridgekit_verify.measure.wording import capitalized
from bridgekit_verify.measure.workload import OwnedThread, seeded, thread_ids
from bridgekit_verify.studies.manual_run import Clock, manual_run
from bridgekit_verify.studies.run_ids_across_processes import ProcessDelivery, measure_processes, process_table
from bridgekit_verify.variants import FIX_3, SOUND, Variant

__all__ = [
    "UNDER_WAY",
    "LateEvents",
    "LifecycleStudy",
    "Retained",
    "bytes_of",
    "emit_late",
    "fill_mapping",
    "reroute",
    "study_lifecycles",
]


MAPPINGS: Final[Mapping[str, Callable[[Clock], RunThreadMappingService]]] = {
    "fix 3": lambda _: DictMapping(),
    "sound": lambda clock: RunThreadMappingService(MemoryMappingStore(clock)),
}
STYLES: Final = ((VERMILLION, "D"), (BLUE, "s"), (GREEN, "o"))
UNDER_WAY: Final = 5
"""Duration of each run in seconds. One run starts per second."""


@dataclass(frozen=True)
class Retained:
    """The routes and the bytes that a mapping holds after a given number of runs."""

    mapping: str
    cleaned_up: bool
    runs: int
    routes: int
    """The number of runs for which the mapping still returns a thread."""
    held_bytes: int
    """The size in bytes of all containers, strings and numbers in the mapping, each counted once."""


async def fill_mapping(mapping: str, *, cleaned_up: bool, after: Sequence[int], seed: int = 0) -> list[Retained]:
    """Register runs in one of `MAPPINGS`, and measure the mapping's size after each number of runs in `after`."""
    clock = Clock()
    service = MAPPINGS[mapping](clock)
    run_ids, threads = OpaqueRunIds(seeded(seed)), thread_ids("thread_<uuid4>", 100, seed=seed)
    begun, held = [], []
    for number in range(max(after)):
        clock.now = float(number)
        owned = threads[number % len(threads)]
        begun.append(run_ids.new(owned.thread_id))
        await service.register_mapping(begun[-1], owned.thread_id)
        if cleaned_up and number >= UNDER_WAY:
            await service.cleanup_mapping(begun[number - UNDER_WAY])
        if number + 1 in after:
            routes = sum([await service.get_thread_id(run_id) is not None for run_id in begun])
            held.append(Retained(mapping, cleaned_up, number + 1, routes, bytes_of(service)))
    return held


def bytes_of(root: object) -> int:
    """Return the size in bytes of all containers, strings and numbers that an object refers to, also indirectly.

    Other objects are not counted: they are few, and their size depends on Python's earlier allocations.
    """
    seen: set[int] = set()
    waiting, total = [root], 0
    while waiting:
        item = waiting.pop()
        if id(item) in seen or callable(item):
            continue
        seen.add(id(item))
        match item:
            case dict():
                waiting += [*item.keys(), *item.values()]
            case list() | tuple() | deque():
                waiting += item
            case str() | float() | int() | None:
                pass
            case _:
                waiting += vars(item).values()
                continue
        total += sys.getsizeof(item)
    return total


LATENESS_SECONDS: Final = (-1.0, 0.0, 1.0, 5.0, 15.0, 29.0, 30.0, 60.0)
"""The times of events, in seconds after the end of their run. Negative: before the end."""


@dataclass(frozen=True)
class LateEvents:
    """Delivery of events at fixed times before and after the end of their run."""

    variant: str
    address: str
    """What the events carry: "run id" or "run id and thread"."""
    verdict: Verdict
    by_lateness: Mapping[float, Rate]
    """The rate of delivered events, by seconds after the end of the run."""


async def emit_late(
    variant: Variant,
    clock: Clock,
    *,
    carried: bool = False,
    lateness: Sequence[float] = LATENESS_SECONDS,
    users: int = 5,
    runs: int = 20,
    seed: int = 0,
) -> LateEvents:
    """Open runs, end them at second 0 of `clock`, and emit an event of each run at each time in `lateness`.

    Without `carried`, events carry only the run id, as events of a caller outside the run do. With `carried`, the run's
    own agent emits the events, and they also carry the thread.
    """
    threads = thread_ids("thread_123", users, seed=seed)
    async with manual_run(variant, threads, seed=seed) as live:
        opened = [await live.open_run(threads[number % users], f"question {number + 1}") for number in range(runs)]
        ended = False
        for step, seconds in enumerate(sorted(lateness), start=1):
            if seconds >= 0 and not ended:
                clock.now, ended = 0.0, True
                for run in opened:
                    await live.close_run(run)
            clock.now = seconds
            for run in opened:
                await (live.emit if carried else live.notify)(run, step)
    delivered = dict.fromkeys(range(1, len(lateness) + 1), 0)
    for row in ledger(live.history):
        delivered[row.expectation.key.step] += row.copies > 0
    rates = {seconds: Rate(delivered[step], runs) for step, seconds in enumerate(sorted(lateness), start=1)}
    verdict = check(live.history, ExpectedEvents(runs * len(lateness), 0))
    return LateEvents(variant.name, "run id and thread" if carried else "run id", verdict, rates)


async def _late_by_chain(users: int, runs: int, seed: int) -> tuple[LateEvents, ...]:
    clock = Clock()
    sound = replace(SOUND, mapping=lambda _: RunThreadMappingService(MemoryMappingStore(clock)))
    return tuple(
        [
            await emit_late(variant, clock, carried=carried, users=users, runs=runs, seed=seed)
            for variant in (FIX_3, sound)
            for carried in (False, True)
        ]
    )


@dataclass(frozen=True)
class Rerouted:
    """Alice's run, registered a second time for Bob's thread after half of its events."""

    variant: str
    verdict: Verdict
    refused: RunAlreadyMapped | None
    """The error of the second registration, or None if it was accepted."""


async def reroute(variant: Variant, *, events: int = 20, seed: int = 0) -> Rerouted:
    """Emit `events` events with only the run id. After half of the events, register the run for another thread."""
    alice = OwnedThread(ThreadId("thread_123"), UserId("alice"))
    bob = OwnedThread(ThreadId("thread_124"), UserId("bob"))
    refused = None
    async with manual_run(variant, (alice, bob), seed=seed) as live:
        run = await live.open_run(alice, "question 1")
        for step in range(1, events + 1):
            if step == events // 2 + 1:
                try:
                    await live.application.bridge.mapping.register_mapping(run.run_id, bob.thread_id)
                except RunAlreadyMapped as error:
                    refused = error
            await live.notify(run, step)
    return Rerouted(variant.name, check(live.history, ExpectedEvents(events, 0)), refused)


@dataclass(frozen=True)
class LifecycleStudy:
    """Measurements that show whether a mapping retains routes too long, loses routes too early, or changes routes."""

    retained: tuple[Retained, ...]
    late: tuple[LateEvents, ...]
    by_process: tuple[ProcessDelivery, ...]
    rerouted: tuple[Rerouted, ...]
    """The measurements of Fix 3 and of the sound chain."""

    def retention(self) -> pd.DataFrame:
        """Return one row per mapping and number of runs.

        Columns: mapping, cleaned up, runs, routes held, KiB held, bytes per run (the bytes held, divided by `runs`).
        """
        return pd.DataFrame(
            {
                "mapping": row.mapping,
                "cleaned up": row.cleaned_up,
                "runs": row.runs,
                "routes held": row.routes,
                "KiB held": round(row.held_bytes / 1_024, 1),
                "bytes per run": round(row.held_bytes / row.runs, 1),
            }
            for row in self.retained
        )

    def processes(self) -> pd.DataFrame:
        """Return `process_table`: for how many runs each process finds the thread."""
        return process_table(self.by_process)

    def table(self) -> pd.DataFrame:
        """Return all measurements in one table. Columns: what, fix 3 as written, sound."""
        return pd.DataFrame([*self._retained(), *self._late(), *self._by_process(), self._moved()])

    def _retained(self) -> list[dict[str, str]]:
        texts = {
            cleaned_up: {
                row.mapping: f"{row.routes:,} routes, {row.held_bytes / 1_024:,.0f} KiB"
                for row in self.retained
                if row.cleaned_up is cleaned_up
            }
            for cleaned_up in (False, True)
        }
        runs = max(row.runs for row in self.retained)
        return [
            _comparison_row(
                f"routes held after {runs:,} runs, {cleanup}", texts[cleaned_up]["fix 3"], texts[cleaned_up]["sound"]
            )
            for cleaned_up, cleanup in ((False, "without cleanup"), (True, "with cleanup at the end of each run"))
        ]

    def _late(self) -> list[dict[str, str]]:
        shown = {"run id": LATENESS_SECONDS[1:3] + LATENESS_SECONDS[-1:], "run id and thread": LATENESS_SECONDS[-1:]}
        return [
            _comparison_row(
                f"delivered, {_when(at)}; the event carries its {address}", *(str(late[at]) for late in pair)
            )
            for address, seconds in shown.items()
            if (pair := [late.by_lateness for late in self.late if late.address == address])
            for at in seconds
        ]

    def _by_process(self) -> list[dict[str, str]]:
        by_chain: dict[tuple[str, str], dict[str, str]] = {}
        for row in self.by_process:
            by_chain.setdefault((row.process, row.address), {})[row.variant] = str(row.arrived)
        return [
            _comparison_row(f"delivered in {process}; the event carries its {address}", rates["fix 3"], rates["sound"])
            for (process, address), rates in by_chain.items()
        ]

    def _moved(self) -> dict[str, str]:
        as_written, sound = (
            f"{row.verdict.wrong_user:,} of {row.verdict.expected:,}, "
            + (f"refused: {type(row.refused).__name__}" if row.refused else "accepted")
            for row in self.rerouted
        )
        return _comparison_row("Alice's events at Bob's socket after a second registration", as_written, sound)

    def alt_text(self) -> str:
        """Return the text equivalent of the figure: each panel's counts of delivered events at each time."""
        return "; ".join(
            f"{heading}, delivered: " + ", ".join(f"{rate.k} of {rate.n} ({_when(at)})" for at, rate in rates.items())
            for heading, rates in self._panels().items()
        )

    def title(self) -> str:
        """State for each chain how many events that carry only the run id are delivered within the grace period."""
        shown = [late for late in self.late if late.address == "run id"]
        delivered = " and ".join(f"{_chain(late.variant)} delivers {_in_time(late).counts}" for late in shown)
        return f"Of events with only a run id, emitted within {GRACE_SECONDS:g} s after the run's end,\n{delivered}"

    def figure(self) -> Figure:
        """Draw the share of delivered events by time after the run's end, with one panel per way to find the route."""
        return late_events_figure(self._panels(), title=self.title())

    def _panels(self) -> dict[str, Mapping[float, Rate]]:
        shown = [late for late in self.late if (late.variant, late.address) != ("fix 3", "run id and thread")]
        return {f"{late.variant}: the event carries its {late.address}": late.by_lateness for late in shown}


def _chain(variant: str) -> str:
    return "the sound chain" if variant == "sound" else capitalized(variant)


def _in_time(late: LateEvents) -> Rate:
    rates = [rate for seconds, rate in late.by_lateness.items() if 0 <= seconds < GRACE_SECONDS]
    return Rate(sum(rate.k for rate in rates), sum(rate.n for rate in rates))


def _comparison_row(what: str, as_written: str, sound: str) -> dict[str, str]:
    return {"what": what, "fix 3 as written": as_written, "sound": sound}


def _when(seconds: float) -> str:
    return f"{seconds:g} s after the end" if seconds >= 0 else "before the end"


async def study_lifecycles(
    *, users: int = 5, runs: int = 20, held_runs: Sequence[int] = (1_000, 10_000), events: int = 20, seed: int = 0
) -> LifecycleStudy:
    """Measure memory, late events, events from another process, and a second registration.

    Memory is measured after each number of runs in `held_runs`. Late and remote events belong to `runs` runs of `users`
    users. The study starts a second process, kills it, and starts it again. Raises ProcessExited or ProcessTimeout if
    the second process fails.
    """
    held = [
        row
        for mapping in ("fix 3", "sound")
        for cleaned_up in (False, True)
        for row in await fill_mapping(mapping, cleaned_up=cleaned_up, after=held_runs, seed=seed)
    ]
    return LifecycleStudy(
        tuple(held),
        await _late_by_chain(users, runs, seed),
        tuple(await measure_processes(users=users, runs=runs, seed=seed)),
        tuple([await reroute(row, events=events, seed=seed) for row in (FIX_3, SOUND)]),
    )


def late_events_figure(panels: Mapping[str, Mapping[float, Rate]], *, title: str) -> Figure:
    """Draw the share of delivered events by time of emission, with one panel per way to find the route.

    `panels` maps a panel's title to rates by seconds after the run's end (negative before the end). All panels must
    contain the same times.
    """
    with new_figure(title, 6.6, 1.5 + 1.45 * len(panels)) as figure:
        axes = figure.subplots(len(panels), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
        seconds = list(next(iter(panels.values())))
        for axis, (heading, rates), (colour, marker) in zip(axes, panels.items(), STYLES, strict=False):
            _spans(axis, seconds, labelled=axis is axes[-1])
            draw_rates(axis, range(len(seconds)), list(rates.values()), colour, marker, 8)
            for place, rate in enumerate(rates.values()):
                _label(axis, place, rate)
            axis.set_title(heading, fontsize=10.5, fontweight="normal")
        axes[0].set_ylim(-10, 112)
        axes[0].set_yticks([0, 50, 100])
        axes[0].set_xlim(-0.5, len(seconds) - 0.5)
        axes[-1].set_xticks(range(len(seconds)), ["before" if at < 0 else f"{at:g}" for at in seconds])
        axes[-1].set_xlabel("when the event is emitted, in seconds after its run has ended")
        figure.supylabel("delivered, %", fontsize=10)
        return figure


def _spans(axis: Axes, seconds: Sequence[float], *, labelled: bool) -> None:
    """Mark the end of the run and of the grace period on an axis that shows emissions in order, not to scale."""
    end = sum(at < 0 for at in seconds) - 0.5
    over = sum(at < GRACE_SECONDS for at in seconds) - 0.5
    axis.axvspan(end, over, color="#F0F0F0", zorder=0)
    for place in (end, over):
        axis.axvline(place, color=TEXT_COLOUR, linewidth=0.9, linestyle="--", zorder=1)
    if labelled:
        axis.text(end, 10, " the run ends", fontsize=9, va="center")
        axis.text(over, 16, f" the service's grace period\n of {GRACE_SECONDS:g} s is over", fontsize=9, va="center")


def _label(axis: Axes, place: float, rate: Rate) -> None:
    if rate.known:
        offset = -30 if rate.fraction > 0.5 else 30
        axis.text(place, 100 * rate.fraction + offset, f"{rate.k} of {rate.n}", fontsize=9, ha="center", va="center")
