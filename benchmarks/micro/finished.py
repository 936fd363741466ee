"""Coroutines that never wait, run to their end without a loop: what a loop costs is measured elsewhere."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

__all__ = ["Timer", "finished"]

T = TypeVar("T")


class Timer(Protocol):
    """What pytest-benchmark gives a test."""

    extra_info: dict[str, object]

    def __call__(self, function: Callable[..., object], *arguments: object) -> object: ...

    def pedantic(
        self,
        target: Callable[..., object],
        args: tuple[object, ...] = (),
        *,
        rounds: int = 1,
    ) -> object: ...


def finished(awaitable: Awaitable[T]) -> T:
    """The result of what does not wait. RuntimeError where it does."""
    coroutine = awaitable.__await__()
    try:
        next(coroutine)
    except StopIteration as end:
        result: T = end.value
        return result
    raise RuntimeError("it waits")
