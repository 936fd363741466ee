"""The verdicts on the audit's priorities and on its advice, word for word, for fixes that do more, less or as much."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from bridgekit_verify.report.drop_tables import AS_COMMITTED, AS_REPORTED, BEFORE, read_drop_tables
from bridgekit_verify.report.findings import Finding
from bridgekit_verify.report.priorities import priority_findings
from tests.verify.report.drop_tables import EVERY, STEPS, Counts, drop_rates, for_each_kind
from tests.verify.report.notebooks import executed, report_of, tabulated

TITLES = {
    "claim-priority-1": ("Priority · Fix 1 is critical", "Fix 1 is critical, and must be made first."),
    "claim-priority-2": ("Priority · Fix 2 is important", "Fix 2 is important, as a backup to Fix 1."),
    "claim-priority-3": ("Priority · Fix 3 is optional", "Fix 3 is optional and can wait."),
    "claim-monitoring": (
        "Advice · monitor routing failures",
        "Monitoring for routing failures shows when events do not reach their user.",
    ),
}
RULES = (
    "The audit is right if no other fix alone delivers more events than Fix 1, or as many events with fewer leaks.",
    "The audit is right if Fixes 1 and 2 as written deliver every event without a leak. The audit's statement is"
    " insufficient if Fixes 1 and 2 as written deliver more events than Fix 1 alone, but drop or leak some.",
    "The audit is right if Fixes 1 and 2 as written deliver every event without a leak.",
    "The audit is right if the user reads every event that is reported as sent.",
)
INSTEAD = "To detect lost events, compare the events that the user's socket reads with the emitted events."
UNKNOWN = ("unknown", "unknown", "Unknown: the fixes were not measured.")
INSUFFICIENT = "as worded, but insufficient"

Steps = Mapping[tuple[str, str], Callable[[str], Counts]]


def found(steps: Steps) -> tuple[Finding, ...]:
    return priority_findings(read_drop_tables(report_of(executed("10_a", tabulated(drop_rates(steps))))))


def reported(**counts: Counts) -> Steps:
    """Return the steps of the chain as reported, by name with underscores, each with the same counts for every kind."""
    return {(AS_REPORTED, name.replace("_", " ")): for_each_kind(*each) for name, each in counts.items()}


def test_each_finding_states_what_it_judges_and_its_rule() -> None:
    findings = found(STEPS)
    assert {each.id: (each.title, each.claim) for each in findings} == TITLES
    assert tuple(each.rule for each in findings) == RULES
    assert [each.reported for each in findings] == ["priority", "priority", "priority", "advice"]
    assert [each.evidence for each in findings] == [
        ("On the code as committed, Fix 1 delivers 0 of 420 events.",),
        (
            "On the code as committed, Fix 2 as written delivers 0 of 420 events.",
            "On the code as committed, Fix 2 with its method delivers 0 of 420 events.",
        ),
        ("On the code as committed, Fix 3 delivers 0 of 420 events.",),
        (INSTEAD,),
    ]


FIX_1 = "With only link 9 broken, Fix 1 alone delivers"
FIX_3 = "With only link 9 broken, Fix 3, which the audit calls optional, delivers"
WITHOUT_3 = "which the audit calls critical. Without Fix 3, Fixes 1 and 2 as written deliver"


@pytest.mark.parametrize(
    ("steps", "critical", "important", "optional"),
    [
        (
            STEPS,
            (
                "does not hold",
                "no",
                f"{FIX_1} 320 of 420 events, and leaks 40 of the other 100. Fix 2 with its method delivers 420 of 420"
                " events. Fix 3 delivers 420 of 420 events.",
            ),
            (
                "does not hold",
                "no",
                f"{FIX_1} 320 of 420 events, and leaks 40 of the other 100. Fixes 1 and 2 as written deliver 320"
                " of 420 events, and leak 40 of the other 100. The number of delivered events is the same"
                " as with Fix 1 alone. If the code had the method that Fix 2 calls, Fixes 1 and 2 together would"
                " deliver 380 of 420 events, and leak 40 of the other 40.",
            ),
            (
                "does not hold",
                "no",
                f"{FIX_3} 420 of 420 events: 100 more than Fix 1, {WITHOUT_3} 320 of 420 events, and leak 40 of the"
                " other 100.",
            ),
        ),
        (
            reported(
                fix_1=(10, 0, 0), fix_2_as_written=(10, 0, 0), fix_3=(10, 5, 0), fixes_1_and_2_as_written=(9, 0, 0)
            ),
            ("holds", "yes", f"{FIX_1} 70 of 420 events. No other fix alone delivers more events."),
            (
                "does not hold",
                "no",
                f"{FIX_1} 70 of 420 events. Fixes 1 and 2 as written deliver 63 of 420 events. The number of"
                " delivered events is 7 lower than with Fix 1 alone.",
            ),
            (
                "does not hold",
                "no",
                f"{FIX_3} 70 of 420 events, and leaks 35 of the other 350: as many as Fix 1, {WITHOUT_3} 63 of 420"
                " events.",
            ),
        ),
        (
            reported(
                fix_1=(20, 5, 0), fix_2_as_written=(20, 0, 0), fix_3=(10, 0, 0), fixes_1_and_2_as_written=(30, 0, 0)
            ),
            (
                "does not hold",
                "no",
                f"{FIX_1} 140 of 420 events, and leaks 35 of the other 280. Fix 2 as written delivers 140 of 420"
                " events.",
            ),
            (
                "does not hold",
                INSUFFICIENT,
                f"{FIX_1} 140 of 420 events, and leaks 35 of the other 280. Fixes 1 and 2 as written deliver 210 of"
                " 420 events. The number of delivered events is 70 higher than with Fix 1 alone.",
            ),
            ("does not hold", "no", f"{FIX_3} 70 of 420 events: 70 fewer than Fix 1, {WITHOUT_3} 210 of 420 events."),
        ),
        (
            reported(fix_1=(59, 0, 0), fix_3=EVERY, fixes_1_and_2_as_written=EVERY),
            ("does not hold", "no", f"{FIX_1} 413 of 420 events. Fix 3 delivers 420 of 420 events."),
            (
                "holds",
                "yes",
                f"{FIX_1} 413 of 420 events. Fixes 1 and 2 as written deliver 420 of 420 events. The number of"
                " delivered events is 7 higher than with Fix 1 alone.",
            ),
            ("holds", "yes", f"{FIX_3} 420 of 420 events: 7 more than Fix 1, {WITHOUT_3} 420 of 420 events."),
        ),
        (reported(fix_1=EVERY), UNKNOWN, UNKNOWN, UNKNOWN),
        (reported(fix_3=EVERY), UNKNOWN, UNKNOWN, UNKNOWN),
        (reported(fixes_1_and_2_as_written=EVERY), UNKNOWN, UNKNOWN, UNKNOWN),
    ],
)
def test_priorities_follow_what_the_fixes_deliver(
    steps: Steps, critical: tuple[str, ...], important: tuple[str, ...], optional: tuple[str, ...]
) -> None:
    verdicts = [(each.verdict, each.right, each.answer) for each in found(steps)]
    assert verdicts[:3] == [critical, important, optional]


def test_leaked_events_that_also_reach_their_user_are_no_part_of_the_others() -> None:
    critical = found(reported(fix_1=(59, 2, 0), fix_3=EVERY, fixes_1_and_2_as_written=EVERY))[0]
    assert f"{FIX_1} 413 of 420 events, and leaks 14 events." in critical.answer


def test_single_event_more_is_stated() -> None:
    one_more: Steps = {
        (AS_REPORTED, "fix 1"): for_each_kind(10, 0, 0),
        **dict.fromkeys(
            [(AS_REPORTED, "fix 3"), (AS_REPORTED, "fixes 1 and 2 as written")],
            lambda kind: (11 if kind == "uuid" else 10, 0, 0),
        ),
    }
    _, important, optional, _ = found(one_more)
    assert "71 of 420 events. The number of delivered events is 1 higher than with Fix 1 alone." in important.answer
    assert "delivers 71 of 420 events: 1 more than Fix 1" in optional.answer


READ = "Every event that is reported as sent reaches its user, so only routing failures have to be counted."


@pytest.mark.parametrize(
    ("steps", "verdict"),
    [
        ({(AS_COMMITTED, BEFORE): lambda kind: EVERY}, ("holds", "yes", READ)),
        ({(AS_COMMITTED, "fix 1"): lambda kind: EVERY}, ("holds", "yes", READ)),
        (reported(fix_1=EVERY), UNKNOWN),
        *(
            (
                {
                    (AS_COMMITTED, BEFORE): for_each_kind(0, 0, first),
                    (AS_COMMITTED, "fix 1"): lambda kind: (0, 0, 1),
                },
                (
                    "does not hold",
                    INSUFFICIENT,
                    f"On the code as committed{where}, {count} of 420 events are routed and reported as sent, but their"
                    " user does not read them. The bridge counts no routing failure for an event that it reports as"
                    " sent.",
                ),
            )
            for first, where, count in ((2, "", 14), (1, " with Fix 1", 7), (0, " with Fix 1", 7))
        ),
    ],
)
def test_advice_on_monitoring_follows_what_is_falsely_reported(steps: Steps, verdict: tuple[str, ...]) -> None:
    monitoring = found(steps)[3]
    assert (monitoring.verdict, monitoring.right, monitoring.answer) == verdict
