"""Counts task switches on event loops whose timers do not fire, and waits until a server has no pending work."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import Context
from dataclasses import dataclass
from typing import Any, Final, TypeVarTuple

import anyio
import trio

__all__ = ["CountingLoop", "Switches", "switches", "wait_settled"]

MAX_ITERATIONS: Final = 10_000
"""A loop that is not idle after this many iterations is considered stuck."""

Arguments = TypeVarTuple("Arguments")


@dataclass
class Switches:
    """Steps and callbacks of an event loop, without those of the counting task."""

    steps: int = 0
    """How often another task was started or resumed."""
    callbacks: int = 0
    """Callbacks that are not task steps; asyncio only."""


class CountingLoop(asyncio.SelectorEventLoop):
    """Counts scheduled callbacks. Its clock stops while it counts, so that no timer fires."""

    def __init__(self) -> None:
        super().__init__()
        self.scheduled = 0
        self.counted: Switches | None = None
        self._counts_for: asyncio.Task[Any] | None = None
        self._begun_at = super().time()

    @classmethod
    def running(cls) -> CountingLoop:
        """Return the running loop. Raises RuntimeError without an asyncio loop, and TypeError for another class."""
        loop = asyncio.get_running_loop()
        if not isinstance(loop, cls):
            raise TypeError(f"task switches can be counted only on a CountingLoop, not on {type(loop).__name__}")
        return loop

    def time(self) -> float:
        # While counting, return a time before every timer, including timers that are already due.
        return super().time() if self.counted is None else self._begun_at

    def call_soon(
        self, callback: Callable[[*Arguments], object], *args: *Arguments, context: Context | None = None
    ) -> asyncio.Handle:
        self.scheduled += 1
        if self.counted is not None:
            self._count(callback)
        return super().call_soon(callback, *args, context=context)

    def _count(self, callback: object) -> None:
        assert self.counted is not None
        # A task step is a bound method of its task; asyncio uses the same test for its slow-callback message.
        task = getattr(callback, "__self__", None)
        if not isinstance(task, asyncio.Task):
            self.counted.callbacks += 1
        elif task is not self._counts_for:
            self.counted.steps += 1

    @contextmanager
    def counting(self) -> Iterator[Switches]:
        self._counts_for = asyncio.current_task()
        self.counted = Switches()
        try:
            yield self.counted
        finally:
            self.counted = self._counts_for = None


class _Steps(trio.abc.Instrument):
    def __init__(self) -> None:
        self.counted = Switches()
        self._counts_for = trio.lowlevel.current_task()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.counted.steps += task is not self._counts_for


@contextmanager
def switches() -> Iterator[Switches]:
    """Count task switches in the block on either backend, without those of the calling task."""
    loop = _counting_loop()
    if loop is not None:
        with loop.counting() as counted:
            yield counted
        return
    steps = _Steps()
    trio.lowlevel.add_instrument(steps)
    try:
        yield steps.counted
    finally:
        trio.lowlevel.remove_instrument(steps)


async def wait_settled() -> None:
    """Wait until no task can continue without a timer or a peer's action."""
    loop = _counting_loop()
    if loop is None:
        await anyio.wait_all_tasks_blocked()
        return
    quiet = 0
    for _ in range(MAX_ITERATIONS):
        scheduled = loop.scheduled
        await asyncio.sleep(0)
        # One callback belongs to this task. Socket events appear one iteration later.
        quiet = quiet + 1 if loop.scheduled == scheduled + 1 else 0
        if quiet == 3:
            return
    raise RuntimeError(f"the loop did not become idle within {MAX_ITERATIONS:,} iterations")


def _counting_loop() -> CountingLoop | None:
    """Return the running asyncio loop; None on trio."""
    try:
        return CountingLoop.running()
    except RuntimeError:
        return None
