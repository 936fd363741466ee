"""Show the links and the answers of the probes as pandas tables, one row per link."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from bridgekit_verify.links import LINKS
from bridgekit_verify.probes.probes import Probe, ProbeAnswer

__all__ = ["chain_table", "probe_table", "status_table"]

_WORDS = {ProbeAnswer.HOLDS: "works", ProbeAnswer.DOES_NOT_HOLD: "fails", ProbeAnswer.UNKNOWN: "unknown"}
"""The report's word for each answer. In the report, a link "works" or "fails", and a claim "holds" or does not."""


def chain_table() -> pd.DataFrame:
    """Return one row per link: its name, its module, what it passes on, and the audit's status."""
    return pd.DataFrame(
        {
            "link": link.number,
            "name": link.name,
            "module": link.module.__name__.rpartition(".")[2],
            "passes on": link.output,
            "audit says": link.reported,
        }
        for link in LINKS
    )


def probe_table(probes: Iterable[Probe]) -> pd.DataFrame:
    """Return one row per link: the audit's status, the probe's answer, and its evidence."""
    return pd.DataFrame(
        {
            "link": probe.link.number,
            "name": probe.link.name,
            "audit says": probe.link.reported,
            "when run": _WORDS[probe.answer],
            "evidence": probe.evidence,
        }
        for probe in probes
    )


def status_table(probes: Mapping[str, Sequence[Probe]]) -> pd.DataFrame:
    """Return one row per link: its name, the audit's status, and whether it works in each variant."""
    frame = pd.DataFrame({"link": [link.number for link in LINKS], "name": [link.name for link in LINKS]})
    frame["audit says"] = [link.reported for link in LINKS]
    for variant, answers in probes.items():
        frame[variant] = [_WORDS[probe.answer] for probe in answers]
    return frame
