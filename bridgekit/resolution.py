"""Where an event belongs: each strategy is a small class, and the bridge is given one of them."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Final, Protocol

import msgspec

from bridgekit.events import AgentEvent
from bridgekit.ids import RunId, ThreadId

__all__ = ["Carried", "FirstOf", "MappingLookup", "NoRoute", "ReportParser", "Resolver", "Route", "route_of"]


class NoRoute(msgspec.Struct, frozen=True):
    """No thread was found, and why."""

    reason: str


_CARRIES_NONE: Final = NoRoute("the event carries no thread")
_NOT_MAPPED: Final = NoRoute("the run is not in the mapping")


Route = ThreadId | NoRoute


class Resolver(Protocol):
    """Finds the thread of an event."""

    def resolve(self, event: AgentEvent) -> Route | Awaitable[Route]:
        """Return the thread, or the reason why there is none; or an awaitable that gives either. Never guesses."""


async def route_of(resolver: Resolver, event: AgentEvent) -> Route:
    """What the resolver finds, whether it has to be awaited or not."""
    route = resolver.resolve(event)
    return route if isinstance(route, (str, NoRoute)) else await route


class Routes(Protocol):
    """What a resolver needs of a mapping service."""

    async def get_thread_id(self, run_id: RunId) -> ThreadId | None: ...


class Carried:
    """The thread stands in the event, put there by the run's own context: nothing has to be found out.

    Of an event that carries none, `otherwise` is asked: what `FirstOf` of the two would answer, at a third of its cost.
    """

    def __init__(self, otherwise: Resolver | None = None) -> None:
        self._otherwise = otherwise

    def resolve(self, event: AgentEvent) -> Route | Awaitable[Route]:
        return event.thread_id or (_CARRIES_NONE if self._otherwise is None else self._look_up(self._otherwise, event))

    async def _look_up(self, otherwise: Resolver, event: AgentEvent) -> Route:
        found = await route_of(otherwise, event)
        return NoRoute(f"{_CARRIES_NONE.reason}; {found.reason}") if isinstance(found, NoRoute) else found


class MappingLookup:
    """The thread stands in the mapping service, under the run id: the audit's Fix 3."""

    def __init__(self, mapping: Routes) -> None:
        self._mapping = mapping

    async def resolve(self, event: AgentEvent) -> Route:
        return await self._mapping.get_thread_id(event.run_id) or _NOT_MAPPED


class ReportParser:
    """The thread is read out of the run id, as the audited bridge does and as Fix 2 repeats.

    Of the words between underscores the one after the first "thread" is taken for the whole rest of the thread
    id. So `run_thread_alice_smith_1f2e3d4c` gives `thread_alice`, which may be somebody else's.
    """

    def resolve(self, event: AgentEvent) -> Route:
        words = event.run_id.split("_")
        if "thread" not in words[:-1]:
            return NoRoute("the run id names no thread")
        return ThreadId(f"thread_{words[words.index('thread') + 1]}")


class FirstOf:
    """The first strategy that finds a thread."""

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
