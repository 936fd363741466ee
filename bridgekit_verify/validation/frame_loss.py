"""Inject frame loss with a known probability, to check the measured rate.

The loss is a fault and not a defect: no link is changed. Every connection accepts each frame, and the receipt reports
the frame as sent, but some frames are lost, as in a network that drops frames.
"""

from __future__ import annotations

import random
from dataclasses import replace

from bridgekit.events import Frame
from bridgekit.ids import ThreadId
from bridgekit.transport.hub import Hub
from bridgekit_verify.variants import Variant

__all__ = ["HubThatLoses", "with_frame_loss"]


class HubThatLoses(Hub):
    """Drops each frame silently and independently with probability p. `dropped` counts the dropped frames.

    The choice of lost frames depends only on seed, p, thread and `seq`, and not on scheduling. All sockets of a thread
    lose the same frames.
    """

    def __init__(self, p: float, seed: int = 0) -> None:
        if not 0 <= p <= 1:
            raise ValueError(f"the probability of loss must be between 0 and 1, not {p}")
        super().__init__()
        self.p = p
        self.seed = seed
        self.dropped = 0

    def deliver(self, thread_id: ThreadId, frame: Frame) -> int:
        return sum([self._loses(frame) or each.put(frame) for each in self.connections(thread_id)])

    def _loses(self, frame: Frame) -> bool:
        # p is part of the seed, so that the frames lost at 10 % are independent of the frames lost at 20 %.
        drawn = random.Random(f"{self.seed}:{self.p}:{frame.event.thread_id}:{frame.seq}").random()
        lost = drawn < self.p
        self.dropped += lost
        return lost


def with_frame_loss(variant: Variant, hub: HubThatLoses) -> Variant:
    """Return the variant with the hub `hub` and without startup checks, for one measurement.

    The startup checks send events as well, so they would fail at random.
    """
    return replace(variant, name=f"{variant.name}, loss {hub.p:g}", hub=lambda _: hub, self_checks=())
