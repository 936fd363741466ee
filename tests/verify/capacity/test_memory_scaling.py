"""What a crowd weighs: a straight line, and what lies beside it."""

from __future__ import annotations

import pytest

from bridgekit_verify.capacity.memory_scaling import GIB_KIB, SOCKETS, TooManySockets, Weight, study_crowd
from tests.verify.capacity.loads import crowd

STRAIGHT = Weight(SOCKETS, [(100, 1_900), (500, 9_900), (1_000, 19_900)])


def test_slope_of_the_line_is_what_one_more_weighs_wherever_the_line_begins() -> None:
    assert (STRAIGHT.kib, STRAIGHT.first_kib, STRAIGHT.off_line) == pytest.approx((20.0, -100.0, 0.0))
    assert STRAIGHT.per_gib == pytest.approx(GIB_KIB / 20)
    assert STRAIGHT.most == 1_000


def test_point_beside_the_line_is_told_by_its_distance() -> None:
    assert Weight(SOCKETS, [(100, 2_000), (500, 5_000), (1_000, 20_000)]).off_line > 0.1


def test_growth_is_by_the_cheapest_round_of_each() -> None:
    assert crowd(growth=1.3).crowds[0].growth == pytest.approx(1.3)
    assert len(crowd().table()) == 6
    assert "15.0 KiB for each of up to 1,000 idle sockets" in crowd().words()


async def test_more_sockets_than_files_may_be_open_are_refused_with_what_to_raise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bridgekit_verify.capacity.memory_scaling.raise_file_limit", lambda: 1_024)
    with pytest.raises(TooManySockets, match="LimitNOFILE") as refused:
        await study_crowd([1_000])
    assert (refused.value.wanted, refused.value.at_most) == (1_000, 1_024)
