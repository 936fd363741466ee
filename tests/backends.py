"""The two async backends, as parameters of the `anyio_backend` fixture."""

from __future__ import annotations

import asyncio
import math
import os
from typing import Any, Final

__all__ = ["ASYNCIO", "TRIO"]


def _loop_without_slow_callback_warnings() -> asyncio.AbstractEventLoop:
    """Return an event loop that logs no slow callbacks. They depend on the machine, and tests read the log."""
    loop = asyncio.new_event_loop()
    loop.slow_callback_duration = math.inf
    return loop


# asyncio's debug mode reports calls from a wrong thread and coroutines that were never awaited. It takes a third of the
# CPU time, so that `make unit` turns it off.
_DEBUG: Final = os.environ.get("TESTS_ASYNCIO_DEBUG") != "0"
ASYNCIO: Final[tuple[str, dict[str, Any]]] = (
    "asyncio",
    {"debug": _DEBUG, "loop_factory": _loop_without_slow_callback_warnings},
)
TRIO: Final[tuple[str, dict[str, Any]]] = ("trio", {})
