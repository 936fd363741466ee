"""Select the observed calls that concern one event, and find the links' mistakes in these calls.

Objects are numbered in the order of their first appearance, so that two bridges have two names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from bridgekit.chain.self_check import SelfCheck
from bridgekit.errors import DeterministicStartupError
from bridgekit.events import AgentEvent, Outcome, Receipt
from bridgekit.ids import RunId, ThreadId, UserId
from bridgekit_verify.measure.attribution import EMITTED_BY_CORE, Attribution
from bridgekit_verify.measure.calls import LinkCall
from bridgekit_verify.measure.error_origin import link_of_error
from bridgekit_verify.measure.history import Arrival, BridgeBinding, EventKey

__all__ = ["EventCalls", "Names", "Problem", "cause", "error_text", "problems", "short"]

ID_CHARACTERS: Final = 20
RUN_ID_CHARACTERS: Final = 40
"""Maximum length of a shown run id, which leaves room for a thread id within the run id. Longer ids are shortened."""


class Names:
    """Short names for the objects and ids of a trace."""

    def __init__(self, runs: Iterable[RunId]) -> None:
        self._runs = {run_id: f"run {number}" for number, run_id in enumerate(runs, 1)}
        self._numbers: dict[str, dict[int, int]] = {}

    def number(self, kind: str, identity: int | None) -> str:
        """Return the kind of an object and its number, such as "bridge 2", or "no bridge" for None."""
        if identity is None:
            return f"no {kind}"
        numbers = self._numbers.setdefault(kind, {})
        return f"{kind} {numbers.setdefault(identity, len(numbers) + 1)}"

    def run(self, run_id: RunId) -> str:
        """Return the number of the run, or its shortened id if the supervisor created no such run."""
        return self._runs.get(run_id, short(run_id))

    def run_with_id(self, run_id: RunId) -> str:
        """Return the number of the run and its shortened id, or only the id if the supervisor created no such run."""
        text = short(run_id, RUN_ID_CHARACTERS)
        return f"{self._runs[run_id]} ({text})" if run_id in self._runs else text

    def binding(self, binding: BridgeBinding) -> str:
        """Return the names of bridge, run and thread as one text."""
        parts = [self.number("bridge", binding.bridge), self.run(binding.run_id)]
        return ", ".join(parts if binding.thread_id is None else [*parts, short(binding.thread_id)])


def short(value: str, limit: int = ID_CHARACTERS) -> str:
    """Return an id with at most `limit` characters."""
    return value if len(value) <= limit else f"{value[: limit - 9]}…{value[-8:]}"


def error_text(error: BaseException) -> str:
    """Return the type and the message of an exception, on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def identity(thing: object) -> int | None:
    """Return the identity (`id`) of an object, or None for None."""
    return None if thing is None else id(thing)


