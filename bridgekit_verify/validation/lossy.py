"""Frame loss at a known rate, outside the chain, to compare measurements with.

It is a fault, not a defect: no link is changed. Every connection accepts each frame, and the sender gets a receipt that
reports it; some frames are lost nevertheless, as in a network that drops them.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from bridgekit.events import Frame
from bridgekit.ids import ThreadId, UserId
from bridgekit.transport.hub import Connection, Hub
from bridgekit_verify.variants import Variant

__all__ = ["HubThatLoses", "with_frame_loss"]


class HubThatLoses(Hub):
    """Loses each frame independently with probability p, silently; `dropped` counts them.

    The choice of lost frames depends only on seed, p, thread and `seq`, and not on scheduling. The sockets of one
    thread therefore lose the same frames.
    """

    def __init__(self, p: float, seed: int = 0) -> None:
        if not 0 <= p <= 1:
            raise ValueError(f"the probability of loss must be between 0 and 1, not {p}")
        super().__init__()
        self.p = p
        self.seed = seed
        self.dropped = 0

    def attach(self, connection: Connection) -> None:
        super().attach(_Lossy(connection, self._loses))

    def detach(self, connection: Connection) -> None:
        super().detach(_Lossy(connection, self._loses))

    def _loses(self, frame: Frame) -> bool:
        # p is part of the seed, so that frames lost at 10 % are independent of those lost at 20 %.
        drawn = random.Random(f"{self.seed}:{self.p}:{frame.event.thread_id}:{frame.seq}").random()
        lost = drawn < self.p
        self.dropped += lost
        return lost


@dataclass(frozen=True)
class _Lossy:
    """A connection behind which frames are lost.

    Two wrappers of one connection are equal, so that it can be detached.
    """

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


def with_frame_loss(variant: Variant, hub: HubThatLoses) -> Variant:
    """Return the variant with this hub, for one measurement.

    The startup checks are left out: they send events too, and would refuse to start at random.
    """
    return replace(variant, name=f"{variant.name}, loss {hub.p:g}", hub=lambda _: hub, self_checks=())
