"""Run coroutines that never wait, without an event loop. Other benchmarks measure the cost of an event loop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

__all__ = ["Timer", "finished"]

T = TypeVar("T")


class Timer(Protocol):
    """The `benchmark` fixture of pytest-benchmark."""

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
    """Return the result of an awaitable that never waits. Raises RuntimeError if the coroutine waits."""
    coroutine = awaitable.__await__()
    try:
        next(coroutine)
    except StopIteration as end:
        result: T = end.value
        return result
    raise RuntimeError("the awaitable waits: run it on an event loop")
