"""Resolvers: strategies that find the thread of an event. The bridge is created with one of them."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Final, Protocol

import msgspec

from bridgekit.events import AgentEvent
from bridgekit.ids import RunId, ThreadId

__all__ = ["Carried", "FirstOf", "MappingLookup", "NoRoute", "ReportParser", "Resolver", "Route", "route_of"]


class NoRoute(msgspec.Struct, frozen=True):
    """The result of a resolver that found no thread."""

    reason: str


_CARRIES_NONE: Final = NoRoute("the event carries no thread")
_NOT_MAPPED: Final = NoRoute("the run is not in the mapping")
_OTHER_THREAD: Final = NoRoute("the event carries another thread than its run's")


Route = ThreadId | NoRoute
"""The result of a resolver."""


class Resolver(Protocol):
    """Finds the thread of an event."""

    def resolve(self, event: AgentEvent) -> Route | Awaitable[Route]:
        """Return the thread, or NoRoute with the reason, or an awaitable of either. It must never guess."""


async def route_of(resolver: Resolver, event: AgentEvent) -> Route:
    """Return the resolver's result, awaiting it if necessary."""
    route = resolver.resolve(event)
    return route if isinstance(route, (str, NoRoute)) else await route


class Routes(Protocol):
    """The part of a mapping service that a resolver uses."""

    async def get_thread_id(self, run_id: RunId) -> ThreadId | None: ...


class Carried:
    """Returns the thread that the event carries. The run's context has put it there, so there is nothing to look up.

    A caller outside the chain may be mistaken: an event of one of the `known` runs is not published in another thread.
    For an event without a thread, the resolver `otherwise` decides. The result equals that of
    `FirstOf(Carried(), otherwise)`, at a third of the cost.
    """

    def __init__(self, otherwise: Resolver | None = None, *, known: Mapping[RunId, ThreadId] | None = None) -> None:
        self._otherwise = otherwise
        self._known = {} if known is None else known

    def resolve(self, event: AgentEvent) -> Route | Awaitable[Route]:
        if (thread_id := event.thread_id) is not None:
            known, run_id = self._known, event.run_id
            return _OTHER_THREAD if run_id in known and known[run_id] != thread_id else thread_id
        return _CARRIES_NONE if self._otherwise is None else self._look_up(self._otherwise, event)

    async def _look_up(self, otherwise: Resolver, event: AgentEvent) -> Route:
        found = await route_of(otherwise, event)
        return NoRoute(f"{_CARRIES_NONE.reason}; {found.reason}") if isinstance(found, NoRoute) else found


class MappingLookup:
    """Looks up the event's run id in the mapping service: the audit's Fix 3."""

    def __init__(self, mapping: Routes) -> None:
        self._mapping = mapping

    async def resolve(self, event: AgentEvent) -> Route:
        return await self._mapping.get_thread_id(event.run_id) or _NOT_MAPPED


class ReportParser:
    """Parses the thread out of the run id, as the bridge does as committed, and as Fix 2 does again.

    The parser splits the run id at underscores and keeps only the segment after the first `thread`. It therefore
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
