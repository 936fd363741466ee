"""A coroutine whose first step ran outside of the `await` that runs the rest."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from typing import Any

__all__ = ["ResumedCoroutine"]


class ResumedCoroutine(Generator[Any, Any, None]):
    """Awaits the rest of a coroutine whose first step has run. Await it in the task that ran the first step."""

    __slots__ = ("_coroutine", "_run", "_started", "_waits_for")

    def __init__(self, context: Context, coroutine: Coroutine[Any, Any, None], waits_for: object) -> None:
        self._run: Callable[..., Any] = context.run
        self._coroutine = coroutine
        self._waits_for = waits_for
        self._started = False

    def __await__(self) -> Generator[Any, Any, None]:
        return self

    def send(self, value: object) -> object:
        """Run the next step with the event loop's value. The first call returns what the coroutine already waits
        for."""
        if not self._started:
            self._started = True
            return self._waits_for
        return self._run(self._coroutine.send, value)

    def throw(self, *error: Any) -> object:
        return self._run(self._coroutine.throw, *error)
