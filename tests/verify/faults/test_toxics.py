"""The table of network faults, random delays and sizes, and rate limits, without a socket."""

from __future__ import annotations

import math
from random import Random

import pytest

from bridgekit_verify.faults.connection import CHUNK_BYTES, TICK_SECONDS, RateLimiter
from bridgekit_verify.faults.toxics import NETWORK_FAULTS, AddedLatency, Slicer, Toxic


def test_every_network_fault_has_a_description() -> None:
    assert all(name == fault.name and fault.description for name, fault in NETWORK_FAULTS.items())
    assert len({fault.description for fault in NETWORK_FAULTS.values()}) == len(NETWORK_FAULTS) == 9


@pytest.mark.parametrize("name", NETWORK_FAULTS)
def test_fault_has_its_default_parameters_and_the_given_seed(name: str) -> None:
    toxic = NETWORK_FAULTS[name].toxic(seed=7)
    assert toxic.seed == 7
    assert type(toxic) is type(NETWORK_FAULTS[name].default)
    assert NETWORK_FAULTS[name].toxic() == NETWORK_FAULTS[name].default


def test_base_toxic_has_no_effect() -> None:
    none = Toxic()
    assert none.delay(Random(0)) == none.pause() == 0
    assert none.rate() == math.inf
    assert none.piece(Random(0)) is none.limit() is None


def test_latency_is_random_around_its_mean_and_reproducible() -> None:
    def drawn(seed: int) -> list[float]:
        chance = Random(seed)
        return [AddedLatency(0.2, 0.1).delay(chance) for _ in range(200)]

    assert drawn(1) == drawn(1) != drawn(2)
    assert 0.1 <= min(drawn(1)) < 0.12
    assert 0.28 < max(drawn(1)) <= 0.3


def test_latency_is_never_negative() -> None:
    chance = Random(1)
    assert min(AddedLatency(0.0, 0.1).delay(chance) for _ in range(100)) == 0


def test_pieces_have_random_reproducible_sizes_and_are_never_empty() -> None:
    def drawn(seed: int) -> list[int]:
        chance = Random(seed)
        return [Slicer(3, 3).piece(chance) for _ in range(100)]

    assert drawn(1) == drawn(1) != drawn(2)
    assert set(drawn(1)) == {1, 2, 3, 4, 5, 6}


def test_rate_limiter_allows_one_tick_immediately_and_then_keeps_the_rate() -> None:
    pacer, now, passed = RateLimiter(), 100.0, 0
    while now < 101:
        size = pacer.max_bytes(1_000)
        pacer.consumed(size, now, 1_000)
        passed += size
        now += pacer.wait(now, 1_000)
    assert passed == pytest.approx(1_000, abs=2 * 1_000 * TICK_SECONDS)


def test_rate_limiter_keeps_at_most_one_tick_of_unused_budget() -> None:
    pacer = RateLimiter()
    pacer.consumed(20, 0.0, 1_000)
    assert pacer.wait(1_000.0, 1_000) == 0
    pacer.consumed(20, 1_000.0, 1_000)
    pacer.consumed(20, 1_000.0, 1_000)
    assert pacer.wait(1_000.0, 1_000) == pytest.approx(0.02)


def test_rate_limiter_allows_single_bytes_at_a_low_rate_and_none_at_zero() -> None:
    pacer = RateLimiter()
    pacer.consumed(1, 5.0, 0.001)
    assert pacer.wait(5.0, 0.001) > 900
    assert pacer.wait(5.0, 0) == math.inf
    assert pacer.max_bytes(math.inf) == pacer.max_bytes(1e12) == CHUNK_BYTES
    assert pacer.max_bytes(0.001) == 1
