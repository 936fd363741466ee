"""The parameters of the two async backends."""

from __future__ import annotations

import asyncio
import math
from typing import Any, Final

__all__ = ["ASYNCIO", "TRIO"]


def _quiet_loop() -> asyncio.AbstractEventLoop:
    """Return a loop without slow-callback warnings, because they depend on the machine and tests check the log."""
    loop = asyncio.new_event_loop()
    loop.slow_callback_duration = math.inf
    return loop


# asyncio's debug mode reports calls from a wrong thread and where an unawaited coroutine was created.
ASYNCIO: Final[tuple[str, dict[str, Any]]] = ("asyncio", {"debug": True, "loop_factory": _quiet_loop})
TRIO: Final[tuple[str, dict[str, Any]]] = ("trio", {})
