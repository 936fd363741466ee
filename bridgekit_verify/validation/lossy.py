"""A world that loses frames at a known rate: what the measuring is held against. It stands outside the chain.

A fault, not a defect: no link is changed. Every socket takes each frame, and the sender is told so; some of the
frames are gone all the same, as they are when a network in between drops them.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from bridgekit.events import Frame
from bridgekit.ids import ThreadId, UserId
from bridgekit.transport.hub import Connection, Hub
from bridgekit_verify.variants import Variant

__all__ = ["HubThatLoses", "in_a_lossy_world"]


class HubThatLoses(Hub):
    """Loses each frame with probability p, each on its own; `dropped` counts them, and tells nobody.

    Which frames are lost depends on seed, p, thread and `seq` alone, and not on what is scheduled when. So the
    sockets of one thread lose the same ones.
    """

    def __init__(self, p: float, seed: int = 0) -> None:
        if not 0 <= p <= 1:
            raise ValueError(f"a probability is between 0 and 1, not {p}")
        super().__init__()
        self.p = p
        self.seed = seed
        self.dropped = 0

    def attach(self, connection: Connection) -> None:
        super().attach(_Lossy(connection, self._loses))

    def detach(self, connection: Connection) -> None:
        super().detach(_Lossy(connection, self._loses))

    def _loses(self, frame: Frame) -> bool:
        # p is part of the draw: else what is lost at 10 % would be lost at 20 % too, and the two no separate trials.
        drawn = random.Random(f"{self.seed}:{self.p}:{frame.event.thread_id}:{frame.seq}").random()
        lost = drawn < self.p
        self.dropped += lost
        return lost


@dataclass(frozen=True)
class _Lossy:
    """A Connection behind which frames are lost. Two around one connection are equal, so that it can be detached."""

    connection: Connection
    loses: Callable[[Frame], bool] = field(compare=False)

    @property
    def thread_id(self) -> ThreadId:
        return self.connection.thread_id

    @property
    def user_id(self) -> UserId:
        return self.connection.user_id

    def put(self, frame: Frame) -> bool:
        return True if self.loses(frame) else self.connection.put(frame)

    def force_reconnect(self) -> None:
        self.connection.force_reconnect()


def in_a_lossy_world(variant: Variant, hub: HubThatLoses) -> Variant:
    """That variant with this hub, for one measurement.

    Startup's own checks are left out: they send events too, and would refuse to start by chance.
    """
    return replace(variant, name=f"{variant.name}, loss {hub.p:g}", hub=lambda _: hub, self_checks=())
