"""The values that the scenario sends: strings that are easily damaged in transit, and events of every type."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Final

from bridgekit.events import EventType

__all__ = ["EMISSIONS", "NESTED", "RESULTS", "TEXT", "EventArguments"]

TEXT: Final = (
    "  \t\U0001f6f0\ufe0f 𝔘𠜎 é e\u0301 ﬁ Ж 東京 עברית العربية \u200d\ufeff\u2028 \x00\x1b[1m\x1f\x7f \\ \\u0041 ' \""
    " </script> &amp; %20 %s {} ${x} **b** true  12 \r\n\n "
)
"""Text that is often damaged: spaces at both ends, characters beyond U+FFFF, composed and decomposed characters, text
from right to left, control characters, quotes, markup, and placeholders of templates and shells."""
EVERY_BLOCK: Final = "".join(
    map(
        chr,
        (*range(0x250), *range(0x250, 0xD800, 0x20), *range(0xE000, 0x10000, 0x40), *range(0x10000, 0x110000, 0x400)),
    )
)
"""All characters up to U+024F, and a sample of all other characters at regular intervals."""
NESTED: Final[dict[str, Any]] = {
    f"z {TEXT}": [1, 1.0, -0.0, 0.1 + 0.2, 1e-300, 2**53 + 1, -(2**63), True, False, None, TEXT],
    "a": {"": {"deep": [[], {}, [{"list": [TEXT, [TEXT]]}]]}},
    "same": "1",
    "Same": 1,
    "_private $key.name": ["null", "true", "", "NaN", "2025-09-01", " ", "0x1F"],
    "password": "token=sk-0123456789abcdef",
}
"""A payload with unsorted keys and every kind of JSON value."""


def _deep(levels: int) -> Any:
    return TEXT if not levels else {"level": [_deep(levels - 1)]}


WIDE: Final[dict[str, Any]] = {
    "items": list(range(300)),
    "keys": {f"key {number}": number for number in range(120)},
    "deep": _deep(40),
}
"""A value with many items, many keys and many levels."""
RESULTS: Final[tuple[Any, ...]] = (None, "", 0, False, [], {}, 0.0, WIDE)
"""Results of runs, including every JSON value that is false in Python."""


@dataclass(frozen=True)
class EventArguments:
    """One event: its type, and the arguments of the method that emits it."""

    type: EventType
    arguments: dict[str, Any]

    def by(self, emitter: Any) -> Any:
        """Call the `emit_*` method of an agent or an adapter."""
        name = _SHORT_NAMES.get(self.type, self.type)
        return getattr(emitter, f"emit_{name}")(**copy.deepcopy(self.arguments))

    def notify(self, bridge: Any, run_id: str, agent_name: str) -> Any:
        """Call the `notify_*` method of a bridge, with only the run id."""
        return getattr(bridge, f"notify_{self.type}")(run_id, agent_name, **copy.deepcopy(self.arguments))


_SHORT_NAMES: Final = {
    EventType.AGENT_THINKING: "thinking",
    EventType.AGENT_ERROR: "error",
    EventType.PROGRESS_UPDATE: "progress",
    EventType.TEXT_DELTA: "text",
}
_CALL: Final = {"tool_name": "look.up \U0001f52d", "tool_call_id": f"call {TEXT}"}
_NO_NAMES: Final = {"tool_name": "", "tool_call_id": ""}
_ARGUMENTS: Final[dict[EventType, tuple[dict[str, Any], ...]]] = {
    EventType.AGENT_STARTED: ({"message": TEXT, "context": NESTED}, {}, {"message": "", "context": {}}),
    EventType.AGENT_THINKING: (
        {"reasoning": EVERY_BLOCK, "step_number": 7, "progress_percentage": 99.5},
        {"reasoning": TEXT},
        {"reasoning": "", "step_number": 0, "progress_percentage": 0.0},
    ),
    EventType.TOOL_EXECUTING: (
        {**_CALL, "parameters": NESTED},
        {"tool_name": EVERY_BLOCK, "tool_call_id": "call 2"},
        {**_NO_NAMES, "parameters": {}},
    ),
    EventType.TOOL_COMPLETED: (
        {**_CALL, "result": NESTED, "execution_time_ms": 0.1 + 0.2, "status": "error"},
        {"tool_name": "look_up", "tool_call_id": EVERY_BLOCK},
        {**_NO_NAMES, "result": "", "execution_time_ms": 0.0, "status": ""},
    ),
    EventType.AGENT_COMPLETED: (
        {"result": NESTED, "execution_time_ms": 1.5},
        {},
        {"result": 0, "execution_time_ms": 0.0},
        {"result": {"every": EVERY_BLOCK, **WIDE}},
    ),
    EventType.AGENT_ERROR: (
        {"error_message": TEXT, "error_context": NESTED},
        {"error_message": ""},
        {"error_message": EVERY_BLOCK, "error_context": {}},
    ),
    EventType.PROGRESS_UPDATE: ({"progress": {}}, {"progress": NESTED}, {"progress": {"every": [EVERY_BLOCK]}}),
    EventType.TEXT_DELTA: (
        {"delta": TEXT, "message_id": f"message {TEXT}"},
        {"delta": "", "message_id": ""},
        {"delta": EVERY_BLOCK, "message_id": "message 2"},
    ),
}
EMISSIONS: Final = tuple(EventArguments(kind, arguments) for kind, rows in _ARGUMENTS.items() for arguments in rows)
"""Events of every type: with all arguments, with only the required ones, and with values that are false in Python."""
