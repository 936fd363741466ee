"""Run-id schemes and resolvers that only the audited code and the audit's fixes use."""

from __future__ import annotations

import secrets

from bridgekit.events import AgentEvent
from bridgekit.ids import HexSource, RunId, ThreadId
from bridgekit.thread_resolvers import NoRoute, Resolver, Route, route_of

__all__ = ["EmbeddedRunIds", "FirstOf", "OpaqueRunIds", "ReportParser"]


def _secret_digits(digits: int) -> str:
    return secrets.token_hex(digits)[:digits]


class OpaqueRunIds:
    """Run ids as committed: `run_` and 12 hexadecimal digits. The run id does not contain the thread id."""

    def __init__(self, hex_source: HexSource = _secret_digits) -> None:
        self._hexadecimal = hex_source

    def new(self, thread_id: ThreadId) -> RunId:
        return RunId(f"run_{self._hexadecimal(12)}")


class EmbeddedRunIds:
    """`run_{thread_id}_` and 8 hexadecimal digits: the audit's Fix 1.

    A parser can recover the thread id only if it knows where the thread id ends. The 32 random bits collide with a
    probability of 0.5 after about 77,000 runs of one thread (birthday bound).
    """

    def __init__(self, hex_source: HexSource = _secret_digits) -> None:
        self._hexadecimal = hex_source

    def new(self, thread_id: ThreadId) -> RunId:
        return RunId(f"run_{thread_id}_{self._hexadecimal(8)}")


class ReportParser:
    """Extracts a thread id from the run id, as the committed bridge and Fix 2 do.

    The parser splits the run id at underscores and keeps only the segment after the first `thread`. For example, it
    resolves `run_thread_alice_smith_1f2e3d4c` to `thread_alice`, which may belong to another user.
    """

    def resolve(self, event: AgentEvent) -> Route:
        segments = event.run_id.split("_")
        if "thread" not in segments[:-1]:
            return NoRoute("the run id names no thread")
        return ThreadId(f"thread_{segments[segments.index('thread') + 1]}")


class FirstOf:
    """Tries several resolvers in order and returns the first thread found, or NoRoute with all reasons."""

    def __init__(self, *resolvers: Resolver) -> None:
        self._resolvers = resolvers

    async def resolve(self, event: AgentEvent) -> Route:
        reasons = []
        for resolver in self._resolvers:
            found = await route_of(resolver, event)
            if not isinstance(found, NoRoute):
                return found
            reasons.append(found.reason)
        return NoRoute("; ".join(reasons))
