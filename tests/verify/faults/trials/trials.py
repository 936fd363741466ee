"""Literal trials, so that tests can assert exact results."""

from __future__ import annotations

from collections.abc import Sequence

from bridgekit.events import EventType, Outcome, Receipt
from bridgekit.ids import RunId, ThreadId, UserId
from bridgekit_verify.faults.trials.deployment import DeliveryMode
from bridgekit_verify.faults.trials.fault_catalogue import FAULTS
from bridgekit_verify.faults.trials.recorder import Reader
from bridgekit_verify.faults.trials.trial import Trial, TrialPlan
from bridgekit_verify.measure.checker import check
from bridgekit_verify.measure.history import Arrival, EventKey, Expectation, History, SignalledGap, Socket

SOCKET = Socket(0, ThreadId("thread_1"), UserId("alice"))
STRANGER = Socket(1, ThreadId("thread_2"), UserId("bob"))


async def no_ticket() -> str:
    raise AssertionError("no client connects in a literal trial")


def key(step: int) -> EventKey:
    return EventKey("down:thread_1:during", EventType.AGENT_THINKING, step)


def trial(
    delivery: DeliveryMode,
    *,
    fault: str = "down",
    events: int = 4,
    lost: Sequence[int] = (),
    signalled: Sequence[int] = (),
    misrouted: Sequence[int] = (),
    online: Sequence[tuple[float, float]] = ((0.0, 100.0),),
    window: tuple[float, float] = (1.0, 2.0),
    quiesced: bool = True,
) -> Trial:
    """Return a trial with one event per second; gaps signal `signalled`, and another user read `misrouted`."""
    history = History(sockets=[SOCKET, STRANGER])
    for step in range(1, events + 1):
        history.expected.append(Expectation(key(step), SOCKET.thread_id, SOCKET.user_id))
        receipt = Receipt(outcome=Outcome.SENT, sockets=1, seq=step, thread_id=SOCKET.thread_id)
        history.acknowledged[key(step)] = (RunId("run_1"), receipt)
        readers = [SOCKET] * (step not in lost) + [STRANGER] * (step in misrouted)
        history.arrivals += [Arrival(each, key(step), RunId("run_1"), step, step, step + 0.5) for each in readers]
    history.gaps[0] = [SignalledGap(step, step) for step in signalled]
    reader = Reader(SOCKET, "ws://nowhere", no_ticket, online=list(online))
    return Trial(
        delivery=delivery,
        fault=FAULTS[fault],
        plan=TrialPlan(),
        history=history,
        verdict=check(history),
        window=window,
        unanswered=0,
        attempted_at={key(step): float(step) for step in range(1, events + 1)},
        quiesced=quiesced,
        readers=[reader],
    )
