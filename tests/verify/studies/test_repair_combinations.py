"""Every combination of the four repairs, and other ways to find the thread, on the code as committed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from io import BytesIO
from itertools import combinations, permutations

import pytest

from bridgekit.events import CRITICAL, EventType
from bridgekit_verify.measure.attribution import EMITTED_BY_CORE
from bridgekit_verify.measure.drops import DropCount, count_drops
from bridgekit_verify.measure.experiment import measure
from bridgekit_verify.measure.workload import Workload, thread_ids
from bridgekit_verify.repairs import NEW_CLASSES, REPAIRS, LineChange, changed_lines, repaired, subsets
from bridgekit_verify.studies.repair_combinations import Applied, RepairStudy, study_repairs
from bridgekit_verify.variants import FIXES

AGENT, THREAD, CONNECTION, CALL = ORDER = ("agent per run", "thread carried", "connection bound", "link 8 call")
ALL = frozenset(ORDER)
KINDS = ("thread_123", "starts with another id")


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"  # uvicorn runs on asyncio only


@pytest.fixture(scope="module")
async def measured() -> RepairStudy:
    return await study_repairs(threads=2, runs=1, at_once=2, families=KINDS)


@pytest.mark.slow
async def test_only_all_repairs_together_deliver_every_event(measured: RepairStudy) -> None:
    delivered = {applied: count.delivered for applied, count in measured.totals.items()}
    bound_and_carried = {THREAD, CONNECTION}
    assert len(delivered) == 16
    assert delivered == {
        applied: 20 if applied == ALL else 14 if applied == ALL - {AGENT} else 8 if applied >= bound_and_carried else 0
        for applied in delivered
    }
    assert measured.complete == [ALL]
    assert measured.needed == list(ORDER)


@pytest.mark.slow
async def test_only_the_chain_without_an_agent_per_run_leaks(measured: RepairStudy) -> None:
    assert measured.leaking == [ALL - {AGENT}]
    assert measured.without(AGENT).leaked == 6
    assert len(measured.safe_orders) == 18
    assert all(order[-1] != AGENT for order in measured.safe_orders)


@pytest.mark.slow
async def test_recommended_order_is_safe_from_its_first_step(measured: RepairStudy) -> None:
    assert measured.order == ORDER
    assert [step.delivered for step in measured.steps(measured.order)] == [0, 0, 8, 20]


@pytest.mark.slow
async def test_runs_one_after_another_need_no_agent_per_run() -> None:
    study = await study_repairs(threads=2, runs=1, at_once=1, families=["thread_123"])
    assert study.needed == [THREAD, CONNECTION, CALL]
    assert study.leaking == []
    assert len(study.safe_orders) == 24
    assert study.finding() == "3 of 4 repairs deliver every event: connection bound, link 8 call, thread carried"


@pytest.mark.slow
async def test_counts_of_a_combination_are_those_of_its_chain(measured: RepairStudy) -> None:
    workload = Workload(threads=thread_ids(KINDS[1], 2), at_once=2)
    for chosen in subsets():
        counts = measured.subsets[frozenset(repair.name for repair in chosen)]
        assert counts[KINDS[1]] == count_drops(await measure(repaired(chosen), workload)), chosen


@pytest.mark.slow
async def test_routings_are_measured_with_the_other_three_repairs(measured: RepairStudy) -> None:
    others = [repair for repair in REPAIRS if repair.name != THREAD]
    workload = Workload(threads=thread_ids(KINDS[1], 2), at_once=2)
    for name, counts in measured.routings.items():
        routing = next((repair for repair in REPAIRS if repair.name == name), FIXES.get(name))
        assert routing is not None
        assert counts[KINDS[1]] == count_drops(await measure(repaired([*others, routing]), workload)), name


@pytest.mark.slow
async def test_tables_have_the_columns_that_the_report_reads(measured: RepairStudy) -> None:
    counts = ["expected", "delivered", "lost", "leaked"]
    table = measured.table()
    assert list(table.columns) == ["order", "repair", "links", "purpose", "lines removed", "lines added", *counts]
    assert dict(zip(table["repair"], table["links"], strict=True)) == {
        AGENT: "3 and 5",
        THREAD: "9",
        CONNECTION: "10",
        CALL: "8",
    }
    assert list(table["repair"]) == list(ORDER)
    assert list(table["delivered"]) == [0, 0, 8, 20]
    sizes = {repair.name: changed_lines(repair, adds=NEW_CLASSES.get(repair.name, ())) for repair in REPAIRS}
    assert [LineChange(*row) for row in zip(table["lines removed"], table["lines added"], strict=True)] == [
        sizes[name] for name in ORDER
    ]
    subset_table = measured.subset_table()
    assert list(subset_table.columns) == [*ORDER, *counts]
    [row] = subset_table[subset_table[list(ORDER)].sum(axis=1) == 4].to_dict("records")
    assert (row["delivered"], row["leaked"]) == (20, 0)
    assert len(subset_table) == len(subset_table.drop_duplicates(list(ORDER))) == 16
    routing_table = measured.routing_table().set_index("routing")
    assert list(routing_table.columns) == [*counts, "kinds that lose or leak", "kinds"]
    assert list(routing_table["delivered"]) == [15, 0, 20, 20, 15, 20]
    assert list(routing_table["leaked"]) == [5, 0, 0, 0, 5, 0]
    assert list(routing_table["kinds that lose or leak"]) == [1, 2, 0, 0, 1, 0]
    for each in (table, subset_table, routing_table):
        assert (each["expected"] == each["delivered"] + each["lost"] + each["leaked"]).all()


@pytest.mark.slow
async def test_texts_state_what_was_measured(measured: RepairStudy) -> None:
    assert measured.finding() == "All 4 repairs are needed, and together deliver every event"
    assert measured.gain(AGENT) == "without it, the other repairs leak 6 of 20 events"
    assert measured.gain(THREAD) == "without it, the other repairs deliver 0 of 20 events"
    assert measured.gain(CONNECTION) == "the start and the end of each run arrive"
    assert measured.gain(CALL) == "thoughts and tool calls arrive"
    sentences = " ".join(measured.sentences())
    assert "1 of 16 combinations of the repairs delivers every event without a leak: " in sentences
    assert "In 18 of 24 orders of the repairs, no event leaks after any repair." in sentences
    assert f"Without {AGENT}: 3 of 10, 3 leaked" in measured.alt_text()
    figure = measured.figure(measured.finding())
    figure.savefig(BytesIO(), format="png")
    texts = [text.get_text() for text in figure.axes[0].texts]
    # Each kind of thread id has ten events, and the bar represents both kinds.
    assert texts.count("10 of 10") == 5
    assert {"6 of 10", "0 of 10", "3 of 10", "3 leaked"} <= {*texts}


def literal(
    delivers: Callable[[Applied], int], leaks: Callable[[Applied], int] = lambda applied: 0, *, expected: int = 10
) -> RepairStudy:
    """Return a study in which each combination of the repairs delivers and leaks so many of the events."""
    counts: dict[Applied, Mapping[str, DropCount]] = {}
    for size in range(5):
        for chosen in map(frozenset, combinations(ORDER, size)):
            delivered, leaked = delivers(chosen), leaks(chosen)
            lost = expected - delivered - leaked
            arriving = frozenset(EventType) if delivered == expected else frozenset[EventType]()
            counts[chosen] = {"thread_123": DropCount(expected, delivered, lost, leaked, 0, {}, arriving)}
    lines = {name: LineChange(index, 2 * index) for index, name in enumerate(ORDER, 1)}
    return RepairStudy(counts, {"fix 3": counts[ALL]}, lines, {"documented": ["thread_123"]})


def test_repair_that_changes_nothing_is_not_needed() -> None:
    study = literal(lambda applied: 10 if applied >= ALL - {CALL} else 0)
    assert study.needed == [AGENT, THREAD, CONNECTION]
    assert study.finding() == "3 of 4 repairs deliver every event: agent per run, connection bound, thread carried"
    assert study.order[-1] == CALL


def test_repairs_that_do_not_suffice_are_not_called_complete() -> None:
    study = literal(lambda applied: 2 * len(applied))
    assert study.complete == []
    assert study.needed == list(ORDER)
    assert study.finding() == "All 4 repairs together deliver 8 of 10 events"


def test_order_puts_first_the_repair_whose_absence_leaks() -> None:
    study = literal(
        lambda applied: 10 if applied == ALL else 0, lambda applied: 5 if applied == ALL - {CONNECTION} else 0
    )
    assert study.order[0] == CONNECTION
    assert len(study.safe_orders) == 18
    assert study.gain(CONNECTION) == "without it, the other repairs leak 5 of 10 events"


def test_order_delivers_early_where_it_is_safe() -> None:
    study = literal(lambda applied: 10 if applied == ALL else 6 if applied >= {CALL, THREAD} else 0)
    assert set(study.order[:2]) == {CALL, THREAD}
    assert study.steps(study.order)[1].delivered == 6


def test_order_leaks_as_little_as_possible_where_every_order_leaks() -> None:
    leaks = {frozenset({AGENT}): 4, frozenset({THREAD}): 3, frozenset({CONNECTION}): 2, frozenset({CALL}): 1}
    study = literal(lambda applied: 0, lambda applied: leaks.get(applied, 0))
    assert study.safe_orders == []
    assert study.order[0] == CALL


@pytest.mark.parametrize("leaking", [ALL, ALL - {THREAD}, frozenset({CALL}), frozenset({CALL, AGENT})])
def test_safe_orders_are_those_that_pass_through_no_leaking_combination(leaking: Applied) -> None:
    study = literal(lambda applied: 0, lambda applied: 1 if applied == leaking else 0)
    safe = [order for order in permutations(ORDER) if all(frozenset(order[:size]) != leaking for size in range(1, 5))]
    assert study.safe_orders == safe
    assert study.leaking == [leaking]


@pytest.mark.parametrize("name", ORDER)
def test_repair_that_is_left_out_of_the_measurement_is_noticed(name: str) -> None:
    """A combination that is measured as if a repair were missing changes what is needed or what is found."""
    study = literal(lambda applied: 10 if applied == ALL else 0)
    without = replace(study, subsets={**study.subsets, ALL: study.subsets[ALL - {name}]})
    assert without.finding() != study.finding()
    assert without.complete == []


def test_types_of_events_that_arrive_are_named() -> None:
    def arriving(applied: Applied) -> frozenset[EventType]:
        return EMITTED_BY_CORE if applied == {AGENT} else frozenset(CRITICAL) if AGENT in applied else frozenset()

    study = literal(lambda applied: 5 * len(applied & {AGENT, THREAD}))
    named = {
        applied: {kind: replace(count, arriving=arriving(applied)) for kind, count in counts.items()}
        for applied, counts in study.subsets.items()
    }
    study = replace(study, subsets=named)
    assert study.order[:2] == (AGENT, THREAD)
    assert study.gain(AGENT) == "the start and the end of each run arrive"
    assert study.gain(THREAD) == "thoughts and tool calls arrive"
