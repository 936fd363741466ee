"""Waiting for one thing that happens once, in whatever way costs the event loop least."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any, Protocol

import anyio

__all__ = ["Bell", "bell"]


class Bell(Protocol):
    """Rung once. Whoever awaits it goes on from then on; one task does."""

    def ring(self) -> None:
        """Rung again, or with nobody there any more, it does nothing."""

    def __await__(self) -> Generator[Any, Any, None]: ...


class _OnAsyncio(asyncio.Future[None]):
    """A future costs a third of what an anyio event does, and there is one for each event of an agent."""

    def ring(self) -> None:
        if not self.done():
            self.set_result(None)


class _Elsewhere:
    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = anyio.Event()

    def ring(self) -> None:
        self._event.set()

    def __await__(self) -> Generator[Any, Any, None]:
        return self._event.wait().__await__()


def bell() -> Bell:
    """A bell of the loop that runs here."""
    try:
        return _OnAsyncio(loop=asyncio.get_running_loop())
    except RuntimeError:
        return _Elsewhere()
