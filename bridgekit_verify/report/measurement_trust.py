"""Findings of notebook 14: each statement about the measurements themselves is tested."""

from __future__ import annotations

import pandas as pd

from bridgekit_verify.measure.statistics import CONFIDENCE, Rate, Sample
from bridgekit_verify.measure.wording import capitalized
from bridgekit_verify.report.claims import verdict_of
from bridgekit_verify.report.findings import OURS, Finding, Verdict
from bridgekit_verify.validation.calibration import CHANCE, CalibrationStudy, allowed_misses
from bridgekit_verify.validation.localization import Localization

__all__ = ["calibration_claim", "coverage_claim", "localization_claim", "mutation_claim"]

COVERAGE_TOLERANCE = 0.02
"""Allowed difference between the mean exact coverage and the nominal coverage.

Counts are whole numbers, so the exact coverage cannot equal the nominal coverage."""


def mutation_claim(mutations: pd.DataFrame) -> Finding:
    """Test that the checker reports the exact effect of each mutation of a history."""
    exact = Rate(int((mutations["exactly"] == "yes").sum()), len(mutations))
    missed = mutations.loc[mutations["exactly"] != "yes", "expected"]
    return Finding(
        id="trust-planted",
        title="The checker reports every mutation of a history exactly",
        claim="The checker reports each lost, duplicated, reordered, misrouted or unexpected event, and each false"
        " success, under the correct name and no other.",
        reported=OURS,
        verdict=verdict_of(exact.k == exact.n) if exact.known else "unknown",
        answer=f"For {exact.counts} histories, the checker reports exactly the expected verdict. One history is"
        " recorded, and the others are copies of it with one or two mutations.",
        evidence=tuple(f"The checker does not report exactly this expected verdict: {what}." for what in missed),
        rule="The claim holds if each reported verdict equals the expected verdict in every count, link and reason.",
        sample=Sample(exact.n, "histories") if exact.known else None,
    )


def localization_claim(found: Localization) -> Finding:
    """Test that the probes name each broken link, and that there is a reason for every other link that they name."""
    links = [case.breakage.link for case in found.cases]
    return Finding(
        id="trust-localization",
        title="The broken link is named",
        claim="If a link is broken in any of several ways, the probes name this link, and the ledger attributes the"
        " losses to it. For each exception, the report states the reason.",
        reported=OURS,
        verdict=verdict_of(found.holds) if found.cases else "unknown",
        answer=f"For {found.named:,} of {len(found.cases):,} breakages, the suite names the broken link."
        f" {_also_named(sum(bool(case.elsewhere) for case in found.cases), len(found.cases))}",
        evidence=tuple(
            f"{row['why']}" for row in found.explanations().drop_duplicates(subset="why").to_dict("records")
        ),
        rule="The claim holds under three conditions. The suite names the broken link for each breakage, and states"
        " a reason for every other named link. The suite names no link of the sound chain.",
        sample=Sample(min(links.count(link) for link in set(links)), "breakages per link") if links else None,
    )


def _also_named(count: int, cases: int) -> str:
    if not count:
        return "For no breakage, the probes or the ledger name another link."
    return f"For {count:,} of {cases:,} breakages, the probes or the ledger name another link, as well or instead."


def coverage_claim(coverage: pd.DataFrame) -> Finding:
    """Test that 95 % intervals contain the true rate in about 95 % of the cases."""
    inside = Rate(int(coverage["inside"].sum()), len(coverage)) if len(coverage) else Rate(0, 0)
    if not inside.known:
        return _coverage_finding("unknown", "No combination of rate and sample size was tried.", (), None)
    mean = coverage["exact %"].mean() / 100
    lowest = min(coverage.to_dict("records"), key=lambda row: row["exact %"])
    holds = abs(mean - CONFIDENCE) < COVERAGE_TOLERANCE and inside.n - inside.k <= allowed_misses(inside.n)
    return _coverage_finding(
        verdict_of(holds),
        f"Over {inside.n} combinations of true rate and sample size, the 95 % interval contains the true rate in"
        f" {100 * mean:.1f} % of the cases on average. This exact coverage is computed, not"
        f" simulated. The simulated coverage agrees with the exact coverage in {inside.counts} combinations.",
        (
            f"The lowest exact coverage is {lowest['exact %']:.1f} %, at a true rate of {lowest['p']:.3g} and a sample"
            f" size of {lowest['n']:.0f}.",
        ),
        inside,
    )


def _coverage_finding(verdict: Verdict, answer: str, evidence: tuple[str, ...], inside: Rate | None) -> Finding:
    allowed = (
        ""
        if inside is None
        else f" Chance explains at most {allowed_misses(inside.n)} disagreements in {inside.n} combinations: more"
        f" disagreements have a probability of at most {100 * CHANCE:g} %."
    )
    return Finding(
        id="trust-coverage",
        title="A 95 % interval contains the true rate in 95 % of the cases",
        claim="A 95 % Wilson interval contains the true rate in about 95 of 100 measurements.",
        reported=OURS,
        verdict=verdict,
        answer=answer,
        evidence=evidence,
        rule="The claim holds under two conditions. The mean exact coverage is within"
        f" {100 * COVERAGE_TOLERANCE:.0f} percentage points of {100 * CONFIDENCE:g} %. Chance explains the number of"
        " simulations that disagree with the exact coverage." + allowed,
        sample=None if inside is None else Sample(inside.n, "combinations"),
    )


def calibration_claim(study: CalibrationStudy) -> Finding:
    """Test that the measured delivery agrees with a rate known in advance."""
    sampled, exact = study.sampled_checks, study.exact_checks
    outside = [check for check in sampled if not check.inside]
    unequal = [check for check in exact if not check.inside]
    miscounted = [loss for loss in study.losses if loss.measurement.verdict.lost != loss.dropped]
    allowed = allowed_misses(len(sampled))
    holds = not unequal and not miscounted and len(outside) <= allowed
    checks = [*sampled, *exact]
    return Finding(
        id="trust-calibration",
        title="The measurement finds a rate that is known in advance",
        claim="If a known share of the frames is lost, or users are offline for a known share of the runs, the measured"
        " share of delivered events agrees with the known share.",
        reported=OURS,
        verdict=verdict_of(holds) if checks else "unknown",
        answer=f"In {len(exact) - len(unequal)} of {len(exact)} cases that do not depend on chance, the number of"
        " delivered events equals the known number. In"
        f" {len(sampled) - len(outside)} of {len(sampled)} cases with random loss, the 95 % interval contains the known"
        f" share of delivered events. In {len(study.losses) - len(miscounted)} of {len(study.losses)} cases with frame"
        " loss, exactly the dropped frames count as lost.",
        evidence=tuple(
            f"{capitalized(check.name)}: known share of delivered events {100 * check.closed_form:.1f} %, measured"
            f" share {check.text}."
            for check in checks
        ),
        rule="The claim holds under three conditions. Every count that does not depend on chance equals the known"
        " count. Every count of lost frames equals the number of dropped frames. At most"
        f" {allowed} of {len(sampled)} intervals miss the known share. Chance alone"
        f" causes more misses with a probability of at most {100 * CHANCE:g} %.",
        sample=Sample(min(check.measured.n for check in checks), "events") if checks else None,
    )
