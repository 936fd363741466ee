"""The linear fit of memory, its residuals, and the limit of open files."""

from __future__ import annotations

import pytest

from bridgekit_verify.capacity.memory_scaling import KIB_PER_GIB, SOCKETS, LinearFit, TooManySockets, study_memory
from tests.verify.capacity.loads import memory_study

STRAIGHT = LinearFit(SOCKETS, [(100, 1_900), (500, 9_900), (1_000, 19_900)])


def test_memory_per_item_is_the_slope_for_any_intercept() -> None:
    assert (STRAIGHT.kib, STRAIGHT.first_kib, STRAIGHT.max_residual) == pytest.approx((20.0, -100.0, 0.0))
    assert STRAIGHT.per_gib == pytest.approx(KIB_PER_GIB / 20)
    assert STRAIGHT.most == 1_000


def test_max_residual_is_the_relative_distance_of_the_farthest_point() -> None:
    assert LinearFit(SOCKETS, [(100, 2_000), (500, 5_000), (1_000, 20_000)]).max_residual > 0.1


def test_growth_compares_the_cheapest_rounds() -> None:
    assert memory_study(growth=1.3).scalings[0].growth == pytest.approx(1.3)
    assert len(memory_study().table()) == 6
    assert "15.0 KiB for each of up to 1,000 idle sockets" in memory_study().alt_text()


async def test_too_many_sockets_raise_an_error_that_names_the_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bridgekit_verify.capacity.memory_scaling.raise_file_limit", lambda: 1_024)
    with pytest.raises(TooManySockets, match="LimitNOFILE") as refused:
        await study_memory([500, 1_000])
    assert (refused.value.wanted, refused.value.limit) == (1_000, 1_024)


@pytest.mark.parametrize("sizes", [[], [100], [100, 100], [0, 100]])
async def test_sizes_that_give_no_line_are_refused_with_what_is_allowed(sizes: list[int]) -> None:
    with pytest.raises(ValueError, match="give at least two different numbers of 1 or more"):
        await study_memory(sizes)