@dataclass(frozen=True)
class EventCalls:
    """The calls that concern one event, and the bridge, run and thread that the calls should name."""

    key: EventKey
    calls: list[LinkCall]
    """Every call of the trace whose arguments match the method's parameters, in order."""
    arrivals: list[Arrival]
    """The frames of this event that sockets read."""
    bridge: Any
    """The application's bridge, to which the sockets are attached, or None if the application did not start."""
    run_id: RunId
    thread_id: ThreadId
    user_id: UserId
    outside_core: bool
    names: Names
    checks: tuple[SelfCheck, ...]
    """The self-checks of the startup."""

    def of(self, link: int, *methods: str) -> list[LinkCall]:
        """Return the calls of a link's methods: the given methods, or all methods."""
        return [call for call in self.calls if call.link == link and (not methods or call.method in methods)]

    def of_run(self, link: int, *methods: str) -> list[LinkCall]:
        """Return the calls of a link for the event's run, without the calls for other events of the run."""
        return [
            call
            for call in self.of(link, *methods)
            if call.request == self.key.request and call.key in (None, self.key)
        ]

    def first(self, link: int, *methods: str) -> LinkCall | None:
        return next(iter(self.of(link, *methods)), None)

    def first_of_run(self, link: int, *methods: str) -> LinkCall | None:
        return next(iter(self.of_run(link, *methods)), None)

    def with_event(self, link: int, *methods: str) -> LinkCall | None:
        """Return the first call of a link that carries the event."""
        return next((call for call in self.of(link, *methods) if call.key == self.key), None)

    @property
    def by_core(self) -> bool:
        """Whether the core emits the event itself, without agent and adapter."""
        return self.key.type in EMITTED_BY_CORE

    @cached_property
    def emission(self) -> LinkCall | None:
        """The agent's call that emitted the event."""
        return self.with_event(6, "emit")

    @cached_property
    def adapter_call(self) -> LinkCall | None:
        """The agent's call that passed the event to its adapter."""
        return self.with_event(8, "emit")

    @cached_property
    def notification(self) -> LinkCall | None:
        """The call that passed the event, as an AgentEvent, to a bridge."""
        call = self.with_event(9, "notify", "notify_when_room")
        return call if call is not None and isinstance(call.given.get("event"), AgentEvent) else None

    @cached_property
    def publication(self) -> LinkCall | None:
        """The call that gave the event to a hub."""
        return self.with_event(10, "publish")

    @property
    def notified(self) -> AgentEvent | None:
        """The event as the bridge received it."""
        return None if self.notification is None else self.notification.given["event"]

    @property
    def reached_bridge(self) -> bool:
        """Whether the application's bridge returned a receipt for the event."""
        call = self.notification
        return call is not None and call.part is self.bridge and isinstance(call.result, Receipt)

    @property
    def agent(self) -> Any:
        """The agent that executed the run, or None if no agent did."""
        executed = self.first_of_run(6, "execute")
        return None if executed is None else executed.part

    @cached_property
    def bindings(self) -> list[LinkCall]:
        """The calls that gave the agent a bridge and a run before the agent emitted the event."""
        return self._bindings(6, self.agent)

    @cached_property
    def adapter_bindings(self) -> list[LinkCall]:
        """The calls that gave the agent's adapter a bridge and a run before the agent emitted the event."""
        return self._bindings(7, None if self.agent is None else self.agent._websocket_adapter)

    def _bindings(self, link: int, part: object) -> list[LinkCall]:
        limit = len(self.calls) if self.emission is None else self.calls.index(self.emission)
        return [
            call
            for call in self.calls[:limit]
            if call.link == link and call.method == "set_websocket_bridge" and call.part is part
            if {"bridge", "run_id"} <= call.given.keys()
        ]

    @property
    def failure(self) -> BaseException | None:
        """The error that ended the run, or None if the run ended normally."""
        calls = (*self.of_run(2, "open_run", "run"), *self.of_run(3, "create_bound"), *self.of_run(6, "execute"))
        return next((call.error for call in calls if call.error is not None), None)

    @property
    def own_arrivals(self) -> list[Arrival]:
        """The frames of the event that entitled sockets read."""
        own = self.thread_id, self.user_id
        return [arrival for arrival in self.arrivals if (arrival.socket.thread_id, arrival.socket.user_id) == own]

    @property
    def last_link(self) -> int:
        """The last link that received the event.

        If no link received the event, this is the last link that received the event's run.
        """
        for link in (10, 9, 8, 6):
            if self.with_event(link) is not None:
                return link
        runs = ((7, ()), (6, ()), (5, ("execute_agent",)), (4, ("execute",)), (3, ("create_bound",)), (2, ()))
        return next((link for link, methods in runs if self.of_run(link, *methods)), 1)


@dataclass(frozen=True, slots=True)
class Problem:
    """A mistake of a link in handling an event."""

    link: int
    text: str
    """What the link did, as a predicate: "gave the engine bridge 2 instead of bridge 1"."""
    misroutes: bool = False
    """Whether the link named another run or thread, which matters only for an event that reaches the bridge."""

    @property
    def attribution(self) -> Attribution:
        return Attribution(self.link, self.text)


def cause(event: EventCalls) -> Problem | None:
    """Return the first problem that explains why the event did not reach its user.

    Return None if the event reached its user, or if no known problem explains the loss. If the event reached the
    bridge, only a wrong run or thread, or a problem from link 9 on, explains the loss. If the event did not reach
    the bridge, a wrong run or thread does not explain the loss.
    """
    if event.own_arrivals:
        return None
    if event.reached_bridge:
        return next((each for each in problems(event) if each.misroutes or each.link >= 9), None)
    return next((each for each in problems(event) if not each.misroutes), None)


def problems(event: EventCalls) -> list[Problem]:
    """Return the mistakes of the links in handling this event, in the order of the chain."""
    emitted = _of_the_core(event) if event.by_core else _of_the_agent(event)
    found = [*_of_startup(event), *_of_the_run(event), *emitted, *_of_the_bridge(event)]
    return sorted(found, key=lambda each: each.link)


def _of_startup(event: EventCalls) -> Iterator[Problem]:
    start = event.first(1)
    if start is not None and start.error is not None:
        link = start.error.link if isinstance(start.error, DeterministicStartupError) else 1
        yield Problem(link, f"stopped the startup: {error_text(start.error)}")
    if event.bridge is None:
        return
    if event.outside_core:
        handovers = [(1, 3, "set_websocket_bridge", "bridge", "registry")]
    else:
        argument = "websocket_bridge"
        handovers = [(1, 2, "__init__", argument, "supervisor"), (2, 4, "__init__", argument, "engine")]
        handovers.append((4, 5, "__init__", argument, "core"))
    for caller, link, method, argument, receiver in handovers:
        call = event.first(link, method)
        given = None if call is None else call.given.get(argument)
        if given is not event.bridge:
            wrong, right = (event.names.number("bridge", identity(each)) for each in (given, event.bridge))
            yield Problem(caller, f"gave the {receiver} {wrong} instead of {right}")
            return


