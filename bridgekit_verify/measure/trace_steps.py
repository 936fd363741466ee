"""The steps of a trace: what each link did with one event, from the observed calls.

A step shows only observations: the arguments of a call, the calls that it made, and its result or error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from bridgekit.events import Receipt
from bridgekit.ids import RunId
from bridgekit_verify.links import LINKS
from bridgekit_verify.measure.calls import LinkCall
from bridgekit_verify.measure.trace_evidence import (
    EventCalls,
    binding_of,
    error_text,
    identity,
    problems,
    short,
)

__all__ = ["LINK_NAMES", "NOT_CALLED", "NOT_ON_PATH", "NOT_REACHED", "REACHED", "SOCKET", "LinkStep", "path_steps"]

SOCKET: Final = 11
"""The number of the step after link 10: the user's socket."""
LINK_NAMES: Final[Mapping[int, str]] = {
    **{link.number: link.name for link in LINKS},
    10: "Hub and sockets",
    SOCKET: "User's socket",
}
REACHED: Final = "reached"
NOT_REACHED: Final = "not reached"
"""The state of a link after the end of the event."""
NOT_CALLED: Final = "not called"
"""The state of a link that should have been called before the event's last link."""
NOT_ON_PATH: Final = "not on this event's path"
NOTHING: Final = "nothing"


@dataclass(frozen=True, slots=True)
class LinkStep:
    """What one link did with one event, and with the bridge and the run that the event depends on."""

    link: int
    """1 to 10, or SOCKET."""
    received: str = ""
    passed_on: str = ""
    caught: str = ""
    """Exceptions that the link caught and did not raise again."""
    logged: str = ""
    returned: str = ""
    """The receipt that the link returned, or the exception that it raised. For startup, the self-checks that passed."""
    state: str = REACHED
    problem: str = ""
    """The link's mistake in handling this event, or an empty string."""

    @property
    def name(self) -> str:
        return LINK_NAMES[self.link]


def path_steps(event: EventCalls) -> list[LinkStep]:
    """Return one step for each of the ten links, and one for the user's socket."""
    wrong = {problem.link: problem.text for problem in reversed(problems(event))}
    return [*(_step(event, link, wrong.get(link, "")) for link in range(1, SOCKET)), _socket(event)]


def _step(event: EventCalls, link: int, problem: str) -> LinkStep:
    if link in ((6, 7, 8) if event.by_core else (4, 5) if event.outside_core else ()):
        return LinkStep(link, state=NOT_ON_PATH)
    calls = _calls_of(event, link)
    if not calls or link > event.last_link:
        return LinkStep(link, state=NOT_REACHED if link > event.last_link else NOT_CALLED, problem=problem)
    received, passed_on = _HANDOVERS[link](event)
    caught = {id(error): error for call in calls for error in call.caught(event.key)}
    return LinkStep(
        link,
        received=received,
        passed_on=passed_on,
        caught="; ".join(map(error_text, caught.values())),
        logged="; ".join(str(line) for call in calls for line in call.logged),
        returned=_returned(event, calls),
        problem=problem,
    )


def _calls_of(event: EventCalls, link: int) -> list[LinkCall]:
    """Return the calls that a step shows. Links that act once per run show their calls for the event's run."""
    if link == 1:
        return event.of(1)
    if link >= 8:
        return [call for call in event.of(link) if call.key == event.key]
    own = event.of_run(link)
    if link == 3 or own:
        return [*event.of(link, "__init__"), *(event.of(3, "set_websocket_bridge") if link == 3 else ()), *own]
    return []


def _returned(event: EventCalls, calls: list[LinkCall]) -> str:
    raised = [call.error for call in calls if call.error is not None]
    if raised:
        return f"raised {error_text(raised[0])}"
    receipts = [call.result for call in calls if isinstance(call.result, Receipt)]
    if receipts:
        return _receipt_text(receipts[0])
    if calls[0].link == 1:
        return f"started; checked by {', '.join(check.__name__ for check in event.checks) or 'no check'}"
    return ""


def _receipt_text(receipt: Receipt) -> str:
    text = str(receipt.outcome)
    if receipt.sockets:
        text += f" to {_count(receipt.sockets, 'socket')}"
    return f"{text}: {receipt.reason}" if receipt.reason else text


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


# Each of the following functions returns two texts: what its link received, and what the link passed on.


def _bridge_given(event: EventCalls, link: int) -> str:
    call = event.first(link, "set_websocket_bridge" if link == 3 else "__init__")
    given = {} if call is None else call.given
    return event.names.number("bridge", identity(given.get("bridge" if link == 3 else "websocket_bridge")))


def _run_given(event: EventCalls, link: int) -> str:
    call = event.first_of_run(link, "execute" if link == 4 else "execute_agent")
    if call is None:
        return NOTHING
    context = call.given["context"]
    return f"{event.names.run(context.run_id)}, {short(context.thread_id)}"


def _handover(event: EventCalls, link: int) -> str:
    """Return what the engine (link 4) or the core (link 5) received: the bridge at startup, and later the run."""
    run = _run_given(event, link)
    return run if run == NOTHING else f"{_bridge_given(event, link)}, {run}"


