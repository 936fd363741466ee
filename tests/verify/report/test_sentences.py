"""For generated measurements, the numbers in a finding's sentences are the measured ones, and fit its verdict."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgekit.ids import ThreadId, UserId
from bridgekit_verify.capacity.capacity import CapacityStudy
from bridgekit_verify.capacity.memory_scaling import SOCKETS, MemoryStudy
from bridgekit_verify.capacity.sizing import Demand
from bridgekit_verify.faults.trials.deployment import AT_MOST_ONCE, DELIVERY_MODES, RESUME
from bridgekit_verify.faults.trials.fault_catalogue import FAULTS
from bridgekit_verify.faults.trials.matrix import FaultMatrix
from bridgekit_verify.faults.trials.offline_time import Window, WindowStudy
from bridgekit_verify.faults.trials.stall import SERVERS, Stall, StallStudy
from bridgekit_verify.faults.trials.trial import Trial
from bridgekit_verify.measure.statistics import Rate, Sample
from bridgekit_verify.measure.workload import OwnedThread
from bridgekit_verify.report.audit_missed import leak_claim, receipt_claim, shared_agent_claim
from bridgekit_verify.report.fault_claims import matrix_claim, stall_claim, timeline_claim, windows_claim
from bridgekit_verify.report.findings import Finding
from bridgekit_verify.report.measurement_trust import coverage_claim, mutation_claim
from bridgekit_verify.report.scale_claims import capacity_claim, edge_claim, memory_claim, workers_claim
from bridgekit_verify.studies.misparsed_thread_ids import ROUND_TRIPS, LeakStudy, Search
from bridgekit_verify.studies.receipts import RECEIPT_CHAINS, ReceiptStudy
from bridgekit_verify.studies.shared_agent import SharedAgentStudy
from bridgekit_verify.variants import BROKEN, SOUND
from tests.verify.capacity.loads import capacity, memory_scaling_of, shared, step
from tests.verify.faults.trials.trials import trial
from tests.verify.report.thoughts import measured, thoughts

counts = st.integers(0, 12)


def numbers(text: str, pattern: str) -> list[float]:
    """Return the numbers in the groups of the first match of a pattern, in which `#` stands for a number."""
    found = re.search(pattern.replace("#", r"(-?[\d,]+(?:\.\d+)?)"), text)
    assert found, (pattern, text)
    return [float(number.replace(",", "")) for number in found.groups()]


def assert_basis(finding: Finding) -> None:
    """Every verdict but unknown states what it rests on, and the text shows it."""
    assert finding.rule
    if finding.verdict != "unknown":
        assert finding.sample is not None
        assert finding.sample.count > 0
        assert f"The smallest sample for this verdict is {finding.sample}." in str(finding)
    if finding.timing:
        assert finding.timing in str(finding)


# Scale.


@st.composite
def capacities(draw: st.DrawFn) -> CapacityStudy:
    def steps() -> list[object]:
        loads = draw(st.lists(st.sampled_from([500, 1_000, 2_000, 8_000]), min_size=1, max_size=4, unique=True))
        return [
            step(
                load,
                late=draw(st.sampled_from([0, load // 10])),
                lost=draw(st.sampled_from([0, 0, 0, 3])),
                share=draw(st.floats(0, 1)),
                run_queue_wait=draw(st.sampled_from([0.0, 0.3])),
            )
            for load in sorted(loads)
        ]

    found = capacity(steps(), steps())  # type: ignore[arg-type]
    costs = st.lists(st.floats(10, 90), min_size=1, max_size=4)
    paired = {name: [step(1_000, us=us) for us in draw(costs)] for name in ("ASGI", "native")}
    return replace(found, paired=draw(st.sampled_from([paired, {}])))


@st.composite
def memories(draw: st.DrawFn) -> MemoryStudy:
    from bridgekit_verify.capacity.load_search import ASGI, NATIVE

    return MemoryStudy(
        [
            replace(
                memory_scaling_of(
                    edge,
                    socket_kib=draw(st.floats(1, 60)),
                    growth=draw(st.floats(0.5, 3)),
                    lost=draw(st.sampled_from([0, 0, 2])),
                ),
                without_load=[step(1_000, us=us) for us in draw(st.lists(st.floats(10, 90), min_size=1, max_size=4))],
            )
            for edge in (ASGI, NATIVE)
        ]
    )


@pytest.mark.slow
@given(capacities())
def test_capacity_sentence_states_the_carried_load_and_the_losses(study: CapacityStudy) -> None:
    finding = capacity_claim(study)
    assert_basis(finding)
    [expected, lost] = numbers(finding.answer, r"Of # events at all loads, # were lost")
    assert (expected, lost) == (
        sum(each.client.expected for each in study.steps),
        sum(each.client.lost for each in study.steps),
    )
    for search in study.searches:
        if search.carries is not None:
            pattern = rf"The {search.edge.name} edge carries # events"
            assert numbers(finding.answer, pattern) == [round(search.carries)]
    assert (finding.verdict == "does not hold") is any(
        not each.accounted_for or each.client.lost for each in study.steps
    )
    assert finding.sample == Sample(min(each.client.expected for each in study.steps), "events")


@given(memories())
def test_memory_sentence_fits_its_verdict(study: MemoryStudy) -> None:
    finding = memory_claim(study)
    assert_basis(finding)
    for scaling in study.scalings:
        [kib] = numbers(finding.answer, rf"{scaling.edge.name} edge, a socket needs # KiB")
        assert kib == pytest.approx(scaling.of(SOCKETS).kib, abs=0.06)
        [growth] = numbers(finding.answer, rf"{scaling.edge.name} edge, a socket.*?an event costs # times as much")
        assert growth == pytest.approx(scaling.growth, abs=0.006)
        assert finding.verdict == "does not hold" or growth <= 2.005
    assert finding.verdict == "holds" or finding.evidence[2:]


@pytest.mark.slow
@given(capacities(), memories())
def test_edge_verdict_never_contradicts_the_costs_beside_it(study: CapacityStudy, memory: MemoryStudy) -> None:
    finding = edge_claim(study, memory)
    assert_basis(finding)
    native_kib, asgi_kib = numbers(finding.answer, "needs # KiB on the native edge and # KiB on the ASGI edge")
    comparisons = {"burst": memory.scalings[0].without_load}
    if study.paired:
        comparisons["pauses"] = study.paired["ASGI"]
    clear = []
    for kind in comparisons:
        low, high, asgi_low, asgi_high = numbers(
            finding.answer, f"{kind}, an event costs # to # µs of CPU time on the native edge and # to # µs on"
        )
        assert low <= high
        assert asgi_low <= asgi_high
        if finding.verdict == "holds":
            assert high <= asgi_low
        clear.append((low > asgi_high, high <= asgi_low))
    if finding.verdict == "holds":
        assert native_kib <= asgi_kib
        assert len(clear) == 2
    if any(dearer for dearer, _ in clear) or native_kib > asgi_kib:
        assert finding.verdict == "does not hold"


@pytest.mark.slow
@given(capacities(), memories())
def test_workers_sentence_counts_the_judged_loads(study: CapacityStudy, memory: MemoryStudy) -> None:
    demand = Demand(users_online=10, runs_per_user_hour=1, events_per_run=5, run_seconds=1)
    finding = workers_claim(study, shared(), [], demand)
    assert_basis(finding)
    carried, judged = numbers(finding.answer, "# of # loads that used at most two thirds")
    assert finding.verdict == ("unknown" if not judged else "holds" if carried == judged else "does not hold")
    assert finding.sample == (Sample(int(judged), "loads") if judged else None)


# Faults.

positions = st.lists(st.integers(1, 4), unique=True, max_size=4)


@st.composite
def matrices(draw: st.DrawFn) -> FaultMatrix:
    names = draw(st.lists(st.sampled_from(["none", "down", "timeout", "latency"]), min_size=1, unique=True))
    cells = {}
    for fault in FAULTS:
        for mode in DELIVERY_MODES.values():
            if fault in names:
                lost = draw(st.sampled_from([[], [], [2], [1, 3]]))
                cells[fault, mode.name] = trial(
                    mode,
                    fault=fault,
                    lost=lost,
                    signalled=draw(st.sampled_from([[], lost])),
                    misrouted=draw(st.sampled_from([[], [], [], [4]])),
                    quiesced=draw(st.sampled_from([True, True, True, False])),
                )
    return FaultMatrix(cells)


@pytest.mark.slow
@given(matrices())
def test_matrix_sentence_counts_faults_without_the_baseline(matrix: FaultMatrix) -> None:
    finding = matrix_claim(matrix)
    assert_basis(finding)
    injected = {fault for fault, _ in matrix.cells} - {"none"}
    assert numbers(finding.claim, "none of # faults") == [len(injected)]
    silent, expected = numbers(finding.answer, "with a log, # of # events are lost silently")
    assert (silent, expected) == (
        sum(each.verdict.lost_silent for each in matrix.guaranteed),
        sum(each.verdict.expected for each in matrix.guaranteed),
    )
    [misrouted] = numbers(finding.answer, "and # frames are misrouted")
    lossy, tried = numbers(finding.answer, "Without a log, # of # faults")
    assert tried == len(injected)
    unfinished = sum(not each.quiesced for each in matrix.cells.values())
    assert (finding.verdict == "holds") is (silent == misrouted == unfinished == 0)
    assert numbers(matrix.title(), "Without a log, # of # faults") == [lossy, tried]
    assert matrix.title().endswith(f"{silent:,.0f} of {expected:,.0f} events are lost silently")


@given(st.lists(st.tuples(positions, st.floats(0.5, 2), st.floats(2.1, 4.5)), max_size=3))
def test_timeline_sentence_adds_up(rows: list[tuple[list[int], float, float]]) -> None:
    trials = [trial(RESUME, lost=lost, window=(first, last)) for lost, first, last in rows]
    finding = timeline_claim(trials)
    assert_basis(finding)
    emitted, arrived, lost = numbers(finding.answer, "Of # events emitted during a fault, # arrived and # were lost")
    assert emitted == arrived + lost
    assert (finding.verdict == "does not hold") is (lost > 0)
    assert finding.verdict != "holds" or emitted > 0


@st.composite
def windows(draw: st.DrawFn) -> WindowStudy:
    def window() -> Window:
        lost = draw(positions)
        mode = draw(st.sampled_from([AT_MOST_ONCE, replace(RESUME, keep_events=draw(st.integers(0, 3)))]))
        found: Trial = trial(mode, lost=lost, signalled=draw(st.sampled_from([[], lost])), online=[(0, 1.2), (3.2, 9)])
        if not mode.resumes:
            found.readers[0].starts += [0, draw(st.integers(0, 4))]
        return Window(found)

    return WindowStudy([window() for _ in range(draw(st.integers(0, 4)))])


@given(windows())
def test_windows_sentence_fits_its_verdict(study: WindowStudy) -> None:
    finding = windows_claim(study)
    assert_basis(finding)
    exact, tried = numbers(finding.answer, "For # of # offline times, the number of lost events equals the prediction")
    [near] = numbers(finding.answer, "For # more offline") if "more offline" in finding.answer else [0]
    agree = exact + near
    assert exact == sum(each.lost.k == each.predicted.k for each in study.windows)
    assert tried == len(study.windows)
    assert len(finding.evidence) == tried - agree
    silent = sum(each.trial.verdict.lost_silent for each in study.windows if each.trial.delivery.resumes)
    if any(each.trial.delivery.resumes for each in study.windows):
        assert numbers(finding.answer, ", # events were lost silently") == [silent]
    wanted = "unknown" if not tried else "holds" if agree == tried and not silent else "does not hold"
    assert finding.verdict == wanted
    assert study.title()
    assert study.alt_text().count("predicted") == tried


@given(st.lists(st.tuples(st.floats(0, 0.6), st.floats(0, 0.3), counts), min_size=3, max_size=3))
def test_stall_sentence_fits_its_verdict(rows: list[tuple[float, float, int]]) -> None:
    due = [0.1, 0.4, 0.6]
    stalls = [
        Stall(server, 1, 3, due, [(n % 3, due[n % 3] + late) for n in range(min(read, 3))], [wait], (0.3, 0.8))
        for server, (wait, late, read) in zip(SERVERS, rows, strict=True)
    ]
    finding = stall_claim(StallStudy(stalls))
    assert_basis(finding)
    read, events, late = numbers(finding.answer, "read # of # events with a median delay of # ms")
    [longest] = numbers(finding.answer, "longest emission took # ms")
    if finding.verdict == "holds":
        assert read == events
        assert late <= 50.05
        assert longest <= 250.05
    if read < events or longest > 250.05:
        assert finding.verdict == "does not hold"
    others, waited = numbers(finding.answer, "Of # servers .* # waited")
    assert (others, waited) == (2, sum(stall.longest_wait >= 0.25 for stall in stalls[:2]))


# Trust.


@given(st.lists(st.sampled_from(["yes", "no"]), max_size=8))
def test_mutation_sentence_counts_the_exact_ones(exactly: list[str]) -> None:
    finding = mutation_claim(pd.DataFrame({"expected": ["1 dropped"] * len(exactly), "exactly": exactly}))
    assert_basis(finding)
    wanted = "unknown" if not exactly else "does not hold" if "no" in exactly else "holds"
    assert finding.verdict == wanted
    if exactly:
        assert numbers(finding.answer, "# of # histories") == [exactly.count("yes"), len(exactly)]


@given(st.lists(st.tuples(st.floats(90, 100), st.booleans()), min_size=1, max_size=20))
def test_coverage_sentence_fits_its_verdict(rows: list[tuple[float, bool]]) -> None:
    table = pd.DataFrame([{"p": 0.5, "n": 10, "exact %": exact, "inside": inside} for exact, inside in rows])
    finding = coverage_claim(table)
    assert_basis(finding)
    [mean] = numbers(finding.answer, "in # % of the cases on average")
    agree, tried = numbers(finding.answer, "agrees with the exact coverage in # of # combinations")
    [allowed] = numbers(finding.rule, "Chance explains at most # disagreements")
    if finding.verdict == "holds":
        assert 92.9 < mean < 97.1
        assert tried - agree <= allowed
    elif 93.1 < mean < 96.9:
        assert tried - agree > allowed


# What the audit missed.

triples = st.tuples(st.integers(1, 9), counts, counts)


@given(st.lists(st.tuples(triples, triples), min_size=1, max_size=4))
def test_shared_agent_sentence_states_what_another_user_read(
    rows: list[tuple[tuple[int, int, int], tuple[int, int, int]]],
) -> None:
    study = SharedAgentStudy(
        shared=[measured(BROKEN[5], thoughts(*one), at_once=n) for n, (one, _) in enumerate(rows, start=1)],
        fresh=[measured(SOUND, thoughts(*two), at_once=n) for n, (_, two) in enumerate(rows, start=1)],
    )
    finding = shared_agent_claim(study)
    assert_basis(finding)
    (shared_counts, fresh_counts) = rows[-1]
    at_once, k, n, fresh_k, fresh_n = numbers(
        finding.answer, "With # runs at once, another user reads # of # events .*, and # of # events"
    )
    assert (at_once, k, n) == (len(rows), shared_counts[1], sum(shared_counts))
    assert (fresh_k, fresh_n) == (fresh_counts[1], sum(fresh_counts))
    assert (finding.verdict == "holds") is all(one[1] == 0 for one, _ in rows)
    assert finding.sample == Sample(min(sum(one) for one, _ in rows), "events")


@given(st.lists(st.tuples(triples, counts), min_size=len(RECEIPT_CHAINS), max_size=len(RECEIPT_CHAINS)))
def test_receipt_sentence_states_the_worst_chain(rows: list[tuple[tuple[int, int, int], int]]) -> None:
    study = ReceiptStudy(
        [
            measured(chain, thoughts(*each), false_success=false)
            for chain, (each, false) in zip(RECEIPT_CHAINS, rows, strict=True)
        ]
    )
    finding = receipt_claim(study)
    assert_basis(finding)
    false, sound_false, sound = numbers(
        finding.answer,
        "# of [\\d,]+ events are reported as sent but .* sound chain, # of # events are reported as sent",
    )
    judged = [rows[index][1] for index in range(4)]
    assert false == max(judged)
    assert (sound_false, sound) == (rows[-1][1], sum(rows[-1][0]))
    assert (finding.verdict == "holds") is (max(judged) == 0)


@given(triples, triples)
def test_leak_sentence_counts_both_chains(leaky: tuple[int, int, int], sound: tuple[int, int, int]) -> None:
    pair = (ThreadId("thread_a_b"), ThreadId("thread_a"))
    searches = tuple(
        Search(name, pair if number == 0 else None, 1, 5, 5, Rate(4, 5)) for number, name in enumerate(ROUND_TRIPS)
    )
    owned = {"pair": tuple(map(partial(OwnedThread, user_id=UserId("alice")), pair))}
    study = LeakStudy(owned, searches, (measured(BROKEN[9], thoughts(*leaky)), measured(SOUND, thoughts(*sound))))
    finding = leak_claim(study)
    assert_basis(finding)
    assert numbers(finding.answer, "sockets, # of # events reach another user. On the sound chain, # of #") == [
        leaky[1], sum(leaky), sound[1], sum(sound),
    ]  # fmt: skip
    assert (finding.before, finding.after) == ((leaky[0], sum(leaky)), (sound[0], sum(sound)))
    assert (finding.verdict == "holds") is (leaky[1] == 0)
