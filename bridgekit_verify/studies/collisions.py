"""Study collisions of run ids: how soon two runs share an id, and which events users then read."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bridgekit.ids import HexSource, RunId, RunIdScheme, SignedRunIds, ThreadId, UserId
from bridgekit_verify.audited_routing import EmbeddedRunIds, OpaqueRunIds
from bridgekit_verify.measure.experiment import Measurement, measure
from bridgekit_verify.measure.plots import BLUE, GREEN, TEXT_COLOUR, draw_rates, new_figure
from bridgekit_verify.measure.statistics import Rate, collision_probability, runs_until_collision
from bridgekit_verify.measure.tables import transcript
from bridgekit_verify.measure.workload import OwnedThread, Workload, seeded
from bridgekit_verify.variants import ALL_FIXES, FIX_3, SOUND, Variant

__all__ = [
    "CollisionStudy",
    "collide",
    "collided",
    "runs_to_collision",
    "scheme_table",
    "study_collisions",
]

DIGITS: Final = 8
"""Number of random digits in Fix 1's run id."""
SCALED_DIGITS: Final = 4
"""Number of random digits in a shorter version of Fix 1's run id, which makes thousands of trials affordable."""
STYLES: Final = ((BLUE, "s"), (GREEN, "o"))
"""Colour and marker of the points in each panel."""
STEPS: Final = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
"""The measured numbers of runs, as multiples of the number at which the collision probability is one half."""


def runs_to_collision(digits: int, source: HexSource, *, limit: int) -> int | None:
    """Return how many run ids of one thread were created until two were equal, or None if `limit` ids all differ."""
    run_ids = EmbeddedRunIds(lambda _: source(digits))
    thread, seen = ThreadId("thread_123"), set[RunId]()
    for number in range(1, limit + 1):
        seen.add(run_ids.new(thread))
        if len(seen) < number:
            return number
    return None


def collided(digits: int, *, trials: int, seed: int = 0) -> dict[int, Rate]:
    """Return the rate of trials with a collision, for each number of runs from `STEPS`.

    All rates come from the same trials, so their errors are correlated.
    """
    runs = [round(step * runs_until_collision(digits)) for step in STEPS]
    source = seeded(seed)
    met = [runs_to_collision(digits, source, limit=runs[-1]) for _ in range(trials)]
    ended = sorted(number for number in met if number is not None)
    return {number: Rate(bisect_right(ended, number), trials) for number in runs}


def scheme_table() -> pd.DataFrame:
    """Return one row per scheme of run ids.

    Columns: run ids, random digits, collide within, runs until probability 1/2, runs until probability 1e-6.
    """
    rows = ((EmbeddedRunIds, DIGITS, "one thread"), (OpaqueRunIds, 12, "all threads"), (SignedRunIds, 24, "one thread"))
    return pd.DataFrame(
        {
            "run ids": scheme.__name__,
            "random digits": digits,
            "collide within": within,
            "runs until probability 1/2": runs_until_collision(digits),
            "runs until probability 1e-6": runs_until_collision(digits, 1e-6),
        }
        for scheme, digits, within in rows
    )


class _OneId:
    """A run id scheme that gives every run the same id, to force a collision."""

    def __init__(self, hex_source: HexSource) -> None:
        self._run_id = OpaqueRunIds(hex_source).new(ThreadId(""))

    def new(self, thread_id: ThreadId) -> RunId:
        return self._run_id


def _drawn_once(hex_source: HexSource) -> RunIdScheme:
    """Return Fix 1's scheme with the same random digits in every id, so that runs of one thread collide."""
    drawn = hex_source(DIGITS)
    return EmbeddedRunIds(lambda digits: drawn)


ALICE: Final = OwnedThread(ThreadId("thread_alice_smith"), UserId("alice"))
BOB: Final = OwnedThread(ThreadId("thread_bob_jones"), UserId("bob"))

CASES: Final = (
    ("two users", replace(FIX_3, run_ids=_OneId), (ALICE, BOB)),
    ("two users", replace(SOUND, run_ids=_OneId), (ALICE, BOB)),
    ("one user, one thread", replace(ALL_FIXES, run_ids=_drawn_once), (ALICE,)),
    ("one user, one thread", replace(SOUND, run_ids=_OneId), (ALICE,)),
)
"""Each case: the owners of the two runs that collide, the chain, and the threads of the runs."""


@dataclass(frozen=True)
class Collision:
    """The measurement of two concurrent runs with the same run id."""

    runs_of: str
    measurement: Measurement

    @property
    def ambiguous(self) -> int:
        """Frames whose run id also identifies another run, so that a client cannot distinguish the runs by run id."""
        requests: dict[RunId, set[str]] = defaultdict(set)
        for arrival in self.measurement.history.arrivals:
            requests[arrival.run_id].add(arrival.key.request if arrival.key else "")
        return sum(len(requests[arrival.run_id]) > 1 for arrival in self.measurement.history.arrivals)


