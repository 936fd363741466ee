"""Measurements of the bridge without a socket: encodings, CPU times and memory of a mapping."""

from __future__ import annotations

import asyncio

import pytest

from benchmarks import own_cost_process
from benchmarks.own_cost_process import encodings, mapping_bytes, own_cost


@pytest.mark.parametrize("subscribers", [1, 3])
def test_event_is_encoded_once_for_any_number_of_subscribers(subscribers: int) -> None:
    assert asyncio.run(encodings(subscribers)) == {"encodings": 1.0}


def test_each_step_has_a_positive_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_cost_process, "CHECKED_EVENTS", 2_000)
    costs = asyncio.run(own_cost(2))
    assert costs.keys() == {"emit", "resolve, carried", "resolve, mapped", "encode", "check", "json.loads"}
    assert all(0 < us < 10_000 for us in costs.values())
    assert costs["emit"] > costs["encode"]


def test_run_in_the_mapping_costs_more_than_its_id() -> None:
    assert 100 < asyncio.run(mapping_bytes(2_000))["bytes"] < 1_000
