"""Follow one event through the chain: what each link received, passed on, caught, logged and returned.

A trace records a real run over a real socket, observed from outside. An exception that a link catches is recorded if
the link logs a line while it handles the exception, or if another link raised the exception.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property

import pandas as pd

from bridgekit.errors import UnknownName
from bridgekit.ids import RunId, UserId
from bridgekit_verify.measure.calls import LinkCall, log_lines_recorded
from bridgekit_verify.measure.experiment import Measurement, measure
from bridgekit_verify.measure.history import EventKey
from bridgekit_verify.measure.ledger import Attribution, attribute_loss
from bridgekit_verify.measure.second_observer import NO_OBSERVER, SocketObserver
from bridgekit_verify.measure.thread_id_families import OwnedThread, own_threads
from bridgekit_verify.measure.trace_evidence import EventCalls, Names, cause
from bridgekit_verify.measure.trace_steps import NOT_ON_PATH, SOCKET, LinkStep, path_steps
from bridgekit_verify.measure.workload import Run, Workload
from bridgekit_verify.variants import Variant, variant

__all__ = ["LinkStep", "Trace", "trace_run", "trace_workload"]


@dataclass(frozen=True)
class Trace:
    """The observed calls of one measurement, by event.

    An event is named by its run's request, such as "question 1", and its type. Steps are counted from 1.
    """

    measurement: Measurement
    calls: list[LinkCall]
    """The calls between links, in the order in which they began. The calls refer to the live objects of the run."""

    @property
    def name(self) -> str:
        """The name of the chain."""
        return self.measurement.variant.name

    @cached_property
    def requests(self) -> dict[str, OwnedThread]:
        """The thread and user of each run, by request."""
        return {run.request: run.owned for run in self._workload_runs}

    def events(self, request: str) -> list[EventKey]:
        """Return the events of a run: first the events that the run's user should get, then other observed events."""
        self._owner(request)
        workload = self.measurement.workload
        expected = [each.key for run in self._workload_runs for each in workload.expectations(run)]
        observed = [*(call.key for call in self.calls), *(each.key for each in self.measurement.history.arrivals)]
        return [key for key in dict.fromkeys((*expected, *observed)) if key is not None and key.request == request]

    @property
    def _workload_runs(self) -> list[Run]:
        return [run for group in self.measurement.workload.groups() for run in group]

    def path(self, request: str, event: str, step: int = 1) -> list[LinkStep]:
        """Return what each of the ten links, and then the user's socket, did with the event."""
        return path_steps(self._event(request, event, step))

    def ended_at(self, request: str, event: str, step: int = 1) -> int | None:
        """Return the last link that received the event, or None if a socket of its own user read the event.

        Return 10 if only other sockets read the event. If the event was not emitted, return the last link that
        received its run.
        """
        found = self._event(request, event, step)
        return None if found.own_arrivals else found.last_link

    def cause(self, request: str, event: str, step: int = 1) -> Attribution | None:
        """Return the first link whose mistake explains why the event did not reach its user.

        The link may precede the link where the event ended. Return None if the event reached its user, or if no known
        mistake explains the loss.
        """
        found = cause(self._event(request, event, step))
        return None if found is None else found.attribution

    def read_by(self, request: str, event: str, step: int = 1) -> list[UserId]:
        """Return the users whose sockets read the event, without repetition."""
        return _readers(self._event(request, event, step))

    def disagreement(self, request: str, event: str, step: int = 1) -> str:
        """Return how the trace and the ledger of the run differ about this event, or "" if they agree."""
        found = self._event(request, event, step)
        row = next((row for row in self.measurement.ledger if row.expectation.key == found.key), None)
        if row is None:
            started = "no socket is entitled to it" if self._bridge is not None else "the application did not start"
            return f"the ledger has no row for this event: {started}"
        if (row.copies > 0) != bool(found.own_arrivals):
            return f"the ledger has {row.copies} copies at its user's socket, the trace {len(found.own_arrivals)}"
        if row.copies:
            return ""
        ledger, traced = attribute_loss(self.measurement.history, row.expectation), cause(found)
        if traced is None:
            return f"the ledger names link {ledger.link} ({ledger.reason}); the trace shows no error at any link"
        if traced.link == ledger.link:
            return ""
        return (
            f"the ledger names link {ledger.link} ({ledger.reason}), the trace link {traced.link}, which {traced.text}"
        )

    def sentence(self, request: str, event: str, step: int = 1) -> str:
        """Return sentences that state where the event ended and why, who read it, and which exceptions were caught."""
        found = self._event(request, event, step)
        return f"{self.name}: the event {found.key.type} of {request} {_ending(found)}"

    def table(self, request: str, event: str, step: int = 1) -> pd.DataFrame:
        """Return the path as a table: what each link received, passed on, caught, logged and returned."""
        return pd.DataFrame([_row(each) for each in self.path(request, event, step)])

    def _owner(self, request: str) -> OwnedThread:
        if request not in self.requests:
            raise UnknownName("run of this trace", request, tuple(self.requests))
        return self.requests[request]

    def _event(self, request: str, event: str, step: int) -> EventCalls:
        owner, events = self._owner(request), self.events(request)
        key = next((key for key in events if key.type == event and key.step in (0, step)), None)
        if key is None:
            known = dict.fromkeys(f"{key.type}" + (f", step {key.step}" if key.step else "") for key in events)
            raise UnknownName("event of this run", event if step == 1 else f"{event}, step {step}", tuple(known))
        return EventCalls(
            key=key,
            calls=[call for call in self.calls if call.entered],
            arrivals=[arrival for arrival in self.measurement.history.arrivals if arrival.key == key],
            bridge=self._bridge,
            run_id=self._runs.get(request, RunId("")),
            thread_id=owner.thread_id,
            user_id=owner.user_id,
            outside_core=self.measurement.workload.outside_core,
            names=self._names,
            checks=self.measurement.variant.self_checks,
        )

    @cached_property
    def _runs(self) -> dict[str, RunId]:
        """The run id that the supervisor gave each request."""
        opened = (
            call for call in self.calls if (call.link, call.method) == (2, "open_run") and call.result is not None
        )
        return {call.given["request"]: call.result.run_id for call in opened}

    @cached_property
    def _bridge(self) -> object:
        """The application's bridge."""
        started = (call.result for call in self.calls if call.link == 1 and call.error is None)
        return next((application.bridge for application in started), None)

    @cached_property
    def _names(self) -> Names:
        names = Names(self._runs.values())
        for call in self.calls:
            if (call.link, call.method) == (9, "__init__"):
                names.number("bridge", id(call.part))
        return names


