"""Find the link that raised an error, from the class of the object whose method raised it.

A broken link is a subclass that any module may define, so its base class identifies the link. The suite's own
subclasses, which only record calls, are recognized by their module.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import CodeType, FrameType
from typing import Final

from bridgekit.chain.link_1_startup import start_application
from bridgekit.chain.link_2_supervisor_agent import SupervisorAgent
from bridgekit.chain.link_3_registry import AgentRegistry
from bridgekit.chain.link_4_engine import ExecutionEngine
from bridgekit.chain.link_5_execution_core import AgentExecutionCore
from bridgekit.chain.link_6_base_agent import BaseAgent
from bridgekit.chain.link_7_8_adapter import WebSocketBridgeAdapter
from bridgekit.chain.link_9_bridge import AgentWebSocketBridge
from bridgekit.transport.hub import Hub
from bridgekit_verify.measure.calls import PASSING_ON

__all__ = ["link_of_error", "raised_by_harness"]

LINK_OF_KIND: Final[tuple[tuple[type, int], ...]] = (
    (SupervisorAgent, 2),
    (AgentRegistry, 3),
    (ExecutionEngine, 4),
    (AgentExecutionCore, 5),
    (BaseAgent, 6),
    (WebSocketBridgeAdapter, 8),
    (AgentWebSocketBridge, 9),
    (Hub, 10),
)
STARTUP: Final[CodeType] = start_application.__code__
SUITE: Final = "bridgekit_verify"
DEFECTS: Final = frozenset(
    {
        "bridgekit_verify.as_committed",
        "bridgekit_verify.validation.broken_links_6_to_8",
        "bridgekit_verify.validation.broken_links_1_to_5",
        "bridgekit_verify.validation.broken_links_9_and_10",
    }
)
"""The suite's modules that define broken links.

Traceback frames in the suite's other modules belong to the harness, even if the frame's class is derived from a link.
"""


def link_of_error(error: BaseException) -> int | None:
    """Return the innermost link in the traceback of the error, or None if the traceback contains no link."""
    return next((link for frame in _innermost_first(error) if (link := _link_at(frame)) is not None), None)


def raised_by_harness(error: BaseException) -> bool:
    """Return whether the harness, and not a link, raised the error. Return True if the traceback contains no link."""
    for frame in _innermost_first(error):
        if _link_at(frame) is not None:
            return False
        if _is_harness(frame):
            return True
    return True


def _innermost_first(error: BaseException) -> Iterator[FrameType]:
    frames, step = [], error.__traceback__
    while step is not None:
        # Frames that only pass a call on are skipped, so that a missing argument counts as the caller's error.
        if step.tb_frame.f_code not in PASSING_ON:
            frames.append(step.tb_frame)
        step = step.tb_next
    return reversed(frames)


def _link_at(frame: FrameType) -> int | None:
    if frame.f_code is STARTUP:
        return 1
    if _is_harness(frame):
        return None
    owner = frame.f_locals.get("self")
    link = next((number for kind, number in LINK_OF_KIND if isinstance(owner, kind)), None)
    return 7 if link == 8 and frame.f_code.co_name == "set_websocket_bridge" else link


def _is_harness(frame: FrameType) -> bool:
    module = frame.f_globals.get("__name__", "")
    return module.partition(".")[0] == SUITE and module not in DEFECTS
