"""The parameters of the two async backends."""

from __future__ import annotations

import asyncio
import math
from typing import Any, Final

__all__ = ["ASYNCIO", "TRIO"]


def _loop_without_slow_callback_warnings() -> asyncio.AbstractEventLoop:
    """Create a loop that does not log slow callbacks: they depend on the machine, and tests check the log."""
    loop = asyncio.new_event_loop()
    loop.slow_callback_duration = math.inf
    return loop


# asyncio's debug mode reports calls from a wrong thread, and coroutines that were never awaited.
ASYNCIO: Final[tuple[str, dict[str, Any]]] = (
    "asyncio",
    {"debug": True, "loop_factory": _loop_without_slow_callback_warnings},
)
TRIO: Final[tuple[str, dict[str, Any]]] = ("trio", {})