def _row(step: LinkStep) -> dict[str, object]:
    return {
        "link": "" if step.link == SOCKET else step.link,
        "name": step.name,
        "received": step.received or step.state,
        "passed on": step.passed_on,
        "caught": step.caught,
        "logged": step.logged,
        "returned": step.returned,
    }


def _ending(event: EventCalls) -> str:
    steps = path_steps(event)
    if event.own_arrivals:
        passed = _spans([step.link for step in steps[:-1] if step.state != NOT_ON_PATH])
        others = [user for user in _readers(event) if user != event.user_id]
        also = f" The event is also read by {', '.join(others)}." if others else ""
        caught = "".join(_caught(step) for step in steps)
        return f"passes through links {passed} and is read by its user, {event.user_id}.{also}{caught}"
    wrong, last = cause(event), steps[event.last_link - 1]
    if readers := _readers(event):
        whom = "in another thread" if readers == [event.user_id] else f"and not by its user, {event.user_id}"
        ending = f"is read by {', '.join(readers)} {whom}"
    elif event.last_link < 8 and event.emission is None:
        ending = f"is never emitted: the run ends at link {last.link} ({last.name})"
    else:
        ending = f"ends at link {last.link} ({last.name})"
    reason = "" if wrong is None else f", because link {wrong.link} {wrong.text}"
    return f"{ending}{reason}.{_caught(last)}{'' if readers else ' No user reads the event.'}"


def _caught(step: LinkStep) -> str:
    if not step.caught:
        return ""
    logged = "." if step.logged else ", and the link logged nothing."
    return f" Link {step.link} caught the error {step.caught}{logged}"


def _readers(event: EventCalls) -> list[UserId]:
    return list(dict.fromkeys(arrival.socket.user_id for arrival in event.arrivals))


def _spans(numbers: Sequence[int]) -> str:
    """Return ascending numbers in words: "1 to 5, 9 and 10", "1 to 3 and 6 to 10"."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and spans[-1][-1] == number - 1:
            spans[-1].append(number)
        else:
            spans.append([number])
    parts = [f"{span[0]} to {span[-1]}" if len(span) > 2 else " and ".join(map(str, span)) for span in spans]
    if len(parts) > 1 and " and " not in parts[-1]:
        parts[-2:] = [f"{parts[-2]} and {parts[-1]}"]
    return ", ".join(parts)


async def trace_run(
    chain: Variant | str, threads: str | Iterable[str] = "thread_123", *, steps: int = 1, seed: int = 0
) -> Trace:
    """Trace one run in each thread, all runs at once, over real sockets. The requests are "question 1" and so on.

    `chain` is a variant or its name. Each thread belongs to a different user. Raises UnknownName if no variant has this
    name, and InvalidId or InvalidParameter if a thread id is not allowed.
    """
    owned = own_threads([threads] if isinstance(threads, str) else threads)
    workload = Workload(threads=owned, at_once=len(owned), steps=steps)
    return await trace_workload(chain, workload, seed=seed)


async def trace_workload(
    chain: Variant | str, workload: Workload, *, seed: int = 0, observer: SocketObserver = NO_OBSERVER
) -> Trace:
    """Measure the workload as `measure` does, and keep every call between the links.

    The bytes on the wire equal those of a run without a trace, except for random ids and times.
    """
    chosen = variant(chain) if isinstance(chain, str) else chain
    calls: list[LinkCall] = []
    with log_lines_recorded(_packages(chosen)):
        measurement = await measure(chosen, workload, seed=seed, observer=observer, calls=calls)
    return Trace(measurement, calls)


def _packages(chosen: Variant) -> set[str]:
    """Return the top-level packages of the variant's parts, which name the loggers that the parts use."""
    parts = [part for field in fields(chosen) if callable(part := getattr(chosen, field.name))]
    return {"bridgekit", *(part.__module__.partition(".")[0] for part in parts)}
