"""Judge link 9: the bridge finds each event's thread, passes the event to the hub unchanged, and counts its outcome."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from bridgekit.counters import DeliveryCounters
from bridgekit.errors import BridgekitError, StoreUnavailable, UnknownEventType
from bridgekit.events import POLICIES, EventType, Outcome, Receipt
from bridgekit.ids import RunId, ThreadId
from bridgekit_verify.measure.thread_id_families import Family, OwnedThread, threads_by_family
from bridgekit_verify.probes.judgement import (
    Judgement,
    ViolationKind,
    canonical,
    error_text,
    expect_time,
    match,
    same_outcome,
    shown,
)
from bridgekit_verify.probes.observation import Observation
from bridgekit_verify.probes.recorded_calls import ABSENT, PARAMETERS, RecordedCall
from bridgekit_verify.probes.rules_of_links_6_to_8 import expect_in_order, payload_of
from bridgekit_verify.probes.scenario_agents import AGENTS

__all__ = ["FamilyRoute", "judge_families", "judge_routing", "route_families"]

PUBLISHERS: Final = ("notify", "notify_when_room", "notify_in_thread")
"""The methods of the bridge that publish an event that their caller created."""
NOTIFIERS: Final = tuple(name for name in PARAMETERS["bridge"] if name.startswith("notify_") and name not in PUBLISHERS)


@dataclass(frozen=True)
class FamilyRoute:
    """The thread that one event must reach, and the threads to which the bridge published the event."""

    family: str
    owned: OwnedThread
    published: list[ThreadId]
    answer: object
    """The receipt, or the error that a link raised."""


async def route_families(
    seen: Observation, families: Mapping[str, Family], threads: int, seed: int
) -> list[FamilyRoute]:
    """Emit two events for each of `threads` threads of every family: one with only the run id, one with the thread."""
    bridge, recording, routes = seen.application.bridge, seen.recording, list[FamilyRoute]()
    for family, all_of in threads_by_family(families, threads, seed=seed).items():
        for owned in all_of:
            run_id = None
            for thread_id in (None, owned.thread_id):
                before = len(recording.of("hub", "publish"))
                answer: object
                try:
                    if run_id is None:
                        run_id = seen.application.config.run_ids.new(owned.thread_id)
                        await bridge.mapping.register_mapping(run_id, owned.thread_id)
                    answer = await bridge.notify_agent_started(
                        run_id, AGENTS[0], message=owned.thread_id, thread_id=thread_id
                    )
                except Exception as error:
                    if not seen.note(error):
                        raise
                    answer = error
                published = [call.given["thread_id"] for call in recording.of("hub", "publish")[before:]]
                routes.append(FamilyRoute(family, owned, published, answer))
    return routes


def judge_families(routes: list[FamilyRoute]) -> Judgement:
    """Judge link 9 by the events of every family of thread ids."""
    link, families = Judgement(9), list(dict.fromkeys(route.family for route in routes))
    owners = {route.owned.thread_id: route.owned.user_id for route in routes}
    elsewhere = [
        (route.owned, thread) for route in routes for thread in route.published if thread != route.owned.thread_id
    ]
    if elsewhere:
        owned, thread = elsewhere[0]
        whose = "another user's thread" if owners.get(thread) != owned.user_id else "another thread"
        example = f"an event for {shown(owned.thread_id)} went to {shown(thread)}"
        text = f"{len(elsewhere)} events went to {whose}; for example, {example}"
        link.expect(False, ViolationKind.MISROUTED, text)
    lost = [route for route in routes if not route.published]
    if lost:
        kinds = len({route.family for route in lost})
        reasons = Counter(map(_reason, (route.answer for route in lost)))
        reason = f" (most frequent reason: {reasons.most_common(1)[0][0]})"
        link.expect(
            False,
            ViolationKind.LOST,
            f"the bridge finds no route for {kinds} of {len(families)} kinds of thread id{reason}",
        )
    link.tried = len(routes)
    n = len(families)
    link.summary = f"for {n} of {n} kinds of thread id, each event goes to its own thread and to no other"
    return link


def _reason(answer: object) -> str:
    if isinstance(answer, Receipt):
        return answer.reason or f"reported as {answer.outcome}"
    return error_text(answer) if isinstance(answer, BaseException) else "no receipt"


def judge_routing(seen: Observation) -> Judgement:
    """Compare each event that the bridge received with what it passed to the hub."""
    link, recording = Judgement(9), seen.recording
    routes = {
        call.given["run_id"]: call.given["thread_id"]
        for call in recording.of("mapping", "register_mapping")
        if call.raised is None
    }
    bridge = seen.application.bridge
    calls = [
        call
        for call in recording.of("bridge", *PUBLISHERS)
        if call.has_event and call.owner is bridge and (call.within is None or call.within.name not in PUBLISHERS)
    ]
    routed = [call for call in calls if _has_known_type(call) and _thread_of(call, routes) is not None]
    found = match(
        routed,
        [call for call in recording.of("hub", "publish") if call.has_event and _publishing(call) in (None, bridge)],
        lambda call: (call.event.event_id, call.event.type),
        lambda call: (call.event.event_id, call.event.type),
    )
    for call in found.lost:
        link.expect(False, ViolationKind.LOST, _why_lost(call, seen))
    for made in found.extra:
        link.expect(False, ViolationKind.DUPLICATED, f"the hub receives {made.event.type} twice, or for no event")
    for call, made in found.pairs:
        _judge_published(link, call, made, _thread_of(call, routes))
    expect_in_order(link, found, lambda call: canonical(call.event.run_id), lambda call: str(call.event.type))
    _judge_notifiers(link, seen)
    _judge_mapping(link, seen)
    for call in calls:
        if not _has_known_type(call):
            refused = isinstance(call.raised, UnknownEventType)
            link.expect(refused, ViolationKind.CHANGED, f"an event of the unknown type {call.event.type!r} is accepted")
        elif call not in routed:
            _expect_unroutable(link, call)
    if seen.complete:
        _judge_counters(link, seen, calls)
        _judge_observer(link, seen, calls)
    link.tried = len(calls)
    link.summary = f"each of {len(found.pairs):,} events of the scenario reached the hub once, unchanged and in order"
    return link


def _has_known_type(call: RecordedCall) -> bool:
    """Return whether the event's type exists. If link 8 passes on an event of another type, link 9 must refuse it."""
    return type(call.event.type) is EventType and call.event.type in POLICIES


