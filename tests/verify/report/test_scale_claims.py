"""Findings of notebook 13: each verdict follows from the measurements, in both directions, independently of speed."""

from __future__ import annotations

from dataclasses import replace

from bridgekit_verify.capacity.sizing import Demand, costs_of, size
from bridgekit_verify.report.findings import Finding
from bridgekit_verify.report.grouped_findings import PARTS, sections
from bridgekit_verify.report.scale_claims import capacity_claim, edge_claim, memory_claim, workers_claim
from tests.verify.capacity.loads import capacity, carried, failed, memory_study, shared, step
from tests.verify.report.notebooks import drawn, executed, recorded, report_of

DEMAND = Demand(users_online=1_000, runs_per_user_hour=6, events_per_run=20, run_seconds=10, workers_lost=1)
SOUND = capacity([carried(500), carried(8_000), failed(16_000)], [carried(500), carried(9_000), failed(20_000)])


def workers(study: object = SOUND) -> Finding:
    assert isinstance(study, type(SOUND))
    sized = [size(DEMAND, each) for each in costs_of(study, memory_study(), shared())]
    return workers_claim(study, shared(), sized, DEMAND)


def test_capacity_is_stated_for_both_edges_with_its_interval() -> None:
    finding = capacity_claim(SOUND)
    assert finding.verdict == "holds"
    assert (
        "The ASGI edge carries 8,000 events per second: at this load, 8,000 of 8,000 events were read" in finding.answer
    )
    assert (
        "At the highest load that the native edge carries, 1,800 runs of 5 events begin per second."
        in finding.evidence[1]
    )
    assert "0 were lost" in finding.answer
    assert finding.after == (56_000, 56_000)


def test_single_lost_event_contradicts_the_capacity_claim() -> None:
    lost = step(16_000, late=1_600, lost=1, delivered=15_999, taken=15_999, refused=1)
    assert capacity_claim(capacity([carried(8_000), lost], [carried(8_000), failed(9_000)])).verdict == "does not hold"


def test_unaccounted_events_contradict_the_claim_and_are_listed() -> None:
    misrouted = failed(16_000, misrouted=1)
    finding = capacity_claim(capacity([carried(8_000), misrouted], [carried(8_000), failed(9_000)]))
    assert finding.verdict == "does not hold"
    assert any("At 16,000 events per second, the counts do not add up" in alt_text for alt_text in finding.evidence)


def test_claim_is_unknown_if_no_load_is_carried() -> None:
    assert capacity_claim(capacity([failed(500)], [carried(500), failed(900)])).verdict == "unknown"


def test_claim_is_unknown_without_a_failed_load_and_capacity_is_a_lower_bound() -> None:
    finding = capacity_claim(capacity([carried(500)], [carried(500), failed(900)]))
    assert finding.verdict == "unknown"
    assert "The ASGI edge may carry more, because it carried every load that was tried." in finding.answer


def test_memory_claim_holds_for_linear_memory_and_constant_cost() -> None:
    finding = memory_claim(memory_study())
    assert finding.verdict == "holds"
    assert "On the native edge, a socket needs 15.0 KiB" in finding.answer
    assert "On the ASGI edge, by extrapolation, 34,953 idle sockets need one GiB." in finding.evidence[0]


def test_growing_cost_contradicts_the_memory_claim() -> None:
    finding = memory_claim(memory_study(growth=2.5))
    assert finding.verdict == "does not hold"
    assert "On the ASGI edge, an event costs 2.50 times as much CPU time with idle" in finding.evidence[-1]


def test_nonlinear_memory_contradicts_the_memory_claim() -> None:
    assert memory_claim(memory_study(deviation=12_000)).verdict == "does not hold"


def test_lost_event_contradicts_the_memory_claim() -> None:
    assert memory_claim(memory_study(lost=1)).verdict == "does not hold"


def test_workers_claim_holds_if_loads_up_to_two_thirds_are_carried() -> None:
    finding = workers()
    assert finding.verdict == "holds"
    assert "6 of 6 loads" in finding.answer
    assert "workers on the native edge" in finding.answer


def test_late_load_on_a_half_idle_core_contradicts_the_workers_claim() -> None:
    late = failed(8_000, share=0.4)
    assert workers(capacity([carried(500), late], [carried(500)])).verdict == "does not hold"


def test_late_load_that_waited_for_cpu_is_not_judged() -> None:
    late = failed(8_000, share=0.2, run_queue_wait=0.3)
    finding = workers(capacity([carried(500), late], [carried(500)]))
    assert finding.verdict == "holds"
    assert any(text.startswith("Of 5 loads up to two thirds of a core, 1 was not judged") for text in finding.evidence)


def test_workers_claim_without_judged_loads_is_unknown() -> None:
    late = capacity([failed(500, share=0.9)], [failed(500, share=0.9)])
    assert workers(replace(late, paired={})).verdict == "unknown"


def test_edge_claim_holds_only_if_the_native_edge_is_cheaper_in_everything_that_it_names() -> None:
    assert edge_claim(SOUND, memory_study()).verdict == "holds"
    assert edge_claim(SOUND, memory_study(socket_kib=10.0)).verdict == "does not hold"
    assert edge_claim(SOUND, memory_study(us=30.0)).verdict == "does not hold"


def test_event_that_costs_more_with_pauses_contradicts_the_edge_claim() -> None:
    """The audited sentence said "an event costs no more" beside 70 and 60 µs, because only the burst was judged."""
    finding = edge_claim(capacity([carried(500)], [carried(500)], paired=(60.0, 70.0)), memory_study())
    assert finding.verdict == "does not hold"
    assert (
        "With pauses, an event costs 70.0 to 70.0 µs of CPU time on the native edge and 60.0 to 60.0 µs on the ASGI"
        " edge: the native edge needs more CPU time." in finding.answer
    )


def test_edge_claim_allows_no_difference() -> None:
    assert edge_claim(SOUND, memory_study(us=39.9)).verdict == "does not hold"
    assert edge_claim(SOUND, memory_study(us=40.0)).verdict == "holds"


def test_edge_claim_is_unknown_if_rounds_overlap_or_are_missing() -> None:
    rounds = {"ASGI": [step(1_000, us=us) for us in (50, 60)], "native": [step(1_000, us=us) for us in (45, 55)]}
    overlapping = edge_claim(replace(SOUND, paired=rounds), memory_study())
    assert overlapping.verdict == "unknown"
    assert (
        "45.0 to 55.0 µs of CPU time on the native edge and 50.0 to 60.0 µs on the ASGI edge: the difference between"
        " the edges is not clear." in overlapping.answer
    )
    missing = edge_claim(replace(SOUND, paired={}), memory_study())
    assert (missing.verdict, "with pauses was not measured" in missing.answer) == ("unknown", True)


def test_findings_are_in_their_own_section_with_their_figures() -> None:
    report = report_of(executed("13_a", recorded(capacity_claim(SOUND)), drawn("scale_capacity")))
    [(title, [section])] = sections(report).items()
    assert title == PARTS["scale"]
    assert section.figure is not None
