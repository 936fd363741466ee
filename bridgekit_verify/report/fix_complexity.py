"""The finding about the audit's "fix complexity: low, a single line change"."""

from __future__ import annotations

from bridgekit_verify.measure.statistics import Sample
from bridgekit_verify.report.claims import verdict_of
from bridgekit_verify.report.findings import Finding
from bridgekit_verify.studies.drops import COMMITTED, FixDrops
from bridgekit_verify.studies.repair_combinations import RepairStudy

__all__ = ["complexity_claim"]

NOT_REBUILT = (
    "The original code needs more changes than the rebuilt chain. We read the original supervisor, and the manager that"
    " it calls, but did not rebuild them. The rebuilt chain already passes the thread on to each link."
)


def complexity_claim(drops: FixDrops, repairs: RepairStudy) -> Finding:
    """Test on the code as committed whether Fix 1, the audit's single line, delivers every event."""
    after, kinds = drops.total(COMMITTED, "fix 1"), drops.counts[COMMITTED]["fix 1"]
    changes = [repairs.lines[name] for name in repairs.needed]
    removed, added = sum(change.removed for change in changes), sum(change.added for change in changes)
    return Finding(
        id="claim-complexity",
        title="Fix complexity · a change of a single line",
        claim="Fix 1 is of low complexity: after a change of one line, users receive updates as designed.",
        reported="impact",
        verdict=verdict_of(not drops.affected(COMMITTED, "fix 1")),
        answer=f"On the code as committed, Fix 1 delivers {after.delivered:,} of {after.expected:,} events with"
        f" {len(kinds)} kinds of thread id. To deliver every event, the chain needs {len(repairs.needed)}"
        f" {'repair' if len(repairs.needed) == 1 else 'repairs'}."
        f" Together, the needed repairs remove {removed} lines from the rebuilt chain and add {added}.",
        evidence=(*repairs.sentences(), NOT_REBUILT),
        rule="The claim holds if the code as committed with Fix 1 alone delivers every event without a leak.",
        sample=Sample(min(counts.expected for counts in kinds.values()), "events"),
    )
