"""Resolvers, which find the thread of an event. Startup creates the bridge with one resolver."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Final, Protocol

import msgspec

from bridgekit.events import AgentEvent
from bridgekit.ids import RunId, ThreadId

__all__ = ["OTHER_THREAD", "Carried", "MappingLookup", "NoRoute", "Resolver", "Route", "route_of"]


class NoRoute(msgspec.Struct, frozen=True):
    """The result of a resolver that found no thread."""

    reason: str


_CARRIES_NONE: Final = NoRoute("the event carries no thread")
_NOT_MAPPED: Final = NoRoute("the run is not in the mapping")
OTHER_THREAD: Final = NoRoute("the event carries another thread than its run's")


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
    """Returns the thread that the event carries, usually without a lookup.

    A caller outside the chain may pass a wrong thread, so an event that carries a thread other than its run's gets no
    route. The run's thread comes from `known` or, if other workers open runs too (`shared`), from the resolver
    `otherwise`. `otherwise` also finds the thread of an event that carries none.
    """

    def __init__(
        self,
        otherwise: Resolver | None = None,
        *,
        known: Mapping[RunId, ThreadId] | None = None,
        shared: bool = False,
    ) -> None:
        self._otherwise = otherwise
        self._known = {} if known is None else known
        self._checked = otherwise if shared else None

    def resolve(self, event: AgentEvent) -> Route | Awaitable[Route]:
        if (thread_id := event.thread_id) is not None:
            known, run_id = self._known, event.run_id
            if run_id in known:
                return thread_id if known[run_id] == thread_id else OTHER_THREAD
            return thread_id if self._checked is None else self._check(self._checked, event, thread_id)
        return _CARRIES_NONE if self._otherwise is None else self._look_up(self._otherwise, event)

    async def _check(self, otherwise: Resolver, event: AgentEvent, thread_id: ThreadId) -> Route:
        found = await route_of(otherwise, event)
        return thread_id if isinstance(found, NoRoute) or found == thread_id else OTHER_THREAD

    async def _look_up(self, otherwise: Resolver, event: AgentEvent) -> Route:
        found = await route_of(otherwise, event)
        return NoRoute(f"{_CARRIES_NONE.reason}; {found.reason}") if isinstance(found, NoRoute) else found


class MappingLookup:
    """Looks up the event's run id in the mapping service: the audit's Fix 3."""

    def __init__(self, mapping: Routes) -> None:
        self._mapping = mapping

    async def resolve(self, event: AgentEvent) -> Route:
        return await self._mapping.get_thread_id(event.run_id) or _NOT_MAPPED
