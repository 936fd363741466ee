"""Trials by hand: a literal history in, so that what is made of it can be told to the letter."""

from __future__ import annotations

from collections.abc import Sequence

from bridgekit.events import EventType, Outcome, Receipt
from bridgekit.ids import RunId, ThreadId, UserId
from bridgekit_verify.faults.trials.acts import ACTS
from bridgekit_verify.faults.trials.deployment import Delivery
from bridgekit_verify.faults.trials.recorder import Reader
from bridgekit_verify.faults.trials.trial import Trial, TrialPlan
from bridgekit_verify.measure.checker import check
from bridgekit_verify.measure.history import Arrival, EventKey, Expectation, History, SignalledGap, Socket

SOCKET = Socket(0, ThreadId("thread_1"), UserId("alice"))
STRANGER = Socket(1, ThreadId("thread_2"), UserId("bob"))


async def no_ticket() -> str:
    raise AssertionError("nobody connects")


def key(step: int) -> EventKey:
    return EventKey("down:thread_1:during", EventType.AGENT_THINKING, step)


def trial(
    delivery: Delivery,
    *,
    act: str = "down",
    events: int = 4,
    lost: Sequence[int] = (),
    told: Sequence[int] = (),
    misrouted: Sequence[int] = (),
    online: Sequence[tuple[float, float]] = ((0.0, 100.0),),
    window: tuple[float, float] = (1.0, 2.0),
    settled: bool = True,
) -> Trial:
    """Events 1 to n, asked for at each full second; `told` of `lost` were signalled, `misrouted` read by somebody else."""
    history = History(sockets=[SOCKET, STRANGER])
    for step in range(1, events + 1):
        history.expected.append(Expectation(key(step), SOCKET.thread_id, SOCKET.user_id))
        receipt = Receipt(outcome=Outcome.SENT, sockets=1, seq=step, thread_id=SOCKET.thread_id)
        history.acknowledged[key(step)] = (RunId("run_1"), receipt)
        readers = [SOCKET] * (step not in lost) + [STRANGER] * (step in misrouted)
        history.arrivals += [Arrival(each, key(step), RunId("run_1"), step, step, step + 0.5) for each in readers]
    history.gaps[0] = [SignalledGap(step, step) for step in told]
    reader = Reader(SOCKET, "ws://nowhere", no_ticket, online=list(online))
    return Trial(
        delivery=delivery,
        act=ACTS[act],
        plan=TrialPlan(),
        history=history,
        verdict=check(history),
        window=window,
        unanswered=0,
        asked_at={key(step): float(step) for step in range(1, events + 1)},
        settled=settled,
        readers=[reader],
    )
