"""Sets of whole numbers that lie mostly side by side, held as ranges."""

from __future__ import annotations

from bisect import bisect_right

__all__ = ["Ranges"]


class Ranges:
    """Disjoint ranges in rising order, both ends inclusive."""

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []

    def __len__(self) -> int:
        """How many ranges, not how many numbers."""
        return len(self._firsts)

    def add(self, number: int) -> None:
        """Add a number that is not in it yet."""
        place = bisect_right(self._firsts, number)
        after_one = place > 0 and self._lasts[place - 1] == number - 1
        before_one = place < len(self._firsts) and self._firsts[place] == number + 1
        if after_one and before_one:
            self._lasts[place - 1] = self._lasts.pop(place)
            del self._firsts[place]
        elif after_one:
            self._lasts[place - 1] = number
        elif before_one:
            self._firsts[place] = number
        else:
            self._firsts.insert(place, number)
            self._lasts.insert(place, number)

    def take_below(self, number: int) -> list[tuple[int, int]]:
        """Take out the ranges that lie below a number that is in none of them."""
        place = bisect_right(self._firsts, number)
        taken = list(zip(self._firsts[:place], self._lasts[:place], strict=True))
        del self._firsts[:place], self._lasts[:place]
        return taken
