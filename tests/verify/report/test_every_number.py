"""Each number in a finding's sentences is one of its measurements, in its place; a further number is an error.

`all_numbers` returns every number of a text, so that a number that no test expects cannot be added unnoticed.
"""

from __future__ import annotations

import inspect
import pkgutil
import re
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import bridgekit_verify.report
from bridgekit.errors import DeterministicStartupError
from bridgekit.mapping.service import GRACE_SECONDS
from bridgekit_verify.links import LINKS
from bridgekit_verify.measure.experiment import Measurement
from bridgekit_verify.measure.statistics import Rate, Sample, runs_until_collision
from bridgekit_verify.measure.workload import OfflinePattern, Workload, thread_ids
from bridgekit_verify.probes.audit_descriptions import Wording
from bridgekit_verify.probes.probes import HUB, Probe, ProbeAnswer
from bridgekit_verify.report.audit_missed import collision_claim, lifecycle_claim
from bridgekit_verify.report.claims import chain_claim, link_claim
from bridgekit_verify.report.measurement_trust import calibration_claim, localization_claim
from bridgekit_verify.studies.collisions import CASES, Collision, CollisionStudy
from bridgekit_verify.studies.links_and_fixes import LinkStudy
from bridgekit_verify.studies.mapping_lifecycle import LateEvents, LifecycleStudy, Rerouted
from bridgekit_verify.studies.run_ids_across_processes import ProcessDelivery
from bridgekit_verify.validation.broken_links import BREAKAGES, Breakage
from bridgekit_verify.validation.calibration import (
    CalibrationStudy,
    LossCalibration,
    OfflineCalibration,
    allowed_misses,
)
from bridgekit_verify.validation.localization import Case, Localization
from bridgekit_verify.variants import BROKEN, SOUND
from tests.verify.report.thoughts import measured, thoughts

counts = st.integers(0, 12)
triples = st.tuples(st.integers(1, 9), counts, counts)
"""Delivered, misrouted and lost events."""

NUMBER = re.compile(r"(?<![\w.])\d[\d,]*(?:\.\d+)?")


def all_numbers(text: str, *names: str) -> list[float]:
    """Return every number of a text, in order, except those in the given names and in "Fix 3" or "link 9"."""
    for name in sorted(names, key=len, reverse=True):
        text = text.replace(name, "")
    text = re.sub(r"\b(Fix|link) \d+", "", text)
    return [float(number.replace(",", "")) for number in NUMBER.findall(text)]


def test_every_claim_has_a_test_of_its_sentences() -> None:
    """A function that returns a finding is called by a test that compares the numbers of its sentences."""
    modules = [import_module(f"bridgekit_verify.report.{each.name}") for each in pkgutil.iter_modules(
        bridgekit_verify.report.__path__
    )]  # fmt: skip
    claims = {
        name
        for module in modules
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__
        and not name.startswith("_")
        and re.fullmatch(r"Finding", str(function.__annotations__.get("return")))
    }
    folder = Path(__file__).parent
    tests = "\n".join(path.read_text(encoding="utf-8") for path in folder.glob("test_*.py"))
    assert len(claims) > 20
    assert {name for name in claims if not re.search(rf"\b{name}\(", tests)} == set()


def test_a_number_that_was_not_measured_is_found() -> None:
    assert all_numbers("Fix 1 delivers 1,280 of 1,300 events (98.5 %) at link 9.") == [1280, 1300, 98.5]
    assert all_numbers("thread_123 gets 4 of 7 events", "thread_123") == [4, 7]


# The links.

probe_answers = st.sampled_from(list(ProbeAnswer))


def probe_of(number: int, answer: ProbeAnswer) -> Probe:
    return Probe(LINKS[number - 1], answer, "evidence", Sample(number + 3, "calls"))


