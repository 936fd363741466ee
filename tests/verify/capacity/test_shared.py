"""What sharing a broker costs: the difference of two measurements, which noise may not turn into a gain."""

from __future__ import annotations

import pytest

from tests.verify.capacity.loads import shared


@pytest.mark.parametrize(("measured", "extra"), [(80.0, 80.0), (-20.0, 0.0)])
def test_extra_cost_is_the_difference_and_never_less_than_nothing(measured: float, extra: float) -> None:
    assert shared(measured).extra_us == pytest.approx(extra)
