"""A report with every part: the ten links, the audit's claims, what it missed, and the part for engineers."""

from __future__ import annotations

from typing import Any

from bridgekit_verify.report.findings import Finding, Table
from bridgekit_verify.report.report_data import Report
from tests.verify.report.drop_tables import drop_tables
from tests.verify.report.notebooks import drawn, executed, finding, recorded, report_of, tabulated

INSUFFICIENT = "as worded, but insufficient"
LINKS: dict[int, tuple[str, str, str, str]] = {
    1: ("App startup", "working", INSUFFICIENT, "fails"),
    2: ("SupervisorAgent", "working", "yes", "works"),
    3: ("AgentRegistry", "working", "no", "fails"),
    4: ("ExecutionEngine", "working", "yes", "works"),
    5: ("AgentExecutionCore", "working", INSUFFICIENT, "fails"),
    6: ("BaseAgent", "working", "yes", "works"),
    7: ("WebSocketBridgeAdapter", "working", "yes", "works"),
    8: ("Event emission", "working", "no", "fails"),
    9: ("AgentWebSocketBridge routing", "broken", "yes", "fails"),
    10: ("Hub and sockets", "not examined", "not examined", "fails"),
}
"""By number: name, the audit's status, and the answers to both questions."""

FAULTS = Table(
    name="faults",
    caption="The faults",
    columns=("fault", "hurts", "in the world"),
    records=({"fault": "half_open", "hurts": "the network", "in the world": "a laptop that went to sleep"},),
    measurement=False,
)
FAULT_MATRIX = Table(
    name="fault_matrix",
    caption="Lost events by fault",
    columns=("fault", "lost"),
    records=({"fault": "half_open", "lost": 12}, {"fault": "none", "lost": 0}),
)


def link_finding(number: int, **changes: Any) -> Finding:
    name, reported, right, works = LINKS[number]
    fields = {
        "title": f"Link {number} · {name}",
        "link": number,
        "claim": f"Link {number} is {reported}.",
        "reported": reported,
        "verdict": {"yes": "holds", "not examined": "unknown"}.get(right, "does not hold"),
        "audit_right": right,
        "works": works,
        "answer": f"As committed, it {works}: evidence of link {number}.",
        "before": (number, 60),
        "after": (60, 60),
        "experiment": "broken on purpose" if works == "works" else "",
        "sound": "holds",
    }
    return finding(f"link-{number}", **{**fields, **changes})


def claim(key: str, **changes: Any) -> Finding:
    fields = {"link": None, "title": f"Title of {key}", "claim": f"Claim of {key}.", "answer": f"Answer of {key}."}
    return finding(key, **{**fields, **changes})


def example_report(*tables: Table) -> Report:
    """Return the report; `tables` replace the four tables of notebook 10."""
    links = [executed(f"{number:02d}_link", recorded(link_finding(number))) for number in LINKS]
    shown = [tabulated(each) for each in tables or drop_tables()]
    claims = [claim(key) for key in ("fix-1", "fix-2", "fix-3", "step-1", "claim-lost")]
    chain = claim("chain", reported="broken", before=(0, 200), after=(200, 200))
    ours = {"reported": "ours", "before": None, "after": None}
    return report_of(
        executed("00_overview", recorded(chain)),
        *links,
        executed("10_before_and_after", *shown, drawn("drop_rates"), *map(recorded, claims)),
        executed("11_missed", recorded(claim("missed-leaks", reported="fix")), drawn("missed_leaks")),
        executed("12_faults", recorded(claim("fault-matrix", **ours)), tabulated(FAULT_MATRIX), tabulated(FAULTS)),
        executed("13_scale", recorded(claim("scale-edges", **ours))),
        executed("14_trust", recorded(claim("trust-coverage", **ours))),
    )