@given(st.lists(probe_answers, min_size=9, max_size=9), triples, triples)
def test_chain_sentence_counts_the_links_that_fail(
    found: list[ProbeAnswer], before: tuple[int, int, int], after: tuple[int, int, int]
) -> None:
    probes = [probe_of(number, answer) for number, answer in enumerate(found, 1)]
    finding = chain_claim(probes, measured(BROKEN[9], thoughts(*before)), measured(SOUND, thoughts(*after)))
    broken = [number for number, answer in enumerate(found, 1) if answer is ProbeAnswer.DOES_NOT_HOLD]
    unknown = [number for number, answer in enumerate(found, 1) if answer is ProbeAnswer.UNKNOWN]
    # The numbers of links are listed as such: "links 8 and 9".
    listed = [float(number) for number in re.findall(r"\d+", finding.answer)]
    assert listed == [len(broken), 9, *broken, 9, *unknown]
    assert (finding.before, finding.after) == ((before[0], sum(before)), (after[0], sum(after)))
    assert finding.works == ("fails" if broken else "unknown" if unknown else "works")
    assert (finding.verdict == "holds") is (broken == [9] and not (unknown and set(broken) <= {9}))
    assert finding.sample == Sample(4, "calls of link 1")


@given(st.integers(1, 9), probe_answers, st.booleans(), triples, triples)
def test_link_sentences_state_what_arrives_before_and_after(
    number: int, answer: ProbeAnswer, worded: bool, before: tuple[int, int, int], after: tuple[int, int, int]
) -> None:
    broken, sound = measured(BROKEN[number], thoughts(*before)), measured(SOUND, thoughts(*after))
    wording = Wording("the words", worded)
    finding = link_claim(
        LinkStudy(LINKS[number - 1], probe_of(number, answer), wording, probe_of(number, ProbeAnswer.HOLDS),
                  broken, sound, broken)
    )  # fmt: skip
    for sentence, (delivered, misrouted, lost) in zip(finding.evidence[1:], (before, after), strict=True):
        leaked = [misrouted] if misrouted else []
        wanted = [delivered, delivered + misrouted + lost, *leaked]
        assert all_numbers(sentence, BROKEN[number].summary) == wanted, sentence
    works = {ProbeAnswer.HOLDS: "works", ProbeAnswer.DOES_NOT_HOLD: "fails"}.get(answer, "unknown")
    assert finding.works == works
    assert {"works": f"link {number} works", "fails": f"link {number} fails", "unknown": "no result"}[
        works
    ] in finding.answer
    assert bool(finding.experiment) == (works != "fails")


# What the audit missed.

rates = st.integers(1, 20).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))).map(lambda pair: Rate(*pair))
LATENESS = (-1.0, 0.0, 5.0, GRACE_SECONDS, 60.0)


@st.composite
def lifecycles(draw: st.DrawFn) -> LifecycleStudy:
    def verdict(triple: tuple[int, int, int]) -> Measurement:
        return measured(SOUND, thoughts(*triple))

    late = [
        LateEvents(variant, address, verdict((1, 0, 0)).verdict, {at: draw(rates) for at in LATENESS})
        for variant in ("fix 3", "sound")
        for address in ("run id", "run id and thread")
    ]
    processes = [
        ProcessDelivery(variant, process, "run id", Rate(0, 1), draw(rates), "")
        for variant in ("fix 3", "sound")
        for process in ("a second process", "the restarted second process")
    ]
    rerouted = [Rerouted(name, verdict(draw(triples)).verdict, None) for name in ("fix 3", "sound")]
    return LifecycleStudy((), tuple(late), tuple(processes), tuple(rerouted))


@pytest.mark.slow
@given(lifecycles())
def test_lifecycle_sentences_state_every_count_in_its_place(study: LifecycleStudy) -> None:
    finding = lifecycle_claim(study)
    fix_3, sound = (row.verdict for row in study.rerouted)
    wanted: list[list[float]] = [[fix_3.wrong_user, fix_3.expected, sound.wrong_user, sound.expected]]
    for row in study.late:
        within = [rate for at, rate in row.by_lateness.items() if 0 <= at < GRACE_SECONDS]
        later = [rate for at, rate in row.by_lateness.items() if at >= GRACE_SECONDS]
        wanted.append([*summed(within), GRACE_SECONDS, *summed(later)])
    wanted += [[row.arrived.k, row.arrived.n] for row in study.by_process if row.arrived.k < row.arrived.n]
    assert [all_numbers(sentence) for sentence in finding.evidence] == wanted
    late = [rate for row in study.late[:2] for at, rate in row.by_lateness.items() if at >= 0]
    loses = any(rate.k < rate.n for rate in late)
    elsewhere = any(row.arrived.k < row.arrived.n for row in study.by_process[:2])
    assert (finding.verdict == "holds") is not (loses or elsewhere or fix_3.wrong_user > 0)
    assert ("after their run ends" in finding.answer) is loses
    assert ("in another process" in finding.answer) is elsewhere
    assert ("registered twice" in finding.answer) is (fix_3.wrong_user > 0)


