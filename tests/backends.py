"""The two async backends, as parameters of the `anyio_backend` fixture."""

from __future__ import annotations

import asyncio
import math
import os
from typing import Any, Final

__all__ = ["ASYNCIO", "ASYNCIO_WITHOUT_DEBUG", "TRIO"]


def _loop_without_slow_callback_warnings() -> asyncio.AbstractEventLoop:
    """Return an event loop that logs no slow callbacks. They depend on the machine, and tests read the log."""
    loop = asyncio.new_event_loop()
    loop.slow_callback_duration = math.inf
    return loop


def _asyncio(*, debug: bool) -> tuple[str, dict[str, Any]]:
    return "asyncio", {"debug": debug, "loop_factory": _loop_without_slow_callback_warnings}


# asyncio's debug mode reports calls from a wrong thread and coroutines that were never awaited. It takes most of the
# CPU time of a test that emits many events, so that `make unit` turns it off.
ASYNCIO: Final = _asyncio(debug=os.environ.get("TESTS_ASYNCIO_DEBUG") != "0")
ASYNCIO_WITHOUT_DEBUG: Final = _asyncio(debug=False)
"""For suites of many events whose code other suites test in debug mode."""
TRIO: Final[tuple[str, dict[str, Any]]] = ("trio", {})
