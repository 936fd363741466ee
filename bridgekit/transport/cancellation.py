"""Finds the current event loop, and distinguishes the cancellation of a task from an exception that a callback
raises."""

from __future__ import annotations

import asyncio
import math
import threading
from asyncio import _get_running_loop

import anyio

from bridgekit.errors import WrongEventLoop

__all__ = ["current_loop", "ends_task", "is_cancelled", "require_loop"]


def current_loop() -> object:
    """Return the running event loop of asyncio, or the id of the OS thread if there is none."""
    return _get_running_loop() or threading.get_ident()


def require_loop(home: object, store: str) -> None:
    """Raise WrongEventLoop if the caller is not on the event loop on which the store was opened."""
    if current_loop() != home:
        raise WrongEventLoop(f"a method of the {store} store")


def ends_task(error: BaseException) -> bool:
    """Return whether the error ends the current task, because the task is cancelled or its coroutine is being closed.

    A callback may raise asyncio's CancelledError itself, for example by awaiting a future that was cancelled. Such an
    error does not end the task.
    """
    if issubclass(type(error), Exception):
        return False
    return issubclass(type(error), GeneratorExit) or is_cancelled()


def is_cancelled() -> bool:
    """Return whether the current task has been cancelled."""
    if anyio.current_effective_deadline() == -math.inf:
        return True
    task = asyncio.current_task() if _get_running_loop() is not None else None
    return task is not None and task.cancelling() > 0
