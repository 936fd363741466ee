"""Findings about the audit's priorities and its advice on monitoring, computed from the drop rates of notebook 10.

Each priority is judged by a rule, which its finding states. The rules compare the events that the fixes deliver.
"""

from __future__ import annotations

from typing import Final

from bridgekit_verify.measure.drops import EventCounts
from bridgekit_verify.report.drop_tables import AS_COMMITTED, AS_REPORTED, FIXES, DropTables
from bridgekit_verify.report.findings import AuditAnswer, Finding, Verdict

__all__ = ["priority_findings"]

WRITTEN: Final = {1: ("fix 1",), 2: ("fix 2 as written", "fix 2 with its method"), 3: ("fix 3",)}
"""The steps that measure each fix of the audit. Each fix's first step is the fix as the audit writes it."""
_VERDICTS: Final[dict[AuditAnswer, Verdict]] = {"yes": "holds", "unknown": "unknown"}


def priority_findings(tables: DropTables) -> tuple[Finding, ...]:
    """Return one finding for each priority of the audit and one for its advice on monitoring.

    Without tables, return none.
    """
    if tables.notebook is None:
        return ()
    return _critical(tables), _important(tables), _optional(tables), _monitoring(tables)


def _finding(
    tables: DropTables, number: int, title: str, claim: str, right: AuditAnswer, answer: str, rule: str
) -> Finding:
    return Finding(
        id=f"claim-priority-{number}",
        title=title,
        claim=claim,
        reported="priority",
        verdict=_VERDICTS.get(right, "does not hold"),
        audit_right=right,
        answer=answer,
        evidence=_committed(tables, number),
        rule=rule,
    )


def _committed(tables: DropTables, number: int) -> tuple[str, ...]:
    found = [(FIXES[name], tables.step(AS_COMMITTED, name)) for name in WRITTEN[number]]
    return tuple(f"On the code as committed, {name} delivers {_text(step.total)}." for name, step in found if step)


def _text(counts: EventCounts, leak: str = "leaks") -> str:
    """Return the delivered and the leaked events as text. `leak` is the verb in the number of its subject."""
    text = f"{counts.delivered:,} of {counts.expected:,} events"
    if not counts.leaked:
        return text
    others = f"of the other {counts.dropped:,}" if counts.leaked == counts.dropped_and_leaked else "events"
    return f"{text}, and {leak} {counts.leaked:,} {others}"


def _alone(tables: DropTables, name: str) -> EventCounts | None:
    step = tables.step(AS_REPORTED, name)
    return step.total if step is not None and step.total.expected else None


def _critical(tables: DropTables) -> Finding:
    """Judge "Fix 1 is critical": right if no other fix delivers more on the chain as reported."""
    one, three = _alone(tables, "fix 1"), _alone(tables, "fix 3")
    others = {
        name: counts
        for name in ("fix 2 as written", "fix 2 with its method", "fix 3")
        if (counts := _alone(tables, name))
    }
    if one is None or three is None:
        right, answer = _not_measured()
    else:
        better = [name for name, counts in others.items() if _rank(counts) > _rank(one)]
        right = "no" if better else "yes"
        more = " ".join(f"{FIXES[name]} delivers {_text(others[name])}." for name in better)
        answer = f"With only link 9 broken, Fix 1 alone delivers {_text(one)}. " + (
            more or "No other fix alone delivers more events."
        )
    rule = (
        "The audit is right if no other fix alone delivers more events than Fix 1, or as many events with fewer leaks."
    )
    return _finding(
        tables,
        1,
        "Priority · Fix 1 is critical",
        "Fix 1 is critical, and must be made first.",
        right,
        answer,
        rule,
    )