async def collide(runs_of: str, variant: Variant, threads: tuple[OwnedThread, ...], *, seed: int = 0) -> Collision:
    """Measure two concurrent runs, in one thread or in two threads, over real sockets.

    The variant must give both runs the same id.
    """
    workload = Workload(threads=threads, runs_per_thread=2 // len(threads), at_once=2)
    return Collision(runs_of, await measure(variant, workload, seed=seed))


@dataclass(frozen=True)
class CollisionStudy:
    """Collision curves by number of digits, and the effect of a collision."""

    curves: Mapping[int, Mapping[int, Rate]]
    """The rate of trials with a collision, by number of digits and then by runs of one thread."""
    collisions: tuple[Collision, ...]
    """One collision for each of `CASES`."""

    def rates(self) -> pd.DataFrame:
        """Return one row per rate. Columns: digits, runs, trials, collided, collided %, from %, to %, predicted %."""
        return pd.DataFrame(
            {
                "digits": digits,
                "runs": runs,
                "trials": rate.n,
                "collided": rate.k,
                "collided %": round(100 * rate.fraction, 2),
                "from %": round(100 * rate.interval[0], 2),
                "to %": round(100 * rate.interval[1], 2),
                "predicted %": round(100 * collision_probability(runs, digits), 2),
            }
            for digits, curve in self.curves.items()
            for runs, rate in curve.items()
        )

    def consequences(self) -> pd.DataFrame:
        """Return one row per case, each with two runs that share an id.

        Columns: runs of, chain, expected, delivered, at another user's socket, dropped (read by no entitled socket),
        refused (runs that did not start), frames of two runs (frames whose run id does not identify the run).
        """
        return pd.DataFrame([_consequence(collision) for collision in self.collisions])

    def misrouted(self, frames: int = 5) -> pd.DataFrame:
        """Return the first frames that the wrong socket read when runs of Alice and Bob collide under Fix 3."""
        return transcript(self.collisions[0].measurement, misrouted=True, frames=frames)

    def alt_text(self) -> str:
        """Return the text equivalent of the figure: each point's measured and predicted rate of collisions."""
        return "; ".join(
            f"{digits} digits: "
            + ", ".join(
                f"two of {runs:,} runs share an id in {rate.counts} trials (95 % interval {rate.bounds};"
                f" predicted {100 * collision_probability(runs, digits):.1f} %)"
                for runs, rate in curve.items()
            )
            for digits, curve in self.curves.items()
        )

    def title(self) -> str:
        """State how many trials with eight digits had a collision, and after how many runs its probability is 1/2."""
        runs, rate = max(self.curves[DIGITS].items(), key=lambda point: point[0])
        return (
            f"With {DIGITS} digits, two of {runs:,} runs share an id in {rate.counts} trials.\n"
            f"The predicted probability is one half after {runs_until_collision(DIGITS):,} runs"
        )

    def figure(self) -> Figure:
        """Draw the measured collision rates and the birthday bound, one panel per number of digits."""
        return collision_figure(self.curves, title=self.title())


def _consequence(collision: Collision) -> dict[str, object]:
    measurement, verdict = collision.measurement, collision.measurement.verdict
    return {
        "runs of": collision.runs_of,
        "chain": measurement.variant.name,
        "expected": verdict.expected,
        "delivered": verdict.delivered,
        "at another user's socket": verdict.wrong_user,
        "dropped": verdict.lost,
        "refused": len(measurement.history.failures),
        "frames of two runs": collision.ambiguous,
    }


async def study_collisions(*, scaled_trials: int = 2_000, trials: int = 10, seed: int = 0) -> CollisionStudy:
    """Run `scaled_trials` trials with four digits and `trials` trials with eight digits.

    Also measure one collision for each of `CASES`.
    """
    curves = {
        SCALED_DIGITS: collided(SCALED_DIGITS, trials=scaled_trials, seed=seed),
        DIGITS: collided(DIGITS, trials=trials, seed=seed),
    }
    return CollisionStudy(curves, tuple([await collide(*case, seed=seed) for case in CASES]))


def collision_figure(panels: Mapping[int, Mapping[int, Rate]], *, title: str) -> Figure:
    """Draw one panel per number of hexadecimal digits: the rate of collisions by number of runs.

    `panels` maps numbers of digits to collision rates by number of runs. The line is the birthday bound.
    """
    with new_figure(title, 6.2, 1.0 + 3.3 * len(panels)) as figure:
        axes = figure.subplots(len(panels), 1, sharey=True, squeeze=False)[:, 0]
        for axis, (digits, rates), (colour, marker) in zip(axes, panels.items(), STYLES, strict=False):
            _birthday(axis, digits, max(rates))
            draw_rates(axis, list(rates), list(rates.values()), colour, marker, 6, sampled=True)
            for runs, rate in rates.items():
                # Place the label above the interval and to the left, where it does not overlap the rising line.
                axis.annotate(
                    f"{rate.k:,}",
                    (runs, 100 * rate.interval[1]),
                    xytext=(2, 4.5),
                    textcoords="offset points",
                    fontsize=8.5,
                    ha="right",
                )
            trials = " or ".join(f"{n:,}" for n in sorted({rate.n for rate in rates.values()}))
            axis.set_title(f"{digits} digits; at each point k of {trials} trials", fontsize=10.5, fontweight="normal")
            axis.set_xlim(0, 1.08 * max(rates))
            axis.set_xlabel("runs of one thread")
            axis.xaxis.set_major_locator(MaxNLocator(5))
            axis.xaxis.set_major_formatter("{x:,.0f}")
        axes[0].set_ylim(-2, 104)
        figure.supylabel("trials in which two runs shared an id, % (bar: 95 % Wilson interval)", fontsize=10)
        axes[0].legend(loc="upper left", frameon=False, fontsize=9)
        return figure


def _birthday(axis: Axes, digits: int, most: int) -> None:
    runs = [max(1, round(1.08 * most * step / 200)) for step in range(201)]
    expected = [100 * collision_probability(number, digits) for number in runs]
    axis.plot(runs, expected, color=TEXT_COLOUR, linewidth=1.4, label="birthday bound (predicted)")
    even = runs_until_collision(digits)
    axis.plot([0, even, even], [50, 50, 0], color=TEXT_COLOUR, linewidth=0.9, linestyle=":")
    axis.text(1.03 * even, 3, f"probability 1/2\nat {even:,} runs", fontsize=9, va="bottom")
