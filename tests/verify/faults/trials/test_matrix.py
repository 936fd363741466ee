"""A matrix of faults and delivery modes, with real workers, a real file and a real broker.

`make test` runs the matrix in notebook 12, with every fault; `make acceptance` runs it here, with another timing.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from io import BytesIO

import anyio
import pytest

from bridgekit_verify.faults.trials.deployment import AT_MOST_ONCE, DELIVERY_MODES, RESUME
from bridgekit_verify.faults.trials.fault_catalogue import FAULTS
from bridgekit_verify.faults.trials.matrix import FaultMatrix, Soak, random_plan, run_matrix, soak
from bridgekit_verify.faults.trials.trial import TrialPlan, latency_figure
from tests.verify.faults.trials.trials import trial
from tools.soak import page

LOSE_UNPROTECTED = ("slow_reader", "timeout", "reset_peer", "down", "kill while offline")
"""Faults that always cause loss in the mode "at most once"."""


OF_PROCESSES = ("kill", "kill while offline", "restart", "broker's kill", "broker's reset")
CHOSEN = [fault for fault in FAULTS.values() if not fault.needs_own_deployment or fault.name in OF_PROCESSES]
"""All faults of the network, and some of a worker and of the broker, each of which starts its own processes."""
QUICK = TrialPlan(steps=12, pace_seconds=0.03, start_seconds=0.15, duration_seconds=0.25, after_steps=2)
"""Shorter than the default, which notebook 12 runs; `random_plan` covers other timings."""


@pytest.fixture(scope="module")
def matrix() -> FaultMatrix:
    return anyio.run(partial(run_matrix, plan=QUICK, faults=CHOSEN))


@pytest.mark.acceptance
def test_every_fault_is_tested_in_every_mode_that_it_applies_to(matrix: FaultMatrix) -> None:
    assert set(matrix.cells) == {
        (fault.name, row.name) for fault in CHOSEN for row in DELIVERY_MODES.values() if fault.applies_to(row)
    }
    assert len(matrix.cells) == 4 * 11 + 2
    assert sum(fault.applies_to(row) for fault in FAULTS.values() for row in DELIVERY_MODES.values()) == 4 * 12 + 6


@pytest.mark.acceptance
def test_no_event_is_lost_silently_in_modes_with_a_log(matrix: FaultMatrix) -> None:
    assert {
        name: t.verdict.losses for name, t in matrix.cells.items() if t in matrix.guaranteed and t.verdict.lost_silent
    } == {}
    assert (matrix.silent_losses.k, matrix.silent_losses.n > 1_500) == (0, True)


@pytest.mark.acceptance
def test_no_event_is_misrouted_in_any_cell(matrix: FaultMatrix) -> None:
    assert {name: t.verdict.misroutes for name, t in matrix.cells.items() if t.verdict.misrouted} == {}


@pytest.mark.acceptance
def test_events_arrive_once_and_in_order_in_every_cell(matrix: FaultMatrix) -> None:
    for name, found in matrix.cells.items():
        verdict = found.verdict
        copies = verdict.extra_copies + found.sent_twice
        assert (name, copies, verdict.reordered, verdict.unexpected) == (name, 0, 0, found.lost_run_ends)
        assert not found.lost_run_ends or "kill" in found.fault.name, name


@pytest.mark.acceptance
def test_every_user_reads_the_last_event_in_every_cell(matrix: FaultMatrix) -> None:
    assert [name for name, found in matrix.cells.items() if not found.quiesced] == []


@pytest.mark.acceptance
def test_mode_without_a_log_loses_events_silently(matrix: FaultMatrix) -> None:
    assert [name for name in LOSE_UNPROTECTED if not matrix.cells[name, AT_MOST_ONCE.name].verdict.lost_silent] == []


@pytest.mark.acceptance
def test_loss_without_a_log_is_the_predicted_one(matrix: FaultMatrix) -> None:
    predicted = {each.fault.name: each.predicted_delivered for each in matrix.of(AT_MOST_ONCE.name)}
    known = {name: count for name, count in predicted.items() if count is not None}
    assert {"timeout", "reset_peer", "down", "partition"} <= set(known)
    assert known == {name: matrix.cells[name, AT_MOST_ONCE.name].verdict.delivered for name in known}


@pytest.mark.acceptance
def test_loss_of_a_memory_log_is_signalled(matrix: FaultMatrix) -> None:
    assert matrix.cells["kill while offline", RESUME.name].verdict.lost_signalled > 0


@pytest.mark.acceptance
@pytest.mark.parametrize("delivery", ["SQLite", "Redis"])
def test_no_acknowledged_event_is_lost_when_the_log_is_durable(matrix: FaultMatrix, delivery: str) -> None:
    for fault in ("kill", "kill while offline", "restart"):
        assert matrix.cells[fault, delivery].verdict.lost == 0


@pytest.mark.acceptance
def test_control_without_a_fault_loses_nothing(matrix: FaultMatrix) -> None:
    assert [matrix.cells["none", row.name].verdict.lost for row in DELIVERY_MODES.values()] == [0, 0, 0, 0]


# Violations in literal trials, which the matrix must detect.


def matrix_with(
    *, lost: Sequence[int] = (), signalled: Sequence[int] = (), misrouted: Sequence[int] = ()
) -> FaultMatrix:
    found = trial(RESUME, lost=lost, signalled=signalled, misrouted=misrouted)
    return FaultMatrix({("down", RESUME.name): found, ("down", AT_MOST_ONCE.name): trial(AT_MOST_ONCE)})


def test_silent_loss_is_counted() -> None:
    assert matrix_with(lost=[2]).silent_losses.k == 1
    assert matrix_with(lost=[2], signalled=[2]).silent_losses.k == 0


def test_misrouted_event_is_counted() -> None:
    assert matrix_with(misrouted=[3]).misrouted == 1
    assert matrix_with().misrouted == 0


def test_loss_without_a_guarantee_is_not_a_silent_loss_of_the_matrix() -> None:
    matrix = FaultMatrix({("down", AT_MOST_ONCE.name): trial(AT_MOST_ONCE, lost=[1, 2])})
    assert (matrix.silent_losses.k, matrix.silent_losses.n) == (0, 0)


def test_row_contains_all_outcomes() -> None:
    [row] = (
        FaultMatrix({("down", RESUME.name): trial(RESUME, lost=[1, 2], signalled=[2], misrouted=[4])})
        .table()
        .to_dict("records")
    )
    assert (row["delivered"], row["lost silently"], row["lost with a gap"], row["misrouted"]) == ("2 of 4", 1, 1, 1)
    assert (row["median ms"], row["longest ms"]) == (500.0, 500.0)


def test_latency_figure_of_no_trial_can_be_drawn_and_described() -> None:
    late = matrix_with().named("partition", delivery=RESUME.name)
    assert (late, FaultMatrix.delays(late)) == ([], "no trial was made")
    latency_figure(late).savefig(BytesIO(), format="png")


def test_counts_of_rounds_are_summed() -> None:
    found = Soak()
    for seed in (1, 2):
        found.add(seed, FaultMatrix({("down", RESUME.name): trial(RESUME, lost=[2], signalled=[2])}))
    [row] = found.table().to_dict("records")
    assert (row["expected"], row["delivered"], row["lost with a gap"], found.rounds) == (8, 6, 2, 2)
    assert (found.silent_losses.k, found.silent_losses.n, found.violations) == (0, 8, [])


@pytest.mark.parametrize(
    "violations",
    [
        trial(RESUME, lost=[2]),
        trial(RESUME, misrouted=[3]),
        trial(AT_MOST_ONCE, misrouted=[3]),
        trial(RESUME, quiesced=False),
    ],
    ids=["silent loss", "misrouted", "misrouted without a guarantee", "not quiesced"],
)
def test_violation_is_listed_with_its_seed(violations: object) -> None:
    found = Soak()
    assert isinstance(violations, type(trial(RESUME)))
    found.add(41, FaultMatrix({("down", violations.delivery.name): violations}))
    assert len(found.violations) == 1
    assert found.violations[0].startswith("seed 41: down, ")


def test_loss_without_a_guarantee_is_not_a_violation() -> None:
    found = Soak()
    found.add(1, FaultMatrix({("down", AT_MOST_ONCE.name): trial(AT_MOST_ONCE, lost=[1, 2])}))
    assert found.violations == []


def test_random_plan_depends_only_on_the_seed() -> None:
    assert random_plan(3) == random_plan(3) != random_plan(4)


@pytest.mark.slow
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_soak_runs_and_prints_at_least_one_round() -> None:
    lines = list[str]()
    found = await soak(minutes=0, users=1, faults=[FAULTS["down"]], modes=[RESUME], print_line=lines.append)
    assert (found.rounds, len(lines), found.violations) == (1, 1, [])
    assert "| down | resume |" in page(found)
