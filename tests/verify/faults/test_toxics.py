"""The table of faults, and the arithmetic of chance and pace, without a socket."""

from __future__ import annotations

import math
from random import Random

import pytest

from bridgekit_verify.faults.connection import CHUNK_BYTES, TICK_SECONDS, RateLimiter
from bridgekit_verify.faults.toxics import NETWORK_FAULTS, Latency, Slicer, Toxic


def test_every_fault_says_what_it_is_in_the_world() -> None:
    assert all(name == fault.name and fault.says for name, fault in NETWORK_FAULTS.items())
    assert len({fault.says for fault in NETWORK_FAULTS.values()}) == len(NETWORK_FAULTS) == 9


@pytest.mark.parametrize("name", NETWORK_FAULTS)
def test_fault_has_its_usual_parameters_and_the_seed_that_is_asked_for(name: str) -> None:
    toxic = NETWORK_FAULTS[name].toxic(seed=7)
    assert toxic.seed == 7
    assert type(toxic) is type(NETWORK_FAULTS[name].default)
    assert NETWORK_FAULTS[name].toxic() == NETWORK_FAULTS[name].default


def test_toxic_of_no_kind_does_nothing() -> None:
    none = Toxic()
    assert none.delay(Random(0)) == none.pause() == 0
    assert none.rate() == math.inf
    assert none.piece(Random(0)) is none.limit() is None


def test_latency_is_drawn_around_its_middle_and_by_the_seed() -> None:
    def drawn(seed: int) -> list[float]:
        chance = Random(seed)
        return [Latency(0.2, 0.1).delay(chance) for _ in range(200)]

    assert drawn(1) == drawn(1) != drawn(2)
    assert 0.1 <= min(drawn(1)) < 0.12
    assert 0.28 < max(drawn(1)) <= 0.3


def test_latency_is_never_negative() -> None:
    chance = Random(1)
    assert min(Latency(0.0, 0.1).delay(chance) for _ in range(100)) == 0


def test_pieces_are_drawn_around_their_middle_by_the_seed_and_are_never_empty() -> None:
    def drawn(seed: int) -> list[int]:
        chance = Random(seed)
        return [Slicer(3, 3).piece(chance) for _ in range(100)]

    assert drawn(1) == drawn(1) != drawn(2)
    assert set(drawn(1)) == {1, 2, 3, 4, 5, 6}


def test_pacer_lets_a_tick_pass_at_once_and_then_keeps_to_the_rate() -> None:
    pacer, now, passed = RateLimiter(), 100.0, 0
    while now < 101:
        size = pacer.max_bytes(1_000)
        pacer.consumed(size, now, 1_000)
        passed += size
        now += pacer.wait(now, 1_000)
    assert passed == pytest.approx(1_000, abs=2 * 1_000 * TICK_SECONDS)


def test_pacer_saves_up_no_more_than_a_tick() -> None:
    pacer = RateLimiter()
    pacer.consumed(20, 0.0, 1_000)
    assert pacer.wait(1_000.0, 1_000) == 0
    pacer.consumed(20, 1_000.0, 1_000)
    pacer.consumed(20, 1_000.0, 1_000)
    assert pacer.wait(1_000.0, 1_000) == pytest.approx(0.02)


def test_pacer_lets_one_byte_through_at_almost_nothing_and_none_at_nothing() -> None:
    pacer = RateLimiter()
    pacer.consumed(1, 5.0, 0.001)
    assert pacer.wait(5.0, 0.001) > 900
    assert pacer.wait(5.0, 0) == math.inf
    assert pacer.max_bytes(math.inf) == pacer.max_bytes(1e12) == CHUNK_BYTES
    assert pacer.max_bytes(0.001) == 1
