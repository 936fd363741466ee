"""The two async backends, as parameters of the `anyio_backend` fixture."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import Any, Final, TypeVarTuple

__all__ = ["ASYNCIO", "TRIO", "CheckedEventLoop"]

Arguments = TypeVarTuple("Arguments")


class CheckedEventLoop(asyncio.SelectorEventLoop):
    """An event loop that raises an error on a call from another thread, as in asyncio's debug mode.

    Debug mode would also record a traceback of every callback, task and future. That takes a third of the CPU time of
    the tests, and finds no further mistake: a coroutine that was never awaited causes a warning in either mode.
    """

    def call_soon(
        self, callback: Callable[[*Arguments], object], *args: *Arguments, context: Context | None = None
    ) -> asyncio.Handle:
        self._refuse_other_threads()
        return super().call_soon(callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[[*Arguments], object], *args: *Arguments, context: Context | None = None
    ) -> asyncio.TimerHandle:
        self._refuse_other_threads()
        return super().call_at(when, callback, *args, context=context)

    def _refuse_other_threads(self) -> None:
        if asyncio._get_running_loop() is not self and self.is_running():
            raise RuntimeError("called from another thread than the event loop's: use call_soon_threadsafe")


ASYNCIO: Final[tuple[str, dict[str, Any]]] = ("asyncio", {"loop_factory": CheckedEventLoop})
TRIO: Final[tuple[str, dict[str, Any]]] = ("trio", {})