def _publishing(call: RecordedCall) -> object:
    """Return the bridge that publishes the event, or None. Another link may use a bridge of its own by mistake."""
    return None if call.within is None else call.within.owner


def _thread_of(call: RecordedCall, routes: dict[RunId, ThreadId]) -> str | None:
    """Return the event's thread, or None if the bridge refused the event because its run belongs to another thread."""
    if call.name == "notify_in_thread":
        return str(call.given["thread_id"])
    carried, registered = call.event.thread_id, None
    if isinstance(call.event.run_id, str):  # a broken link may pass on a value of another type
        registered = routes.get(RunId(call.event.run_id))
    if carried and registered and carried != registered:
        refused = isinstance(call.result, Receipt) and call.result.outcome is Outcome.UNROUTABLE
        return None if refused else str(carried)
    return carried or registered


def _why_lost(call: RecordedCall, seen: Observation) -> str:
    if call.raised is not None:
        return error_text(call.raised)
    late = [run_id for run_id, _ in seen.late]
    when = "an event after the end of its run" if call.event.run_id in late else f"{call.event.type}"
    how = "" if call.event.thread_id else ", which names only its run,"
    if isinstance(call.result, Receipt) and call.result.reason:
        return f"{when}{how} is not passed to the hub ({call.result.reason})"
    return f"{when}{how} is not passed to the hub"


def _judge_published(link: Judgement, call: RecordedCall, made: RecordedCall, thread: str | None) -> None:
    given, passed = call.event, made.event
    link.expect(
        made.given["thread_id"] == thread,
        ViolationKind.MISROUTED,
        lambda: f"{given.type} of thread {thread!a} is sent to {made.given['thread_id']!a}",
    )
    link.equal(given.payload, passed.payload, f"the payload of {given.type} that the hub receives")
    for name in ("type", "run_id", "agent_name", "event_id", "timestamp"):
        link.equal(getattr(given, name), getattr(passed, name), f"the {name} of {given.type}")
    link.expect(
        passed.thread_id in (None, given.thread_id, made.given["thread_id"]),
        ViolationKind.MISROUTED,
        f"{given.type} does not name the thread that it is sent to",
    )
    link.expect(
        same_outcome(call, made),
        ViolationKind.FALSE_RECEIPT,
        f"the receipt of {given.type} is not the one that the hub returned",
    )


def _judge_notifiers(link: Judgement, seen: Observation) -> None:
    """Check that each `notify_*` method emits the event that its arguments describe, with a new id and timestamp."""
    made_by = [
        (call, seen.recording.within(call, "bridge", "notify", "notify_when_room"))
        for call in seen.recording.of("bridge", *NOTIFIERS)
    ]
    ids = Counter(made[0].event.event_id for _, made in made_by if made)
    for call, made in made_by:
        if not made:
            evidence = f"{call.name} emits no event" if call.raised is None else error_text(call.raised)
            link.expect(False, ViolationKind.LOST, evidence)
            continue
        event, given = made[0].event, call.given
        link.expect(len(made) == 1, ViolationKind.DUPLICATED, f"{call.name} emits {len(made)} events")
        link.expect(same_outcome(call, made[0]), ViolationKind.FALSE_RECEIPT, f"{call.name} returns another receipt")
        link.equal(payload_of(call), (event.type, event.payload), f"the event of {call.name}")
        link.equal(
            (given.get("run_id"), given.get("agent_name"), given.get("thread_id")),
            (event.run_id, event.agent_name, event.thread_id),
            f"run, agent and thread of the event of {call.name}",
        )
        link.expect(ids[event.event_id] == 1, ViolationKind.DUPLICATED, "two events have the same event_id")
        expect_time(link, event.timestamp, call, made[0])


