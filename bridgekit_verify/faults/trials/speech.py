"""What agents say in an experiment: a run with the fault in the middle of it, and one when all is mended."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Final

import anyio

from bridgekit.errors import ShuttingDown, StoreAway
from bridgekit_verify.faults.trials.acts import Act, Scene
from bridgekit_verify.faults.trials.hands import Hand
from bridgekit_verify.faults.trials.notes import Notes
from bridgekit_verify.faults.trials.readers import Reader
from bridgekit_verify.faults.trials.worker import Order
from bridgekit_verify.measure.families import Owned

__all__ = ["EVENTS_A_STEP", "SETTLE_SECONDS", "Plan", "Speech", "speak", "speak_until_heard"]

PASSING: Final = (StoreAway.__name__, ShuttingDown.__name__)
"""Errors with which a run is refused that may be asked for again."""
AGAIN_SECONDS: Final = 0.1
FORGETFUL_SECONDS: Final = 1.0
"""How long one who forgets is waited for; what has not come by then does not come."""
EVENTS_A_STEP: Final = 3
RUNS_AT_MOST: Final = 10
"""First runs that may go by before a fault begins, on a machine that hardly lets the experiment run."""
SETTLE_SECONDS: Final = 60.0
"""How long users may take, when all is mended, to read what they are owed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How long things last. A step is three events."""

    steps: int = 20
    pace_seconds: float = 0.05
    begins_seconds: float = 0.3
    """When the fault begins, from the first run's start."""
    lasts_seconds: float = 0.4
    after_steps: int = 4
    """Steps of a second run, when all is mended: its end tells that the first one's events are through, or lost."""

    @property
    def seconds(self) -> float:
        """How long both runs take, without what it takes to mend things."""
        return (self.steps + self.after_steps) * self.pace_seconds + self.lasts_seconds


@dataclass
class Speech:
    """What agents say while the fault comes and goes: time passes for the fault as it does for them.

    On a machine with other work a fault of so many seconds might else find them silent, and cost nothing.
    """

    plan: Plan
    notes: Notes
    requests: Sequence[str] = ()

    async def meanwhile(self, seconds: float) -> None:
        steps = max(int(seconds / self.plan.pace_seconds) - 1, 1)
        wanted = {request: self.notes.said[request] + EVENTS_A_STEP * steps for request in self.requests}
        await anyio.sleep(seconds)
        with anyio.move_on_after(SETTLE_SECONDS):
            await self.notes.until_said(wanted)

    @property
    def far_from_over(self) -> bool:
        most = max(self.notes.said[request] for request in self.requests)
        return most <= EVENTS_A_STEP * self.plan.steps / 2


async def speak(act: Act, scene: Scene, owned: Sequence[Owned], speech: Speech, name: str) -> tuple[float, float]:
    """The first run, with the fault in the middle of it; the window of the fault.

    Where the machine let the run go by before the fault could begin, there is another one.
    """
    plan, notes = speech.plan, speech.notes
    for number in range(1, RUNS_AT_MOST + 1):
        orders = [_order(name, each, f"during {number}", plan.steps, plan, act, notes) for each in owned]
        speech.requests = [order.request for order in orders]
        for order in orders:
            await scene.deployment.agents.carry(order)
        await speech.meanwhile(plan.begins_seconds)
        if speech.far_from_over or number == RUNS_AT_MOST:
            break
        await notes.until_over(speech.requests)
    begins = time.time()
    await act.during(scene, plan.lasts_seconds)
    mended = time.time()
    with anyio.move_on_after(SETTLE_SECONDS):
        await notes.until_over(speech.requests)
    return begins, mended


async def speak_until_heard(
    scene: Scene, owned: Owned, reader: Reader, plan: Plan, act: Act, notes: Notes, name: str
) -> None:
    """The last run, when all is mended: its end tells that what came before is through, or lost.

    One who forgets may lose this end too, where he has not noticed yet that his socket is gone: then one more is told.
    """
    patience = SETTLE_SECONDS if scene.deployment.delivery.resumes else FORGETFUL_SECONDS
    for number in count(1):
        order = _order(name, owned, f"after {number}", plan.after_steps, plan, act, notes)
        await reader.until_online()
        await _carry_until_taken(scene.deployment.agents, order, notes)
        with anyio.move_on_after(patience):
            await reader.until_ended(order.request)
            return


async def _carry_until_taken(agents: Hand, order: Order, notes: Notes) -> None:
    """Let an agent run; one that is refused for the moment is asked for again, as its user would."""
    while True:
        await agents.carry(order)
        await notes.until_over([order.request])
        error = notes.ended.pop(order.request)
        if not error.startswith(PASSING):
            return
        await anyio.sleep(AGAIN_SECONDS)


def _order(name: str, owned: Owned, when: str, steps: int, plan: Plan, act: Act, notes: Notes) -> Order:
    request = _request(name, owned, when)
    notes.owners[request] = owned
    return Order(
        request=request,
        thread_id=owned.thread_id,
        user_id=owned.user_id,
        steps=steps,
        pace_seconds=plan.pace_seconds,
        padding_bytes=act.padding_bytes,
    )


def _request(name: str, owned: Owned, when: str) -> str:
    # A colon ends the experiment's name for the worker, and a colon and a space the request in what agents think.
    return f"{name}:{owned.thread_id}:{when}"
