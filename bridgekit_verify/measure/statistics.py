"""Compute rates with confidence intervals, and the birthday bound for the collision of random ids.

Only a sampled rate has an interval. For chosen cases with a deterministic result, show `Rate.counts` for each case.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final, NamedTuple

__all__ = ["CONFIDENCE", "Rate", "Sample", "collision_probability", "percent", "runs_until_collision", "wilson"]

CONFIDENCE: Final = 0.95


def wilson(k: int, n: int, *, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return Wilson's score interval for k of n, as fractions of 1. For n = 0, return (0.0, 1.0), which means unknown.

    E. B. Wilson, "Probable inference, the law of succession, and statistical inference", Journal of the American
    Statistical Association 22 (1927), 209-212. Raises ValueError unless 0 <= k <= n.
    """
    if not 0 <= k <= n:
        raise ValueError(f"a rate k of n must have 0 <= k <= n, but is {k} of {n}")
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    p = k / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    # For k = 0 and k = n, the bound is exactly 0 or 1, but the formula would add a rounding error.
    return (0.0 if k == 0 else centre - half), (1.0 if k == n else centre + half)


class Rate(NamedTuple):
    """A rate, k of n. For n = 0 the rate is unknown: neither 0 % nor 100 %.

    Only a rate that was sampled has an interval: see `estimate`.
    """

    k: int
    n: int

    @property
    def known(self) -> bool:
        return self.n > 0

    @property
    def interval(self) -> tuple[float, float]:
        return wilson(self.k, self.n)

    @property
    def fraction(self) -> float:
        """k / n, or NaN if the rate is unknown."""
        return self.k / self.n if self.n else math.nan

    @classmethod
    def of(cls, counts: tuple[int, int] | None) -> Rate:
        """Build a rate from stored counts. None (not counted) becomes 0 of 0, an unknown rate."""
        return cls(*counts) if counts is not None else cls(0, 0)

    @property
    def counts(self) -> str:
        """The counts as text: "58 of 60", or "unknown"."""
        return f"{self.k:,} of {self.n:,}" if self.n else "unknown"

    @property
    def bounds(self) -> str:
        """The interval as text: "88.6 to 99.08 %", or "nothing counted"."""
        if not self.n:
            return "nothing counted"
        low, high = self.interval
        return f"{percent(low)} to {percent(high)} %"

    @property
    def estimate(self) -> str:
        """Counts and interval of a sampled rate as text: "58 of 60 (88.6 to 99.08 %)"."""
        return f"{self.counts} ({self.bounds})"

    def __str__(self) -> str:
        return self.counts


@dataclass(frozen=True, slots=True, order=True)
class Sample:
    """The number and kind of observations behind a verdict, such as `Sample(2, "agents")`. The smallest sorts first."""

    count: int
    unit: str
    """What was counted, such as "events" or "calls per chain". The first word must be a plural that ends in "s"."""

    def __str__(self) -> str:
        unit, space, rest = self.unit.partition(" ")
        return f"{self.count:,} {unit.removesuffix('s') if self.count == 1 else unit}{space}{rest}"


def percent(share: float) -> str:
    """Return a share in percent, without the % sign. Only exactly 0 and 1 become "0" and "100".

    Shares near 0 and 1 get more digits, because a share of 99.96 % must not be rounded to 100 %.
    """
    value = 100 * share
    distance = min(value, 100 - value)
    if distance < 1e-9:
        return f"{value:.0f}"
    for digits in (1, 2, 3, 4):
        if distance >= 10 ** (1 - digits):
            return f"{value:.{digits}f}"
    return "below 0.001" if value < 50 else "above 99.999"


def collision_probability(runs: int, digits: int) -> float:
    """Return the probability that two of `runs` random ids of `digits` hexadecimal digits are equal.

    Uses the approximation 1 - exp(-n (n - 1) / 2d) of the birthday bound. The approximation is accurate while n is far
    below d = 16**digits.
    """
    return -math.expm1(-runs * (runs - 1) / (2 * 16**digits))


def runs_until_collision(digits: int, probability: float = 0.5) -> int:
    """Return how many random ids are needed until two are equal with this probability, by the birthday bound."""
    return math.ceil(0.5 + math.sqrt(0.25 - 2 * 16**digits * math.log1p(-probability)))
