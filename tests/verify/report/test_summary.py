"""The sentences of the first screen state the numbers of the tables, and say unknown without them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import pytest

from bridgekit_verify.report.drop_chart import chart, unchanged
from bridgekit_verify.report.drop_tables import (
    AS_COMMITTED,
    AS_REPORTED,
    BEFORE,
    FIXES,
    DropTables,
    MalformedTable,
    read_drop_tables,
)
from bridgekit_verify.report.findings import Table
from bridgekit_verify.report.priorities import priority_findings
from bridgekit_verify.report.summary import actions, answer, number, order_note, risks, routing_note, scope, size_text
from tests.verify.report import drop_tables as build
from tests.verify.report.drop_tables import ALL, EACH, EVERY, NONE, STEPS, Counts
from tests.verify.report.example import claim
from tests.verify.report.notebooks import code, executed, report_of, tabulated


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
        f"In the rebuilt chain, none of {ALL} test events reaches its user, and none of the audit's three fixes changes"
        " that."
    )
    assert found.second == (
        f"Together, four repairs deliver all {ALL} events. Without repair 1, the other repairs leak {ALL // 2} events"
        " to another user."
    )


@pytest.mark.parametrize(
    ("before", "start"),
    [
        (EVERY, f"all {ALL} test events reach their user"),
        ((10, 0, 0), f"only {10 * 7} of {ALL} test events reach their user"),
        ((10, 5, 0), f"only {10 * 7} of {ALL} test events reach their user, and {5 * 7} reach another user"),
        ((EACH, 1, 0), f"all {ALL} test events reach their user, and 7 reach another user as well"),
    ],
)
def test_answer_follows_the_code_as_committed(before: Counts, start: str) -> None:
    tables = read(with_steps({key: lambda kind: before for key in STEPS if key[0] == AS_COMMITTED}))
    found = answer(tables)
    assert str(found).startswith(f"In the rebuilt chain, {start}")
    assert found.verdict == ("yes" if before == EVERY else "no")


def test_answer_names_the_fix_that_does_most() -> None:
    tables = read(
        with_steps({(AS_COMMITTED, "fix 3"): lambda kind: (30, 1, 0), (AS_COMMITTED, "fix 1"): lambda kind: (9, 0, 0)})
    )
    assert answer(tables).first.endswith(
        f". Of the audit's fixes, Fix 3 delivers most: 210 of {ALL} events and leaks 7."
    )


def test_answer_says_that_no_fix_delivers_more_if_all_deliver_less() -> None:
    tables = read(
        with_steps(
            {(AS_COMMITTED, name): (lambda kind: (5, 0, 0)) for chain, name in STEPS if chain == AS_COMMITTED}
            | {(AS_COMMITTED, BEFORE): lambda kind: (6, 0, 0)}
        )
    )
    assert answer(tables).first.endswith("none of the audit's three fixes delivers more events.")


def test_answer_is_unknown_without_tables() -> None:
    found = answer(NO_TABLES)
    assert (found.verdict, str(found)) == (
        "unknown",
        "Unknown: the drop rates were not measured. The repairs were not measured.",
    )


def test_answer_is_unknown_if_no_event_was_expected() -> None:
    rates = build.drop_rates({(AS_COMMITTED, BEFORE): lambda kind: NONE})
    empty = build.table("drop_rates", [{**row, "expected": 0, "lost": 0} for row in rates.records])
    assert answer(read(empty)).verdict == "unknown"


def test_repairs_that_do_not_suffice_are_not_said_to_deliver_everything() -> None:
    tables = read(build.drop_rates(), build.repairs(delivered=(0, 0, 10, 20), leaked=(0, 0, 0, 3)))
    assert f"four repairs deliver 20 of {ALL} events and leak 3 to another user." in answer(tables).second


def test_a_bar_is_split_only_where_the_kinds_differ() -> None:
    rows = {row.label: row for row in chart(EXAMPLE)["The audit's fixes"]}
    committed, reported = rows["Fix 1: thread in run id"].committed, rows["Fix 1: thread in run id"].reported
    assert committed is not None
    assert reported is not None
    assert (len(committed.parts), committed.text) == (1, "100 % dropped")
    assert (len(reported.parts), reported.text) == (7, "1 of 7 kinds lost, 1 leaked")
    assert "starts with another id: 40 of 60 dropped" in reported.alt


@pytest.mark.parametrize(
    ("counts", "text"),
    [
        ((30, 30, 0), "50 % leaked, 50 % delivered"),
        ((15, 30, 0), "25 % lost, 50 % leaked, 25 % delivered"),
        ((0, 30, 0), "50 % lost, 50 % leaked"),
        ((0, EACH, 0), "100 % leaked"),
        ((30, 0, 0), "50 % dropped"),
    ],
)
def test_the_shares_beside_a_bar_with_leaks_add_up(counts: Counts, text: str) -> None:
    rows = chart(read(with_steps({(AS_COMMITTED, BEFORE): lambda kind: counts})))["The audit's fixes"]
    assert rows[0].committed is not None
    assert rows[0].committed.text == text


@pytest.mark.parametrize(
    ("of_one_kind", "of_others", "text"),
    [
        ((20, 40, 0), EVERY, "1 of 7 kinds leaked"),
        (NONE, EVERY, "1 of 7 kinds lost"),
        ((20, 30, 0), NONE, "6 of 7 kinds lost, 1 leaked"),
        (EVERY, (20, 40, 0), "6 of 7 kinds leaked"),
    ],
)
def test_no_kind_counts_as_lost_and_as_leaked(of_one_kind: Counts, of_others: Counts, text: str) -> None:
    steps = {(AS_COMMITTED, BEFORE): lambda kind: of_one_kind if kind == "thread_123" else of_others}
    rows = chart(read(with_steps(steps)))["The audit's fixes"]
    assert rows[0].committed is not None
    assert rows[0].committed.text == text


def test_the_chart_and_the_table_use_one_name_for_each_repair() -> None:
    rows = chart(EXAMPLE)["The repairs, one after another"]
    assert [row.label.lstrip("+ ") for row in rows] == [f"{each.order} {each.name}" for each in actions(EXAMPLE)]


def test_the_documented_kinds_come_first() -> None:
    step = EXAMPLE.step(AS_REPORTED, "fix 1")
    assert step is not None
    assert [kind.documented for kind in step.kinds] == [True] * 3 + [False] * 4


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
        "With only link 9 broken, Fix 1 leaks events for 1 of 7 kinds of thread id: 'starts with another id' (40 of"
        " 60 events).",
    )
    assert loss.when == "as committed"
    assert loss.sentences == (
        f"{ALL} of {ALL} events do not reach their user.",
        f"With only link 9 broken, Fix 1 drops 100 of {ALL} events, Fixes 1 and 2 with the method drop 40 of"
        f" {ALL}"
        " and Fix 3 drops none.",
    )
    assert undetected.when == "after the audit's fixes"
    assert undetected.sentences[0].startswith(
        f"With all three fixes in place, 168 of {ALL} events are reported as sent"
    )


def test_a_risk_after_a_single_fix_names_that_fix() -> None:
    silent = {(AS_COMMITTED, name): (lambda kind: NONE) for chain, name in STEPS if chain == AS_COMMITTED}
    tables = read(with_steps({**silent, (AS_COMMITTED, "fix 3"): lambda kind: (0, 0, 5)}))
    assert risks(tables)[2].when == "after Fix 3"


def test_a_risk_that_exists_as_committed_says_so() -> None:
    leak, _, undetected = risks(
        read(*[with_steps({(AS_COMMITTED, BEFORE): lambda kind: (0, 2, 30)}), *build.drop_tables()[1:]])
    )
    assert (leak.when, undetected.when) == ("as committed", "as committed")
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
    assert [(each.order, each.size, each.gain, each.after.delivered) for each in found] == [
        (1, "-2 +1", 0, 0),
        (2, "-9 +2", 0, 0),
        (3, "-0 +1", 168, 168),
        (4, "-8 +5", ALL - 168, ALL),
    ]
    assert [each.links for each in found] == ["3 and 5", "9", "10", "8"]


def test_the_order_note_counts_the_orders_without_a_leak() -> None:
    assert order_note(EXAMPLE) == (
        "Do not make repair 1 last: without repair 1, the other repairs leak events. In 18 of 24 orders of the repairs,"
        " no event leaks."
    )
    assert order_note(NO_TABLES) == ""
    never = read(build.repair_subsets(lambda made: (ALL, 0)))
    assert order_note(never) == "In 24 of 24 orders of the repairs, no event leaks."
    always = read(build.repair_subsets(lambda made: (0, ALL)))
    assert order_note(always) == "In 0 of 24 orders of the repairs, no event leaks."


def test_the_first_gain_is_counted_from_the_code_as_committed() -> None:
    tables = read(
        with_steps({(AS_COMMITTED, BEFORE): lambda kind: (1, 0, 0)}), build.repairs(delivered=(10, 10, 20, ALL))
    )
    assert [each.gain for each in actions(tables)] == [3, 0, 10, ALL - 20]


@pytest.mark.parametrize(
    ("removed", "added", "text"),
    [(0, 1, "-0 +1"), (2, 0, "-2 +0"), (1, 1, "-1 +1"), (1_300, 4, "-1,300 +4")],
)
def test_a_size_is_stated_in_lines(removed: int, added: int, text: str) -> None:
    assert size_text(removed, added) == text


def test_alternatives_are_divided_by_whether_they_deliver_everything() -> None:
    assert routing_note(EXAMPLE) == (
        "Fix 2 with its method, or Fix 3, can replace repair 2 in this test. In place of repair 2, Fix 1"
        f" drops 100 of {ALL} events and leaks 40 of them; Fix 2 as written drops {ALL}."
    )
    assert routing_note(NO_TABLES) == ""


def test_incomplete_alternatives_state_what_they_drop_and_leak() -> None:
    # More events are leaked than dropped if some leaked events also reach their own user.
    counts = {"fix 1": (ALL - 20, 40), "fixes 1 and 2 with the method": (ALL - 40, 40)}
    assert routing_note(read(build.routing_alternatives(counts))) == (
        f"In place of repair 2, Fix 1 drops 20 of {ALL} events and leaks 40 events; Fixes 1 and 2 with the method drop"
        " 40 and leak 40 of them."
    )


def test_loss_after_a_first_fix_that_drops_nothing_names_the_events() -> None:
    rates = build.drop_rates({key: lambda kind: EVERY for key in STEPS})
    assert risks(read(rates))[1].sentences[1].startswith("With only link 9 broken, Fix 1 drops no event, Fixes 1")


def test_a_fix_that_fails_over_the_life_of_a_run_is_not_recommended_without_saying_so() -> None:
    answer_of_finding = "Fix 3 leaks events if a run is registered twice."
    lifecycle = claim("missed-lifecycles", verdict="does not hold", answer=answer_of_finding)
    assert f"in this test. But {answer_of_finding} In place of repair 2," in routing_note(EXAMPLE, lifecycle)
    assert "But" not in routing_note(EXAMPLE, claim("missed-lifecycles", verdict="holds", answer=answer_of_finding))


def test_scope_counts_kinds_and_combinations() -> None:
    assert scope(EXAMPLE) == (
        "Each chain ran with 7 kinds of thread id: 3 documented in the audit or the backend's public history, and 4"
        " stress kinds.",
        "The kinds of thread id are chosen, not sampled, so sums over the kinds do not describe production.",
        "Of the 16 combinations of the four repairs, one delivers every event without a leak: all four together.",
    )


def test_scope_names_no_single_combination_if_several_are_enough() -> None:
    tables = read(build.drop_rates(), build.repair_subsets(lambda made: (ALL if made[1] else 0, 0)))
    assert scope(tables)[-1] == "Of the 16 combinations of the four repairs, eight deliver every event without a leak."


def test_priorities_follow_what_the_fixes_deliver() -> None:
    critical, important, optional, monitoring = priority_findings(EXAMPLE)
    assert [each.right for each in (critical, important, optional)] == ["no", "no", "no"]
    assert f"Fix 1 alone delivers 320 of {ALL} events, and leaks 40 of the other {ALL - 320}" in critical.answer
    assert f"Fix 3 delivers {ALL} of {ALL} events." in critical.answer
    assert "100 more than Fix 1, which the audit calls critical" in optional.answer
    assert "The number of delivered events is the same as with Fix 1 alone." in important.answer
    assert monitoring.right == "as worded, but insufficient"
    assert f"168 of {ALL} events are routed and reported as sent" in monitoring.answer
    assert all(each.rule for each in (critical, important, optional, monitoring))


def test_priorities_are_right_if_the_first_two_fixes_suffice() -> None:
    sufficient = {(AS_REPORTED, name): (lambda kind: EVERY) for chain, name in STEPS if chain == AS_REPORTED}
    honest = {(AS_COMMITTED, name): (lambda kind: NONE) for chain, name in STEPS if chain == AS_COMMITTED}
    found = priority_findings(read(with_steps({**sufficient, **honest})))
    assert [each.right for each in found] == ["yes"] * 4
    assert [each.verdict for each in found] == ["holds"] * 4


def test_a_backup_that_helps_without_being_enough_is_insufficient() -> None:
    tables = read(with_steps({(AS_REPORTED, "fixes 1 and 2 as written"): lambda kind: (EACH - 1, 0, 0)}))
    assert priority_findings(tables)[1].right == "as worded, but insufficient"
    assert "93 higher" in priority_findings(tables)[1].answer


def test_priorities_of_fixes_that_were_not_measured_are_unknown() -> None:
    tables = read(build.drop_rates({(AS_COMMITTED, BEFORE): lambda kind: NONE}))
    assert [each.right for each in priority_findings(tables)[:3]] == ["unknown"] * 3
    assert priority_findings(NO_TABLES) == ()


def test_a_table_without_a_column_is_an_error_that_names_it() -> None:
    broken = Table(name="repairs", caption="", columns=("order", "repair"), records=())
    with pytest.raises(
        MalformedTable, match=r"the table repairs cannot be used .* no column 'links', 'purpose', 'lines removed'"
    ):
        read(broken)


@pytest.mark.parametrize("delivered", [ALL + 1, -1, 0.5, None, True])
def test_counts_that_contradict_each_other_are_an_error(delivered: object) -> None:
    subsets = build.repair_subsets()
    row = {**subsets.records[0], "delivered": delivered}
    broken = Table(name=subsets.name, caption="", columns=subsets.columns, records=(row,))
    with pytest.raises(MalformedTable, match="repair_subsets"):
        read(broken)


@pytest.mark.parametrize(
    ("counts", "problem"),
    [
        ((2_000, 2_001, 0, 0), "2,001 events were delivered, but only 2,000 were expected"),
        ((2_000, 1_000, 1_001, 5), "2,000 events expected, 1,000 delivered, 1,001 lost and 5 leaked"),
        ((2_000, 1_000, 994, 5), "2,000 events expected, 1,000 delivered, 994 lost and 5 leaked"),
        ((2_000, 1_000, 995, 5), None),
        ((2_000, 1_000, 1_000, 5), None),
    ],
)
def test_every_event_is_delivered_lost_or_leaked(counts: tuple[int, ...], problem: str | None) -> None:
    subsets = build.repair_subsets()
    row = {**subsets.records[0], **dict(zip(("expected", "delivered", "lost", "leaked"), counts, strict=True))}
    table = Table(name=subsets.name, caption="", columns=subsets.columns, records=(row,))
    with nullcontext() if problem is None else pytest.raises(MalformedTable, match=f"{problem}$"):
        [subset] = read(table).subsets
        assert (subset.expected, subset.delivered, subset.lost, subset.leaked) == counts


ROWS = chart(EXAMPLE)["The audit's fixes"]
AFTER_FIX_1 = (AS_COMMITTED, "fix 1")


def test_one_bar_represents_the_code_as_committed_only_if_no_fix_changes_it() -> None:
    one = unchanged(ROWS)
    assert one is not None
    assert (one.parts, one.text) == (ROWS[0].committed.parts, "100 % dropped without any fix, and after each fix")  # type: ignore[union-attr]
    changed = chart(read(with_steps({AFTER_FIX_1: lambda kind: (1, 0, 0)})))["The audit's fixes"]
    assert unchanged(changed) is None
    assert unchanged(ROWS[:2]) is not None
    assert unchanged(ROWS[:1]) is None
    assert unchanged(chart(EXAMPLE)["The repairs, one after another"]) is None


def test_kinds_that_differ_are_not_merged_into_one_bar() -> None:
    split = {(AS_COMMITTED, name): (lambda kind: EVERY if kind == "uuid" else NONE) for name in (BEFORE, *FIXES)}
    assert unchanged(chart(read(with_steps(split)))["The audit's fixes"]) is None


@pytest.mark.parametrize("chain", [AS_COMMITTED, AS_REPORTED])
def test_a_fix_that_was_measured_on_one_chain_has_a_row(chain: str) -> None:
    steps = {key: counts for key, counts in STEPS.items() if key != (chain, "fix 1")}
    rows = chart(read(build.drop_rates(steps)))["The audit's fixes"]
    assert [row.label for row in rows] == [row.label for row in ROWS]
    assert unchanged(rows) is None


def test_the_repairs_are_added_one_after_another() -> None:
    labels = [row.label for row in chart(EXAMPLE)["The repairs, one after another"]]
    assert [label[:3] for label in labels] == ["1 A", "+ 2", "+ 3", "+ 4"]


@pytest.mark.parametrize(
    ("parameters", "events"),
    [
        ({"THREADS": 6, "RUNS": 2}, f"{ALL} events = 7 kinds × 6 users × 2 runs × 5 events."),
        ({"THREADS": 4, "RUNS": 3}, f"{ALL} events = 7 kinds × 4 users × 3 runs × 5 events."),
        ({"THREADS": 7, "RUNS": 2}, None),
        ({"THREADS": 6}, None),
        ({"RUNS": 2}, None),
        ({"THREADS": 0, "RUNS": 2}, None),
    ],
)
def test_scope_states_the_load_as_a_product(parameters: dict[str, int], events: str | None) -> None:
    source = "\n".join(f"{name} = {value}" for name, value in parameters.items())
    cell = code(source, tags=("parameters",))
    notebook = executed("10_a", *map(tabulated, build.drop_tables()), cells=(cell,))
    sentences = scope(read_drop_tables(report_of(notebook)))
    assert [each for each in sentences if "×" in each] == ([] if events is None else [events])


def test_of_fixes_that_deliver_equally_the_one_with_fewer_leaks_is_named() -> None:
    steps = {AFTER_FIX_1: lambda kind: (30, 30, 0), (AS_COMMITTED, "fix 3"): lambda kind: (30, 0, 0)}
    assert f"Fix 3 delivers most: {ALL // 2} of {ALL} events." in answer(read(with_steps(steps))).first


def test_fixes_that_only_leak_deliver_no_more() -> None:
    assert (
        "none of the audit's three fixes delivers more events."
        in answer(read(with_steps({AFTER_FIX_1: lambda kind: (0, 30, 0)}))).first
    )


def test_the_combination_that_leaks_most_is_named() -> None:
    leaks: dict[tuple[bool, ...], int] = {(False, True, True, True): 30, (False, False, True, True): 20}
    subsets = build.repair_subsets(lambda made: (0, leaks.get(made, 0)))
    leak = risks(read(build.drop_rates(), subsets))[0]
    assert leak.sentences[0] == f"30 of {ALL} events reach another user after repairs 2, 3 and 4 without repair 1."


def test_a_gain_counts_from_what_the_code_delivers_as_committed() -> None:
    assert [action.gain for action in actions(read(build.repairs(delivered=(5, 5, 9, 20))))] == [5, 0, 4, 11]


def test_a_count_above_ten_is_written_in_digits() -> None:
    assert [number(count) for count in range(12)] == [
        "no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "11",
    ]  # fmt: skip
