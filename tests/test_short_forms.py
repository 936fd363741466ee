"""Which parameter sets of a long test `make test` runs."""

from __future__ import annotations

import pytest

from tests.short_forms import spread

pytest_plugins = ["pytester"]


@pytest.mark.parametrize(
    ("number", "count", "chosen"),
    [(1, 5, {0}), (2, 5, {0, 2}), (3, 9, {0, 3, 6}), (4, 4, {0, 1, 2, 3}), (5, 2, {0, 1}), (4, 10, {0, 2, 5, 7})],
)
def test_indices_are_at_equal_distances(number: int, count: int, chosen: set[int]) -> None:
    assert spread(number, count) == chosen


def test_short_and_long_form_contain_each_parameter_set_once(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        """
        import pytest
        from tests.short_forms import mark_long_forms

        @pytest.hookimpl(tryfirst=True)
        def pytest_collection_modifyitems(items):
            mark_long_forms(items)
        """
    )
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.short_form(2)
        @pytest.mark.parametrize("letter", "ab")
        @pytest.mark.parametrize("number", range(3))
        def test_crossed(letter, number):
            pass

        def test_alone():
            pass
        """
    )
    marks = ["-o", "markers=short_form\nacceptance", "-p", "no:cacheprovider", "-p", "no:asyncio"]
    pytester.runpytest_inprocess(*marks, "-m", "not acceptance").assert_outcomes(passed=3, deselected=4)
    pytester.runpytest_inprocess(*marks, "-m", "acceptance").assert_outcomes(passed=4, deselected=3)
    pytester.runpytest_inprocess(*marks).assert_outcomes(passed=7)