def _judge_mapping(link: Judgement, seen: Observation) -> None:
    for _, thread_id, found in seen.lookups:
        link.expect(
            found == thread_id,
            ViolationKind.LOST if found is None else ViolationKind.MISROUTED,
            f"with {len(seen.lookups)} open runs, the mapping has {_thread_text(found)} for one of {thread_id!a}",
        )
    for kind, evidence in seen.lifetimes:
        link.expect(False, kind, evidence)
    made = Counter(call.result for call in seen.recording.of("run_ids", "new") if call.result is not ABSENT)
    link.expect(all(count == 1 for count in made.values()), ViolationKind.MISROUTED, "two runs have the same run id")


def _thread_text(thread: object) -> str:
    """Return a thread id as text, or "no route"."""
    return "no route" if thread is None else ascii(thread)


def _expect_unroutable(link: Judgement, call: RecordedCall) -> None:
    receipt = call.result
    if call.raised is not None:
        link.expect(False, ViolationKind.LOST, error_text(call.raised))
    elif isinstance(receipt, Receipt):
        link.expect(
            not receipt and receipt.outcome is Outcome.UNROUTABLE,
            ViolationKind.FALSE_RECEIPT,
            f"an event of an unknown run is reported as {receipt.outcome}",
        )
        link.expect(
            receipt.link == 9, ViolationKind.MISCOUNTED, f"a missing route is reported as a loss at link {receipt.link}"
        )


def _judge_counters(link: Judgement, seen: Observation, calls: list[RecordedCall]) -> None:
    """Check that each event is counted exactly once, under its outcome."""
    wanted, counted = DeliveryCounters(), seen.application.counters
    for call in calls:
        if isinstance(call.raised, Exception):
            wanted.lost[_link_of_refusal(seen, call, call.raised), type(call.raised).__name__] += 1
        elif isinstance(receipt := call.result, Receipt):
            _count(wanted, call, receipt)
    for call in seen.recording.of("bridge", "record"):
        # The adapter calls `record` for an event that it refuses.
        if call.owner is seen.application.bridge and (call.within is None or call.within.part != "bridge"):
            _count(wanted, call, call.given["receipt"])
    for name in ("sent", "kept", "pending", "lost"):
        # Subtract the events that startup counted, which `judge_startup` judges.
        expected, found = getattr(wanted, name), getattr(counted, name) - getattr(seen.first_counters, name, Counter())
        more, fewer = found - expected, expected - found
        parts = [f"{count} more of {_counted(what)}" for what, count in more.most_common(1)] + [
            f"{count} fewer of {_counted(what)}" for what, count in fewer.most_common(1)
        ]
        link.expect(
            not parts, ViolationKind.MISCOUNTED, f"the counter of {name} events has {' and '.join(parts)} than happened"
        )


def _link_of_refusal(seen: Observation, call: RecordedCall, error: Exception) -> int:
    """Return the link under which an event must be counted whose publication raised the error."""
    if isinstance(error, BridgekitError):
        return 9 if isinstance(error, StoreUnavailable) else 8
    made = [call, *seen.recording.within(call, "bridge", "notify")]
    return 10 if any(seen.recording.within(each, "hub", "publish") for each in made) else 9


def _judge_observer(link: Judgement, seen: Observation, calls: list[RecordedCall]) -> None:
    """Check that an observer of the application received each event once, with its outcome."""
    first, last = seen.observed_between
    wanted = Counter(
        (call.event.event_id, call.result.outcome)
        for call in calls
        if first < call.entered <= last and isinstance(call.result, Receipt)
    )
    ids = {event_id for event_id, _ in wanted}
    found = Counter({key: count for key, count in seen.observed.items() if key[0] in ids})
    missing, extra = (wanted - found).total(), (found - wanted).total()
    link.expect(
        not missing and not extra,
        ViolationKind.MISCOUNTED,
        f"an observer does not receive {missing} of {wanted.total()} events, and receives {extra} more",
    )


def _count(counters: DeliveryCounters, call: RecordedCall, receipt: Receipt) -> None:
    kind = call.event.type
    if receipt:
        counters.sent[kind] += 1
    elif receipt.kept:
        counters.kept[kind] += 1
    elif receipt.outcome is Outcome.PENDING:
        counters.pending[kind] += 1
    else:
        counters.lost[receipt.link or 0, receipt.reason] += 1


def _counted(what: object) -> str:
    return f"link {what[0]} ({what[1]})" if isinstance(what, tuple) else str(what)
