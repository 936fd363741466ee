"""The closed form of waiting times, compared with known values and with a simulated queue."""

from __future__ import annotations

import math
import random

import pytest

from bridgekit_verify.capacity.queueing import ONE_SERVICE, study_waiting, waiting_seconds
from tests.verify.capacity.loads import capacity, carried, failed


def simulated_mean_wait(utilisation: float, pauses: tuple[float, float] = (0.0, 0.0), events: int = 200_000) -> float:
    """Return the simulated mean wait of events with service time 1, random due times and pauses (rate, length)."""
    source, free, waited = random.Random(7), 0.0, 0.0
    moment, pause_at = 0.0, source.expovariate(pauses[0]) if pauses[0] else math.inf
    for _ in range(events):
        moment += source.expovariate(utilisation)
        while pause_at <= moment:
            free = max(free, pause_at) + pauses[1]
            pause_at += source.expovariate(pauses[0])
        waited += max(free - moment, 0.0)
        free = max(free, moment) + 1.0
    return waited / events


@pytest.mark.parametrize("utilisation", [0.2, 0.5, 0.8])
def test_closed_form_equals_the_mean_wait_of_a_simulated_queue(utilisation: float) -> None:
    assert waiting_seconds(utilisation, 1.0) == pytest.approx(simulated_mean_wait(utilisation), rel=0.05)


def test_pauses_count_as_rare_long_jobs() -> None:
    """Pauses of 100 service times at a rate of 1 in 1,000 use a tenth of the core and cause most of the waiting."""
    measured = simulated_mean_wait(0.5, pauses=(0.001, 100.0), events=400_000)
    # Events use half of the core. The tenth of the pauses adds to the utilisation, with the squares of their durations.
    predicted = (0.5 * 1.0 + 0.001 * 100.0**2) / (2 * (1 - 0.6))
    assert predicted == pytest.approx(measured, rel=0.15)
    assert waiting_seconds(0.6, 1.0, 0.001 * 100.0**2) == pytest.approx(predicted, rel=0.01)


def test_mean_wait_equals_the_service_time_at_two_thirds_utilisation() -> None:
    assert waiting_seconds(ONE_SERVICE, 1.0) == pytest.approx(1.0)


@pytest.mark.parametrize("utilisation", [-0.1, 1.0, 1.5])
def test_waiting_time_without_a_steady_state_raises(utilisation: float) -> None:
    with pytest.raises(ValueError, match="steady state"):
        waiting_seconds(utilisation, 1.0)


def test_study_sorts_carried_loads_and_predicts_none_near_full_utilisation() -> None:
    study = study_waiting(capacity([carried(10_000), carried(1_000), failed(30_000)], [carried(19_600)]))
    points = study.points["ASGI"]
    assert [round(point.utilisation, 2) for point in points] == [0.05, 0.5]
    assert points[1].predicted == pytest.approx(0.001 + waiting_seconds(0.5, 50e-6))
    assert math.isnan(study.points["native"][0].predicted)
    assert "predicted unknown" in study.alt_text()
    assert len(study.table()) == 3


def test_edge_without_a_carried_load_has_no_points_and_a_labelled_panel() -> None:
    study = study_waiting(capacity([failed(1_000)], [carried(1_000)]))
    assert study.points["ASGI"] == []
    assert [axis.get_title(loc="left") for axis in study.figure().axes] == [
        "ASGI: no load was carried",
        "native",
    ]