def _of_the_run(event: EventCalls) -> Iterator[Problem]:
    if (failure := event.failure) is not None and (link := link_of_error(failure)) is not None:
        yield Problem(link, f"raised {error_text(failure)}")
    if event.outside_core:
        return
    opened, executed, ran = (
        event.first_of_run(link, method) for link, method in ((2, "open_run"), (4, "execute"), (5, "execute_agent"))
    )
    if opened is not None and opened.error is None and executed is None:
        yield Problem(2, "did not call the engine")
    if executed is not None and ran is None:
        yield Problem(4, "did not call the core")
    for caller, call in ((2, executed), (4, ran)):
        if call is not None:
            yield from _address(event, caller, "passed on", call.given["context"])


def _of_the_core(event: EventCalls) -> Iterator[Problem]:
    if event.notified is not None:
        yield from _address(event, 5, "named", event.notified)
    elif event.failure is None and event.first_of_run(5, "execute_agent") is not None:
        yield Problem(5, f"did not emit {event.key.type}")


def _of_the_agent(event: EventCalls) -> Iterator[Problem]:
    if event.agent is None:
        return
    right = BridgeBinding(id(event.bridge), event.run_id, event.thread_id)
    binder = 3 if event.outside_core else 5
    if not event.bindings:
        yield Problem(binder, "gave the agent no bridge")
        return
    given = binding_of(event.bindings[-1])
    shared = any(binding_of(call).run_id == event.run_id for call in event.bindings[:-1])
    yield from _binding(event, binder, "later gave the same agent" if shared else "gave the agent", given, right)
    if not event.adapter_bindings:
        yield Problem(6, "did not bind its adapter")
        return
    bound = binding_of(event.adapter_bindings[-1])
    yield from _binding(event, 6, "gave its adapter", bound, given)
    if event.adapter_call is None:
        if event.emission is not None:
            yield Problem(6, "did not call its adapter")
        return
    if (held := event.adapter_call.held) is None:
        yield Problem(7, "does not hold both a bridge and a run")
        return
    yield from _binding(event, 7, "holds", held, bound)
    if event.notified is None:
        yield Problem(8, "did not pass the event to the bridge")
    else:
        named = BridgeBinding(held.bridge, event.notified.run_id, event.notified.thread_id)
        yield from _binding(event, 8, "named", named, held)


def _of_the_bridge(event: EventCalls) -> Iterator[Problem]:
    call, published = event.notification, event.publication
    if call is None or call.part is not event.bridge:
        return
    receipt = call.result if isinstance(call.result, Receipt) else None
    if published is None:
        unroutable = receipt is not None and receipt.outcome is Outcome.UNROUTABLE
        reason = f" ({receipt.reason})" if receipt is not None and receipt.reason else ""
        yield Problem(9, f"{'found no thread' if unroutable else 'passed nothing to the hub'}{reason}")
    elif published.given["thread_id"] != event.thread_id:
        wrong, right = short(published.given["thread_id"]), short(event.thread_id)
        yield Problem(9, f"named {wrong} instead of {right}", misroutes=True)
    elif not event.own_arrivals:
        link = 10 if receipt is None or receipt.link is None else receipt.link
        reason = f" ({receipt.reason})" if receipt is not None and receipt.reason else ""
        yield Problem(link, f"passed the event to no socket of its user{reason}")


def binding_of(call: LinkCall) -> BridgeBinding:
    """Return the bridge, run and thread in the arguments of a call of `set_websocket_bridge`."""
    return BridgeBinding(id(call.given["bridge"]), call.given["run_id"], call.given.get("thread_id"))


def _binding(event: EventCalls, link: int, verb: str, found: BridgeBinding, right: BridgeBinding) -> Iterator[Problem]:
    if found.bridge != right.bridge:
        wrong, expected = (event.names.number("bridge", each.bridge) for each in (found, right))
        yield Problem(link, f"{verb} {wrong} instead of {expected}")
    if found.run_id != right.run_id:
        wrong, expected = (event.names.run(run_id) for run_id in (found.run_id, right.run_id))
        yield Problem(link, f"{verb} {wrong} instead of {expected}", misroutes=True)
    elif found.thread_id not in (None, right.thread_id):
        yield Problem(link, f"{verb} {short(found.thread_id)} instead of {short(event.thread_id)}", misroutes=True)


def _address(event: EventCalls, link: int, verb: str, found: Any) -> Iterator[Problem]:
    """Yield a problem if a run context or an event does not name the event's own run and thread."""
    if found.run_id != event.run_id:
        wrong, expected = (event.names.run(run_id) for run_id in (found.run_id, event.run_id))
        yield Problem(link, f"{verb} {wrong} instead of {expected}", misroutes=True)
    elif found.thread_id not in (None, event.thread_id):
        yield Problem(link, f"{verb} {short(found.thread_id)} instead of {short(event.thread_id)}", misroutes=True)
