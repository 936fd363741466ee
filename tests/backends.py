"""The two async backends, each as a row."""

from __future__ import annotations

import asyncio
import math
from typing import Any, Final

__all__ = ["ASYNCIO", "TRIO"]


def _unhurried() -> asyncio.AbstractEventLoop:
    """A loop that does not complain of slow callbacks: they are the machine's affair, and tests read the log."""
    loop = asyncio.new_event_loop()
    loop.slow_callback_duration = math.inf
    return loop


# asyncio's debug mode reports calls from a wrong thread, and where a coroutine was lost.
ASYNCIO: Final[tuple[str, dict[str, Any]]] = ("asyncio", {"debug": True, "loop_factory": _unhurried})
TRIO: Final[tuple[str, dict[str, Any]]] = ("trio", {})
