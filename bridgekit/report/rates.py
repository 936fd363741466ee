"""Counts as people read them: k of n, with a 95 % Wilson interval, or "unknown" where nothing was counted."""

from __future__ import annotations

from bridgekit.measure.statistics import Rate


def rate_of(counts: tuple[int, int] | None) -> Rate:
    """Counts as a finding stores them. None, when nobody counted, is 0 of 0: unknown."""
    return Rate(*counts) if counts is not None else Rate(0, 0)


def counts_of(rate: Rate) -> str:
    """The counts in words: "58 of 60"."""
    return f"{rate.k:,} of {rate.n:,}" if rate.n else "unknown"


def bounds_of(rate: Rate) -> str:
    """The interval in words: "88.6 to 99.08 %", or "nothing counted"."""
    if not rate.n:
        return "nothing counted"
    low, high = rate.interval
    return f"{percent(low)} to {percent(high)} %"


def rate_words(rate: Rate) -> str:
    """Both: "58 of 60 (88.6 to 99.08 %)"."""
    return f"{counts_of(rate)} ({bounds_of(rate)})"


def percent(share: float) -> str:
    """A share in per cent without its sign. Only the ends themselves are written 0 and 100.

    Close to either end the digits grow, because 99.96 % is not 100 % to the one who waits for the rest.
    """
    value = 100 * share
    distance = min(value, 100 - value)
    if distance < 1e-9:
        return f"{value:.0f}"
    for digits in (1, 2, 3, 4):
        if distance >= 10 ** (1 - digits):
            return f"{value:.{digits}f}"
    return "below 0.001" if value < 50 else "above 99.999"
