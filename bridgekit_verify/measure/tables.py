"""Tables (pandas) of measurements and of the families of thread ids."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import pandas as pd

from bridgekit_verify.measure.experiment import Measurement
from bridgekit_verify.measure.thread_id_families import FAMILIES, Families, families_by_name

__all__ = ["count_table", "family_table", "loss_table", "transcript"]

EXAMPLE_CHARACTERS: Final = 48
"""Maximum number of characters of an example id in a table."""


def count_table(measurements: Iterable[Measurement], **labels: Sequence[object]) -> pd.DataFrame:
    """Return one row per measurement, with counts of expected events and of their outcomes.

    Columns: variant, runs at once, events expected, delivered, dropped, misrouted, with no entitled socket, false
    success. `labels` are additional first columns, with one value per measurement. There is no confidence
    interval, because the cases are chosen and not sampled.
    """
    frame = pd.DataFrame([_counts(measurement) for measurement in measurements])
    for index, (name, values) in enumerate(labels.items()):
        frame.insert(index, name, list(values))
    return frame


def _counts(measurement: Measurement) -> dict[str, object]:
    verdict = measurement.verdict
    return {
        "variant": measurement.variant.name,
        "runs at once": measurement.workload.at_once,
        "expected": verdict.expected,
        "delivered": verdict.delivered,
        "dropped": verdict.lost,
        "misrouted": verdict.misrouted,
        "no socket": verdict.no_socket,
        "false success": verdict.false_success,
    }


def family_table(families: Families = FAMILIES) -> pd.DataFrame:
    """Return one row per family of thread ids: an example, whether ids of this kind are documented, and where."""
    return pd.DataFrame(
        {
            "thread ids": name,
            "example": _shortened(family.threads(1)[0].thread_id),
            "documented": family.documented,
            "source": str(family.source or ("your own" if family.own else "chosen as stress")),
        }
        for name, family in families_by_name(families).items()
    )


def _shortened(thread_id: str) -> str:
    return thread_id if len(thread_id) <= EXAMPLE_CHARACTERS else f"{thread_id[: EXAMPLE_CHARACTERS - 1]}…"


def loss_table(measurements: Iterable[Measurement]) -> pd.DataFrame:
    """Return one row per variant, link and reason, with the counts of dropped and of misrouted events."""
    rows = [
        {
            "variant": measurement.variant.name,
            "link": attribution.link,
            "reason": attribution.reason,
            "dropped": measurement.verdict.losses.get(attribution, 0),
            "misrouted": measurement.verdict.misroutes.get(attribution, 0),
        }
        for measurement in measurements
        for attribution in measurement.verdict.attributions
    ]
    return pd.DataFrame(rows, columns=["variant", "link", "reason", "dropped", "misrouted"])


def transcript(measurement: Measurement, *, frames: int = 10, misrouted: bool = False) -> pd.DataFrame:
    """Return the first frames that sockets read, in order.

    Columns: the socket's user and thread, the event's user, request and type, and `seq`.

    With `misrouted`, only frames that another user read are returned.
    """
    owners = {expectation.key: expectation.user_id for expectation in measurement.history.expected}
    rows = [
        {
            "socket of": arrival.socket.user_id,
            "thread": arrival.socket.thread_id,
            "event of": owners.get(arrival.key, "no user") if arrival.key else "no user",
            "request": arrival.key.request if arrival.key else "",
            "type": str(arrival.key.type) if arrival.key else "",
            "seq": arrival.seq,
        }
        for arrival in measurement.history.arrivals
    ]
    return pd.DataFrame([row for row in rows if not misrouted or row["socket of"] != row["event of"]][:frames])
