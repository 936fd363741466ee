"""Which edge to choose: the two side by side, as measured here."""

from __future__ import annotations

import pandas as pd

from bridgekit_verify.capacity.capacity import CapacityStudy
from bridgekit_verify.capacity.crowd import SOCKETS, CrowdStudy

__all__ = ["edge_table"]


def edge_table(capacity: CapacityStudy, crowd: CrowdStudy) -> pd.DataFrame:
    """One row an edge: what it carries, what an event costs, what a socket weighs, and what it can stand beside."""
    return pd.DataFrame(
        {
            "edge": ladder.edge.name,
            "carries events/s": None if ladder.carries is None else round(ladder.carries),
            "CPU µs/event, with pauses": None if ladder.best is None else round(ladder.best.cpu_us, 1),
            "CPU µs/event, in a burst": round(crowd.of(ladder.edge).burst_us, 1),
            "KiB/idle socket": round(crowd.of(ladder.edge).of(SOCKETS).kib, 1),
            "can be had with": ladder.edge.stands,
        }
        for ladder in capacity.ladders
    )