def summed(of: Sequence[Rate]) -> tuple[int, int]:
    return sum(rate.k for rate in of), sum(rate.n for rate in of)


@pytest.mark.slow
@given(st.integers(0, 10), st.lists(triples, min_size=4, max_size=4))
def test_collision_sentences_state_trials_and_consequences(met: int, rows: list[tuple[int, int, int]]) -> None:
    collisions = tuple(
        Collision(runs_of, replace(measured(variant, thoughts(*triple)), variant=variant))
        for (runs_of, variant, _), triple in zip(CASES, rows, strict=True)
    )
    study = CollisionStudy({4: {100: Rate(0, 50)}, 8: {1_000: Rate(0, 10), 90_000: Rate(met, 10)}}, collisions)
    finding = collision_claim(study)
    assert all_numbers(finding.answer) == [90_000, met, 10, runs_until_collision(8)]
    assert (finding.verdict == "holds") is (met == 0)
    inside, one_id, forced = finding.evidence
    assert all_numbers(inside)[0] == 95
    assert all_numbers(inside)[2] == 3
    thread = rows[2]
    assert all_numbers(one_id) == [thread[0], sum(thread), collisions[2].ambiguous]
    assert all_numbers(forced) == [12, runs_until_collision(12), rows[0][1], sum(rows[0])]


# Trust.


@given(
    st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.5, 1.0]), triples, st.integers(0, 20)), max_size=5),
    st.lists(st.tuples(st.integers(0, 3), triples), max_size=3),
)
def test_calibration_sentences_count_equal_and_unequal_rates(
    losses: list[tuple[float, tuple[int, int, int], int]], offline: list[tuple[int, tuple[int, int, int]]]
) -> None:
    load = Workload(threads=thread_ids("thread_123", 2), runs_per_thread=3, at_once=2)
    study = CalibrationStudy(
        [LossCalibration(measured(SOUND, thoughts(*triple)), p, dropped) for p, triple, dropped in losses],
        [
            OfflineCalibration(
                replace(measured(SOUND, thoughts(*triple)), workload=replace(load, offline=OfflinePattern(w, 3)))
            )
            for w, triple in offline
        ],
    )
    finding = calibration_claim(study)
    exact = [check for check in study.rate_checks if check.exact]
    sampled = [check for check in study.rate_checks if not check.exact]
    equal = sum(check.measured.k == round(check.closed_form * check.measured.n) for check in exact)
    inside = sum(check.measured.interval[0] <= check.closed_form <= check.measured.interval[1] for check in sampled)
    counted = sum(sum(triple[1:]) == dropped for _, triple, dropped in losses)
    assert all_numbers(finding.answer, "p = 0", "p = 1") == [
        equal, len(exact), inside, len(sampled), 95, counted, len(losses),
    ]  # fmt: skip
    holds = equal == len(exact) and counted == len(losses) and len(sampled) - inside <= allowed_misses(len(sampled))
    assert finding.verdict == ("unknown" if not study.rate_checks else "holds" if holds else "does not hold")


@given(st.lists(st.tuples(st.sampled_from(BREAKAGES), st.booleans(), st.booleans()), min_size=1, max_size=8))
def test_localization_sentence_counts_the_breakages_that_are_named(rows: list[tuple[Breakage, bool, bool]]) -> None:
    intact = measured(SOUND, thoughts(1, 0, 0))
    links = {link.number: link for link in (*LINKS, HUB)}
    cases = tuple(
        Case(
            each,
            (Probe(links[each.link], ProbeAnswer.DOES_NOT_HOLD, ""),) if probed else (),
            replace(intact, refused=DeterministicStartupError(each.link, "it refuses")) if attributed else intact,
        )
        for each, probed, attributed in rows
    )
    finding = localization_claim(Localization(cases, Case(BREAKAGES[0], (), intact)))
    named = sum(probed and attributed for _, probed, attributed in rows)
    assert all_numbers(finding.answer) == [named, len(rows)]
    assert (finding.verdict == "holds") is (named == len(rows))