def _important(tables: DropTables) -> Finding:
    """Judge "Fix 2 is important as a backup to Fix 1": right if Fixes 1 and 2 deliver every event without a leak."""
    one = _alone(tables, "fix 1")
    written, supplied = _alone(tables, "fixes 1 and 2 as written"), _alone(tables, "fixes 1 and 2 with the method")
    if one is None or written is None:
        right, answer = _not_measured()
    else:
        right = "yes" if written.complete else "as worded, but insufficient" if _rank(written) > _rank(one) else "no"
        gain = written.delivered - one.delivered
        change = f"{gain:,} higher than" if gain > 0 else f"{-gain:,} lower than" if gain < 0 else "the same as"
        answer = (
            f"With only link 9 broken, Fix 1 alone delivers {_text(one)}. Fixes 1 and 2 as written deliver"
            f" {_text(written, 'leak')}. The number of delivered events is {change} with Fix 1 alone."
        )
        if supplied is not None:
            answer += (
                " If the code had the method that Fix 2 calls, Fixes 1 and 2 together would deliver"
                f" {_text(supplied, 'leak')}."
            )
    rule = (
        "The audit is right if Fixes 1 and 2 as written deliver every event without a leak. The audit's statement is"
        " insufficient if Fixes 1 and 2 as written deliver more events than Fix 1 alone, but drop or leak some."
    )
    return _finding(
        tables, 2, "Priority · Fix 2 is important", "Fix 2 is important, as a backup to Fix 1.", right, answer, rule
    )


def _optional(tables: DropTables) -> Finding:
    """Judge "Fix 3 is optional": right if Fixes 1 and 2 deliver every event without Fix 3."""
    one, three = _alone(tables, "fix 1"), _alone(tables, "fix 3")
    without = _alone(tables, "fixes 1 and 2 as written")
    if one is None or three is None or without is None:
        right, answer = _not_measured()
    else:
        right = "yes" if without.complete else "no"
        more = three.delivered - one.delivered
        compared = f"{more:,} more than" if more > 0 else f"{-more:,} fewer than" if more < 0 else "as many as"
        answer = (
            f"With only link 9 broken, Fix 3, which the audit calls optional, delivers {_text(three)}: {compared}"
            " Fix 1, which the audit calls critical. Without Fix 3, Fixes 1 and 2 as written deliver"
            f" {_text(without, 'leak')}."
        )
    rule = "The audit is right if Fixes 1 and 2 as written deliver every event without a leak."
    return _finding(tables, 3, "Priority · Fix 3 is optional", "Fix 3 is optional and can wait.", right, answer, rule)


def _monitoring(tables: DropTables) -> Finding:
    """Judge "Monitor routing failures": sufficient only if the bridge reports no dropped event as sent."""
    steps = tables.fixes(AS_COMMITTED)
    before = tables.step(AS_COMMITTED)
    measured = [step for step in (before, *steps) if step is not None]
    right: AuditAnswer
    if not measured:
        right, answer = _not_measured()
    else:
        worst = max(reversed(measured), key=lambda step: step.false_success)
        right = "as worded, but insufficient" if worst.false_success else "yes"
        where = "as committed" if worst is before else f"as committed with {FIXES[worst.name]}"
        answer = (
            f"On the code {where}, {worst.false_success:,} of {worst.total.expected:,} events are routed and reported"
            " as sent, but their user does not read them. The bridge counts no routing failure for an event that it"
            " reports as sent."
            if worst.false_success
            else "Every event that is reported as sent reaches its user, so only routing failures have to be counted."
        )
    return Finding(
        id="claim-monitoring",
        title="Advice · monitor routing failures",
        claim="Monitoring for routing failures shows when events do not reach their user.",
        reported="advice",
        verdict=_VERDICTS.get(right, "does not hold"),
        audit_right=right,
        answer=answer,
        evidence=("To detect lost events, compare the events that the user's socket reads with the emitted events.",),
        rule="The audit is right if the user reads every event that is reported as sent.",
    )


def _rank(counts: EventCounts) -> tuple[int, int]:
    """Order fixes by delivered events, then by fewer leaks."""
    return counts.delivered, -counts.leaked


def _not_measured() -> tuple[AuditAnswer, str]:
    return "unknown", "Unknown: the fixes were not measured."
