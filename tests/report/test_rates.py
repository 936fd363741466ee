import pytest

from bridgekit.report.rates import bounds_of, counts_of, percent, rate_of, rate_words


def test_nothing_counted_is_unknown_and_never_a_percentage() -> None:
    for rate in (rate_of(None), rate_of((0, 0))):
        assert counts_of(rate) == "unknown"
        assert bounds_of(rate) == "nothing counted"
        assert "%" not in rate_words(rate)


def test_a_rate_is_told_with_its_count_and_its_interval() -> None:
    assert rate_words(rate_of((0, 1000))) == "0 of 1,000 (0 to 0.38 %)"


@pytest.mark.parametrize(
    ("share", "words"),
    [(0, "0"), (1, "100"), (0.5, "50.0"), (0.9996, "99.960"), (0.00004, "0.0040"), (1e-9, "below 0.001")],
)
def test_only_the_ends_are_written_as_the_ends(share: float, words: str) -> None:
    assert percent(share) == words


def test_almost_everything_is_not_everything() -> None:
    assert percent(1 - 1e-9) == "above 99.999"
