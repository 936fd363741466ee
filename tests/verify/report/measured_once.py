"""Measurements that several tests use and none changes: each is made only once in a process, and its forks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, Generic, TypeVar

import anyio

__all__ = ["MeasuredOnce", "measure_all"]

T = TypeVar("T")


class MeasuredOnce(Generic[T]):
    """A measurement: await a call to make it, or to get its result."""

    def __init__(self, measurement: Callable[[], Awaitable[T]]) -> None:
        self._measurement = measurement
        self._results: list[T] = []
        PLANNED.append(self)

    async def __call__(self) -> T:
        if not self._results:
            self._results.append(await self._measurement())
        return self._results[0]


PLANNED: Final[list[MeasuredOnce[Any]]] = []


def measure_all() -> None:
    """Make every measurement of the imported tests. Mutation testing calls this before it forks."""
    for measurement in PLANNED:
        anyio.run(partial(measurement))
