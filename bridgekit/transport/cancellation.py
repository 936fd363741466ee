"""Distinguishes the cancellation of a task from an exception that an application's callback raises in it."""

from __future__ import annotations

import asyncio
import math
from asyncio import _get_running_loop

import anyio

__all__ = ["ends_task"]


def ends_task(error: BaseException) -> bool:
    """Return whether the error ends the current task: it is cancelled, or its coroutine is being closed.

    A callback may raise asyncio's CancelledError itself, for example by awaiting a future that was cancelled. The task
    then continues, and the error is the callback's.
    """
    if issubclass(type(error), Exception):
        return False
    if issubclass(type(error), GeneratorExit) or anyio.current_effective_deadline() == -math.inf:
        return True
    task = asyncio.current_task() if _get_running_loop() is not None else None
    return task is not None and task.cancelling() > 0
