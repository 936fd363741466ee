"""The sentences of the first screen state the numbers of the tables, and say unknown without them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bridgekit_verify.report.chart import chart
from bridgekit_verify.report.drop_rates import (
    AS_COMMITTED,
    AS_REPORTED,
    BEFORE,
    DropTables,
    MalformedTable,
    read_drop_tables,
)
from bridgekit_verify.report.findings import Table
from bridgekit_verify.report.priorities import fix_works, priority_findings
from bridgekit_verify.report.summary import actions, answer, risks, routing_note, scope, size_text
from tests.verify.report import drop_tables as build
from tests.verify.report.drop_tables import ALL, EACH, EVERY, NONE, STEPS, Counts
from tests.verify.report.notebooks import executed, report_of, tabulated


def read(*tables: Table) -> DropTables:
    return read_drop_tables(report_of(executed("10_a", *map(tabulated, tables))))


EXAMPLE = read(*build.drop_tables())
NO_TABLES = read()


def with_steps(changes: dict[tuple[str, str], Callable[[str], Counts]]) -> Table:
    return build.drop_rates({**STEPS, **changes})


def test_answer_is_no_if_nothing_arrives_and_no_fix_changes_that() -> None:
    found = answer(EXAMPLE)
    assert found.verdict == "no"
    assert found.first == (
        f"No: of {ALL} events, none reaches its user, and none of the audit's three fixes changes that, alone or"
        " together."
    )
    assert found.second == (
        f"In the rebuilt chain, four small repairs deliver all {ALL}; without the first one, the others show {ALL // 2}"
        " to the wrong user."
    )


@pytest.mark.parametrize(
    ("before", "start"),
    [
        (EVERY, f"Yes: all {ALL} events reach their user"),
        ((10, 0, 0), f"No: of {ALL} events, only {10 * 7} reach their user"),
        ((10, 5, 0), f"No: of {ALL} events, only {10 * 7} reach their user, and {5 * 7} reach another one"),
        ((EACH, 1, 0), f"No: all {ALL} events reach their user, and 7 reach another one as well"),
    ],
)
def test_answer_follows_the_code_as_committed(before: Counts, start: str) -> None:
    tables = read(with_steps({key: lambda kind: before for key in STEPS if key[0] == AS_COMMITTED}))
    assert str(answer(tables)).startswith(start)


def test_answer_names_the_fix_that_does_most() -> None:
    tables = read(
        with_steps({(AS_COMMITTED, "fix 3"): lambda kind: (30, 1, 0), (AS_COMMITTED, "fix 1"): lambda kind: (9, 0, 0)})
    )
    assert f"; of the audit's fixes, Fix 3 does most: 210 of {ALL}, and 7 reach another one." in answer(tables).first


def test_answer_says_that_no_fix_delivers_more_if_all_deliver_less() -> None:
    tables = read(
        with_steps(
            {(AS_COMMITTED, name): (lambda kind: (5, 0, 0)) for chain, name in STEPS if chain == AS_COMMITTED}
            | {(AS_COMMITTED, BEFORE): lambda kind: (6, 0, 0)}
        )
    )
    assert answer(tables).first.endswith("none of the audit's three fixes delivers more, alone or together.")


def test_answer_is_unknown_without_tables() -> None:
    found = answer(NO_TABLES)
    assert (found.verdict, str(found)) == (
        "unknown",
        "Unknown: the drop rates were not measured. The repairs were not measured.",
    )


def test_repairs_that_do_not_suffice_are_not_said_to_deliver_everything() -> None:
    tables = read(build.drop_rates(), build.repairs(delivered=(0, 0, 10, 20), leaked=(0, 0, 0, 3)))
    assert f"four small repairs deliver 20 of {ALL} and show 3 to another user." in answer(tables).second


def test_a_bar_is_split_only_where_the_kinds_differ() -> None:
    rows = {row.label: row for row in chart(EXAMPLE)["The audit's fixes"]}
    committed, reported = rows["Fix 1: thread in run id"].committed, rows["Fix 1: thread in run id"].reported
    assert committed is not None
    assert reported is not None
    assert (len(committed.parts), committed.text) == (1, "100 % dropped")
    assert (len(reported.parts), reported.text) == (7, "2 of 7 kinds drop, 1 leaks")
    assert "prefixes of one another: 40 of 60 dropped" in reported.alt


def test_the_kinds_in_use_come_first() -> None:
    step = EXAMPLE.step(AS_REPORTED, "fix 1")
    assert step is not None
    assert [kind.in_use for kind in step.kinds] == [True] * 3 + [False] * 4


def test_a_share_that_is_not_exact_is_not_rounded_to_0_or_100() -> None:
    def one_lost(kind: str) -> Counts:
        return (EACH - 1, 0, 0)

    rows = chart(read(with_steps({(AS_COMMITTED, BEFORE): one_lost})))["The audit's fixes"]
    assert rows[0].committed is not None
    assert rows[0].committed.text == "1.7 % dropped"


def test_risks_are_leak_then_loss_then_undetected_failure() -> None:
    leak, loss, undetected = risks(EXAMPLE)
    assert [risk.kind for risk in (leak, loss, undetected)] == ["leak", "loss", "undetected"]
    assert leak.when == "after some of the repairs"
    assert leak.sentences == (
        f"{ALL // 2} of {ALL} events reach another user after repairs 2, 3 and 4 without repair 1.",
        "If routing were the only defect, Fix 1 would leak in 1 of 7 kinds of thread id: “prefixes of one another”"
        " (40 of 60).",
    )
    assert loss.when == "today"
    assert loss.sentences == (
        f"{ALL} of {ALL} events do not reach their user.",
        f"Dropped if routing were the only defect: with Fix 1 100 of {ALL}, Fixes 1 and 2 with the method 40 of {ALL}"
        " and Fix 3 none.",
    )
    assert undetected.when == "after Fix 1"
    assert undetected.sentences[0].startswith(
        f"With all three fixes in place, 168 of {ALL} events are reported as sent"
    )


def test_a_risk_that_exists_today_says_so() -> None:
    leak, _, undetected = risks(
        read(*[with_steps({(AS_COMMITTED, BEFORE): lambda kind: (0, 2, 30)}), *build.drop_tables()[1:]])
    )
    assert (leak.when, undetected.when) == ("today", "today")
    assert leak.sentences[0] == f"14 of {ALL} events reach another user."
    assert undetected.sentences[0].startswith("As committed, 210 of")


def test_risks_without_measurements_are_unknown_and_not_absent() -> None:
    assert [risk.when for risk in risks(NO_TABLES)] == ["unknown"] * 3


def test_risks_that_do_not_occur_are_not_observed() -> None:
    tables = read(
        build.drop_rates({key: lambda kind: EVERY for key in STEPS}), build.repair_subsets(lambda made: (ALL, 0))
    )
    assert [risk.when for risk in risks(tables)] == ["not observed"] * 3


def test_actions_state_size_gain_and_what_arrives() -> None:
    found = actions(EXAMPLE)
    assert [(each.order, each.size, each.gain, each.fate.delivered) for each in found] == [
        (1, "2 lines become 1", 0, 0),
        (2, "9 lines become 2", 0, 0),
        (3, "1 line added", 168, 168),
        (4, "8 lines become 5", ALL - 168, ALL),
    ]


def test_the_first_gain_is_counted_from_the_code_as_committed() -> None:
    tables = read(
        with_steps({(AS_COMMITTED, BEFORE): lambda kind: (1, 0, 0)}), build.repairs(delivered=(10, 10, 20, ALL))
    )
    assert [each.gain for each in actions(tables)] == [3, 0, 10, ALL - 20]


@pytest.mark.parametrize(
    ("removed", "added", "text"),
    [(0, 1, "1 line added"), (0, 3, "3 lines added"), (2, 0, "2 lines removed"), (1, 4, "1 line becomes 4")],
)
def test_a_size_is_stated_in_lines(removed: int, added: int, text: str) -> None:
    assert size_text(removed, added) == text


def test_alternatives_are_divided_by_whether_they_deliver_everything() -> None:
    assert routing_note(EXAMPLE) == (
        "In place of repair 2, Fix 2 with its method and Fix 3 would deliver everything as well. Not enough in its"
        f" place: Fix 1 (drops 100, leaks 40) and Fix 2 as written (drops {ALL})."
    )
    assert routing_note(NO_TABLES) == ""


def test_scope_counts_kinds_and_combinations() -> None:
    assert scope(EXAMPLE) == (
        "Each chain ran with 7 kinds of thread id: 3 in use and 4 stress tests.",
        "Of the 16 combinations of the four repairs, one delivers every event without a leak: all four together.",
    )


def test_scope_names_no_single_combination_if_several_are_enough() -> None:
    tables = read(build.drop_rates(), build.repair_subsets(lambda made: (ALL if made[1] else 0, 0)))
    assert scope(tables)[1] == "Of the 16 combinations of the four repairs, eight deliver every event without a leak."


def test_priorities_follow_what_the_fixes_deliver() -> None:
    critical, important, optional, monitoring = priority_findings(EXAMPLE)
    assert [each.right for each in (critical, important, optional)] == ["no", "no", "no"]
    assert f"Fix 1 alone delivers 320 of {ALL} events and leaks 40" in critical.answer
    assert f"Fix 3 delivers {ALL} of {ALL} events." in critical.answer
    assert "100 more than Fix 1, called critical" in optional.answer
    assert "as many" in important.answer
    assert monitoring.right == "as worded, but insufficient"
    assert f"168 of {ALL} events are routed and reported as sent" in monitoring.answer
    assert [each.works for each in (critical, important, optional, monitoring)] == ["fails"] * 4


def test_priorities_are_right_if_the_first_two_fixes_suffice() -> None:
    sufficient = {(AS_REPORTED, name): (lambda kind: EVERY) for chain, name in STEPS if chain == AS_REPORTED}
    honest = {(AS_COMMITTED, name): (lambda kind: NONE) for chain, name in STEPS if chain == AS_COMMITTED}
    found = priority_findings(read(with_steps({**sufficient, **honest})))
    assert [each.right for each in found] == ["yes"] * 4
    assert [each.verdict for each in found] == ["holds"] * 4


def test_a_backup_that_helps_without_being_enough_is_insufficient() -> None:
    tables = read(with_steps({(AS_REPORTED, "fixes 1 and 2 as written"): lambda kind: (EACH - 1, 0, 0)}))
    assert priority_findings(tables)[1].right == "as worded, but insufficient"
    assert "93 more" in priority_findings(tables)[1].answer


def test_priorities_of_fixes_that_were_not_measured_are_unknown() -> None:
    tables = read(build.drop_rates({(AS_COMMITTED, BEFORE): lambda kind: NONE}))
    assert [each.right for each in priority_findings(tables)[:3]] == ["unknown"] * 3
    assert priority_findings(NO_TABLES) == ()
    assert fix_works(NO_TABLES, 1) == "unknown"


def test_a_fix_works_only_if_everything_arrives_without_a_leak() -> None:
    tables = read(
        with_steps({(AS_COMMITTED, "fix 1"): lambda kind: (EACH, 1, 0), (AS_COMMITTED, "fix 3"): lambda kind: EVERY})
    )
    assert [fix_works(tables, number) for number in (1, 2, 3)] == ["fails", "fails", "works"]


def test_a_table_without_a_column_is_an_error_that_names_it() -> None:
    broken = Table(name="repairs", caption="", columns=("order", "repair"), records=())
    with pytest.raises(
        MalformedTable, match=r"the table repairs cannot be used .* no column 'purpose', 'lines removed'"
    ):
        read(broken)


@pytest.mark.parametrize("delivered", [ALL + 1, -1, 0.5, None, True])
def test_counts_that_contradict_each_other_are_an_error(delivered: object) -> None:
    subsets = build.repair_subsets()
    row = {**subsets.records[0], "delivered": delivered}
    broken = Table(name=subsets.name, caption="", columns=subsets.columns, records=(row,))
    with pytest.raises(MalformedTable, match="repair_subsets"):
        read(broken)
