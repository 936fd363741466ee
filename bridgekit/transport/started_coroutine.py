"""Awaits the rest of a coroutine, in the context in which its first step ran."""

from __future__ import annotations

import types
from collections.abc import Coroutine, Generator
from contextvars import Context
from functools import partial
from typing import Any

__all__ = ["resumed"]


@types.coroutine
def resumed(context: Context, coroutine: Coroutine[Any, Any, None], waits_for: object) -> Generator[Any, Any, None]:
    """Run the rest of a coroutine whose first step yielded `waits_for`. Await this in the task that ran the first
    step."""
    while True:
        try:
            value = yield waits_for
        except BaseException as error:  # noqa: BLE001  # passed to the coroutine
            step = partial(coroutine.throw, error)
        else:
            step = partial(coroutine.send, value)
        try:
            waits_for = context.run(step)
        except StopIteration:
            return