def _startup(event: EventCalls) -> tuple[str, str]:
    supervisor, registry = _bridge_given(event, 2), _bridge_given(event, 3)
    if supervisor == registry:
        return "the configuration", f"{supervisor}, to links 2 and 3"
    return "the configuration", f"{supervisor} to link 2, {registry} to link 3"


def _supervisor(event: EventCalls) -> tuple[str, str]:
    received = f"{_bridge_given(event, 2)}; {event.key.request}, {short(event.thread_id)}"
    if event.outside_core:
        opened = event.first_of_run(2, "open_run")
        context = None if opened is None else opened.result
    else:
        executed = event.first_of_run(4, "execute")
        context = None if executed is None else executed.given["context"]
    if context is None:
        return received, NOTHING
    run = f"{event.names.run_with_id(context.run_id)}, {short(context.thread_id)}"
    return received, run if event.outside_core else f"{_bridge_given(event, 4)}, {run}"


def _registry(event: EventCalls) -> tuple[str, str]:
    bound, parts = event.first(3, "set_websocket_bridge"), []
    if bound is not None and (tried := [call for call in bound.calls if call.link == 6]):
        parts.append(f"the bridge to {sum(call.error is None for call in tried)} of {len(tried)} agents")
    created = event.first_of_run(3, "create_bound" if event.outside_core else "create")
    if created is not None and created.result is not None:
        parts.append(f"{event.names.number('agent', id(created.result))}, for this run")
    elif event.agent is not None:
        parts.append("no new agent for this run")
    return _bridge_given(event, 3), "; ".join(parts) or NOTHING


def _engine(event: EventCalls) -> tuple[str, str]:
    return _handover(event, 4), _handover(event, 5)


def _core(event: EventCalls) -> tuple[str, str]:
    received = _handover(event, 5)
    if event.by_core:
        return received, _notified(event)
    if event.agent is None:
        return received, NOTHING
    agent = event.names.number("agent", id(event.agent))
    others = sorted({call.request or "" for call in event.of(6, "execute") if call.part is event.agent})
    shared = ", ".join(other for other in others if other != event.key.request)
    own = [call for call in event.bindings if call.request == event.key.request]
    binding = event.names.binding(binding_of(own[-1])) if own else "no bridge"
    return received, f"{binding}, to {agent}{f', which also executes {shared}' if shared else ''}"


def _agent(event: EventCalls) -> tuple[str, str]:
    received, binding = _own_binding(event, event.bindings), _own_binding(event, event.adapter_bindings)
    if event.emission is not None and event.adapter_call is None:
        return received, f"{binding}; {event.key.type} to no adapter"
    return received, binding


def _own_binding(event: EventCalls, bindings: list[LinkCall]) -> str:
    """Return the latest binding for the event's own run or, if there is none, for any run."""
    own = [call for call in bindings if call.request == event.key.request] or bindings
    return event.names.binding(binding_of(own[-1])) if own else NOTHING


def _adapter(event: EventCalls) -> tuple[str, str]:
    received, call = _own_binding(event, event.adapter_bindings), event.adapter_call
    if call is None:
        return received, ""
    if call.held is None:
        return received, "does not hold both a bridge and a run"
    return received, f"holds {event.names.binding(call.held)}"


def _emission(event: EventCalls) -> tuple[str, str]:
    return str(event.key.type), _notified(event)


def _notified(event: EventCalls, name: Callable[[RunId], str] | None = None) -> str:
    """Return the event as the bridge received it. `name` formats the event's run id."""
    if event.notified is None:
        return NOTHING
    run, thread = (name or event.names.run)(event.notified.run_id), event.notified.thread_id
    return f"{event.key.type}, {run}{'' if thread is None else f', {short(thread)}'}"


def _bridge(event: EventCalls) -> tuple[str, str]:
    received = _notified(event, event.names.run_with_id)
    if event.notification is not None and event.notification.part is not event.bridge:
        received += f" (at {event.names.number('bridge', id(event.notification.part))})"
    if event.publication is None:
        return received, NOTHING
    return received, f"the event, for {short(event.publication.given['thread_id'])}"


def _connections(event: EventCalls) -> tuple[str, str]:
    received = "the event"
    if event.publication is not None:
        received = f"the event, for {short(event.publication.given['thread_id'])}"
        if event.bridge is not None and event.publication.part is not event.bridge.hub:
            received += " (at the hub of another bridge)"
    if not event.arrivals:
        return received, NOTHING
    sockets = {arrival.socket.number for arrival in event.arrivals}
    return received, f"frame {event.arrivals[0].seq}, to {_count(len(sockets), 'socket')}"


_HANDOVERS: Final[Mapping[int, Callable[[EventCalls], tuple[str, str]]]] = {
    1: _startup,
    2: _supervisor,
    3: _registry,
    4: _engine,
    5: _core,
    6: _agent,
    7: _adapter,
    8: _emission,
    9: _bridge,
    10: _connections,
}


def _socket(event: EventCalls) -> LinkStep:
    if not event.arrivals:
        return LinkStep(SOCKET, state=NOT_REACHED)
    read = "; ".join(f"frame {each.seq}, read by {each.socket.user_id}" for each in event.arrivals)
    if event.own_arrivals:
        return LinkStep(SOCKET, received=read)
    return LinkStep(SOCKET, received=read, problem=f"the event belongs to {event.user_id} in {short(event.thread_id)}")
