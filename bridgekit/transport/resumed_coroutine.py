"""A coroutine that has taken its first step outside of the task that awaits the rest."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from typing import Any

__all__ = ["ResumedCoroutine"]


class ResumedCoroutine(Generator[Any, Any, None]):
    """The rest of a coroutine that has taken its first step, to be awaited in the task in which it took it."""

    __slots__ = ("_begun", "_coroutine", "_run", "_waits_for")

    def __init__(self, context: Context, coroutine: Coroutine[Any, Any, None], waits_for: object) -> None:
        self._run: Callable[..., Any] = context.run
        self._coroutine = coroutine
        self._waits_for = waits_for
        self._begun = False

    def __await__(self) -> Generator[Any, Any, None]:
        return self

    def send(self, value: object) -> object:
        """The next step, with what the event loop answers. The first one was taken: return what it waits for."""
        if not self._begun:
            self._begun = True
            return self._waits_for
        return self._run(self._coroutine.send, value)

    def throw(self, *error: Any) -> object:
        return self._run(self._coroutine.throw, *error)
