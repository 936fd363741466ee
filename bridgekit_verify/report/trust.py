"""Findings of the notebook on validation: each statement about the measurements themselves is tested."""

from __future__ import annotations

import pandas as pd

from bridgekit_verify.measure.statistics import Rate
from bridgekit_verify.report.claims import verdict_of
from bridgekit_verify.report.findings import Finding
from bridgekit_verify.validation.calibration import CalibrationStudy
from bridgekit_verify.validation.localization import Localization

__all__ = ["calibration_claim", "coverage_claim", "localization_claim", "mutation_claim"]

OURS = "ours"
"""Value of `Finding.reported` for a claim that is not from the audit."""
PROMISED_COVERAGE = 0.95
OUTSIDE_AT_MOST = 0.1
"""Allowed share of 95 % intervals that miss: one in twenty is expected, but more than one in ten is not chance."""


def mutation_claim(mutations: pd.DataFrame) -> Finding:
    """Test that the checker reports each mutation of a history exactly."""
    exact = Rate(int((mutations["exactly"] == "yes").sum()), len(mutations))
    missed = mutations.loc[mutations["exactly"] != "yes", "expected"]
    return Finding(
        id="trust-planted",
        title="Planted faults are reported, exactly",
        claim="A loss, a copy, a swap, a stray or a lie in a recorded history is reported as that and nothing else.",
        reported=OURS,
        verdict=verdict_of(exact.known and exact.k == exact.n),
        answer=f"{exact.counts} plantings, alone and in pairs, in a history recorded over real sockets, are reported"
        " exactly.",
        evidence=tuple(f"Not exactly: {what}." for what in missed),
    )


def localization_claim(found: Localization) -> Finding:
    """Test that a broken link is named, and that other names are explained."""
    return Finding(
        id="trust-localization",
        title="A broken link is named",
        claim="Break any link in any of several ways, and the probes or the ledger name that link.",
        reported=OURS,
        verdict=verdict_of(found.holds),
        answer=f"{found.named:,} of {len(found.cases):,} breakages are named at the link that was broken; every other"
        " name is explained.",
        evidence=tuple(
            f"{row['why']}" for row in found.explanations().drop_duplicates(subset="why").to_dict("records")
        ),
    )


def coverage_claim(coverage: pd.DataFrame) -> Finding:
    """Test that 95 % intervals contain the true rate in about 95 % of the cases."""
    inside = Rate(int(coverage["inside"].sum()), len(coverage))
    mean = coverage["exact %"].mean() / 100
    lowest = min(coverage.to_dict("records"), key=lambda row: row["exact %"])
    return Finding(
        id="trust-coverage",
        title="Intervals mean what they say",
        claim="A 95 % Wilson interval contains the true rate in about 95 of 100 measurements.",
        reported=OURS,
        verdict=verdict_of(abs(mean - PROMISED_COVERAGE) < 0.02 and inside.k >= (1 - OUTSIDE_AT_MOST) * inside.n),
        answer=f"Over {len(coverage)} combinations of rate and size the exact coverage is {mean:.1%} on average; the"
        f" simulated one agrees with it in {inside.counts}.",
        evidence=(f"The lowest is {lowest['exact %']:.1f} %, at p = {lowest['p']} and n = {lowest['n']:.0f}.",),
    )


def calibration_claim(study: CalibrationStudy) -> Finding:
    """Test that the measured delivery agrees with a rate known in advance."""
    held, outside = study.rate_checks, study.outside
    return Finding(
        id="trust-calibration",
        title="A known rate is found",
        claim="In a world that loses a known part of the frames, or whose users are away for a known part of the time,"
        " the measured delivery is the known one.",
        reported=OURS,
        verdict=verdict_of(len(outside) <= OUTSIDE_AT_MOST * len(held)),
        answer=f"In {len(held) - len(outside)} of {len(held)} worlds the closed form lies in the interval of what was"
        " measured over real sockets.",
        evidence=tuple(f"{world.name}: {world.closed_form:.1%} known, {world.measured} measured." for world in held),
    )
