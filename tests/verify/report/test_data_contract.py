"""What other modules, notebooks and users rely on: columns of tables, keys of the data, words of the first screen."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bridgekit_verify.measure.drops import EventCounts
from bridgekit_verify.repairs import REPAIRS as MEASURED_REPAIRS
from bridgekit_verify.report.drop_chart import chart, share, unchanged
from bridgekit_verify.report.drop_tables import (
    AS_COMMITTED,
    AS_REPORTED,
    BEFORE,
    FIXES,
    REPAIRS,
    DropTables,
    Kind,
    MalformedTable,
    Step,
    read_drop_tables,
)
from bridgekit_verify.report.findings import Finding, Table
from bridgekit_verify.report.grouped_findings import PARTS, tables_of_claims
from bridgekit_verify.report.result_files import count_measurements, csv_columns, results_csv, results_json
from bridgekit_verify.report.summary import INSTRUCTIONS, actions, answer, order_note, risks, routing_note, scope
from bridgekit_verify.variants import FIXES as FIXES_OF_CHAINS
from bridgekit_verify.variants import VARIANTS
from tests.verify.report import drop_tables as build
from tests.verify.report.example import claim, example_report
from tests.verify.report.notebooks import code, executed, recorded, report_of, tabulated


def keys_of(value: Any) -> Any:
    """Return the keys of nested objects; a list counts by its first member."""
    if isinstance(value, dict):
        return {key: keys_of(each) for key, each in value.items()}
    return keys_of(value[0]) if isinstance(value, list) and value and isinstance(value[0], dict) else ...


def test_results_json_has_these_keys() -> None:
    data = json.loads(results_json(example_report()))
    of_finding, of_table = data.pop("findings")[0], data["tables"][0].pop("records")[0]
    data["environment"]["packages"], data["csv_columns"], data["notebooks"] = {}, {}, data["notebooks"][-4:-3]
    assert of_finding.keys() == {
        "notebook",
        *Finding.__struct_fields__,
        "audit_right",
        "works",
    }
    assert of_table.keys() == set(data["tables"][0]["columns"])
    assert keys_of(data) == {
        "schema": ...,
        "complete": ...,
        "failures": ...,
        "environment": dict.fromkeys(
            ("bridgekit", "python", "seeds", "commit", "uncommitted_changes", "started", "seconds"), ...
        )
        | {"packages": {}},
        "answer": {"verdict": ..., "text": ...},
        "headline": ...,
        "links": dict.fromkeys(("link", "name", "reported", "audit_right", "works", "sound"), ...),
        "csv_columns": {},
        "tables": dict.fromkeys(("notebook", *Table.__struct_fields__), ...) | {"records": ...}
        if "records" in data["tables"][0]
        else {name: ... for name in ("notebook", *Table.__struct_fields__) if name != "records"},
        "notebooks": dict.fromkeys(("name", "title", "seconds", "failure", "parameters"), ...)
        | {"parameters": {}, "figures": {"name": ..., "caption": ..., "alt": ...}},
    }


def test_lists_in_results_csv_keep_their_letters_and_only_measurements_are_counted() -> None:
    tables = [
        Table(name=name, caption="", columns=columns, records=(dict.fromkeys(columns, value),) * 2, measurement=m)
        for name, columns, value, m in (
            ("b", ("x", "odd"), ["线程", "?=1"], True),
            ("a", ("x",), "?=1", True),
            ("c", ("y",), 1, False),
        )
    ]
    report = report_of(executed("01_a", *map(tabulated, tables)))
    assert '""线程""' in results_csv(report)
    assert "\r\n01_a,a,?=1," in results_csv(report)
    assert count_measurements(report) == 4
    assert csv_columns(report)["odd"] == "column of b"


def test_names_of_chains_steps_and_repairs_are_those_of_the_measured_chains() -> None:
    assert {AS_COMMITTED, AS_REPORTED} < VARIANTS.keys()
    assert list(FIXES) == list(FIXES_OF_CHAINS)
    assert list(REPAIRS) == [repair.name for repair in MEASURED_REPAIRS] == list(INSTRUCTIONS)
    assert BEFORE == "before"
    assert all(name.lower() == text.lower() for name, text in list(FIXES.items())[:-1])


def test_action_for_each_repair_says_what_to_do() -> None:
    rows = [{**row, "repair": name} for row, name in zip(build.repairs().records, REPAIRS, strict=True)]
    report = report_of(executed("10_a", tabulated(build.drop_rates()), tabulated(build.table("repairs", rows))))
    assert [action.instruction for action in actions(read_drop_tables(report))][: len(REPAIRS)] == [
        "create an agent for each run",
        "carry the thread with the run",
        "assign each connection to its thread",
        "call the bridge with the arguments that it takes",
    ]


@pytest.mark.parametrize(
    ("name", "column"),
    [
        *((name, "delivered") for name in ("drop_rates", "repairs", "repair_subsets", "routing_alternatives")),
        ("drop_rates", "false success"),
        *(("repairs", column) for column in ("order", "lines removed", "lines added")),
    ],
)
def test_wrong_count_is_refused_with_the_name_of_its_table(name: str, column: str) -> None:
    [table] = [each for each in build.drop_tables() if each.name == name]
    wrong = build.table(name, [{**dict(row), column: -1} for row in table.records])
    with pytest.raises(MalformedTable, match=f"table {name} cannot be used in the report: {column} is -1") as raised:
        read_drop_tables(report_of(executed("10_a", tabulated(wrong))))
    assert raised.value.table == name


@pytest.mark.parametrize(
    ("counts", "complete"),
    [((0, 0, 0), False), ((1, 1, 0), True), ((1, 0, 0), False), ((1, 1, 1), False), ((2, 2, 0), True)],
)
def test_delivery_is_complete_only_if_something_was_expected(counts: tuple[int, int, int], complete: bool) -> None:
    expected, delivered, leaked = counts
    lost = expected - delivered
    assert EventCounts(expected, delivered, lost, leaked).complete is complete


def test_single_kind_is_the_same_for_every_kind() -> None:
    kind = Kind(2, 1, 1, 0, name="a", documented=True, false_success=0)
    assert Step("sound", "before", (kind,)).same_for_every_kind


def test_backends_have_a_section() -> None:
    assert PARTS["backend"] == "Backends"


def test_table_of_a_claim_has_the_name_of_its_finding() -> None:
    table = build.table("claim_lost_events", [{"a": 1}])
    report = report_of(executed("11_a", recorded(claim("claim-lost-events")), tabulated(table)))
    assert tables_of_claims(report) == {"claim-lost-events": table}


def read(*tables: Table) -> DropTables:
    return read_drop_tables(report_of(executed("10_a", *map(tabulated, tables))))


UNKNOWN = "Unknown: the drop rates were not measured."


@pytest.mark.parametrize(
    ("tables", "leak", "loss", "undetected"),
    [
        (
            build.drop_tables(),
            (
                "after some of the repairs",
                "210 of 420 events reach another user after repairs 2, 3 and 4 without repair 1.",
                "With only link 9 broken, Fix 1 leaks events for 1 of 7 kinds of thread id: 'starts with another id'"
                " (40 of 60 events).",
            ),
            (
                "as committed",
                "420 of 420 events do not reach their user.",
                "With only link 9 broken, Fix 1 drops 100 of 420 events, Fixes 1 and 2 with the method drop"
                " 40 of 420 and Fix 3 drops none.",
            ),
            (
                "after the audit's fixes",
                "With all three fixes in place, 168 of 420 events are reported as sent although their user does not"
                " read them.",
                "A dashboard that counts sent events therefore shows too many deliveries.",
            ),
        ),
        ((), ("unknown", "No leak was measured."), ("unknown", UNKNOWN), ("unknown", UNKNOWN)),
        (
            (build.drop_rates({(AS_COMMITTED, BEFORE): lambda kind: build.EVERY}),),
            ("unknown", "No leak was measured."),
            ("not observed", "0 of 420 events do not reach their user."),
            ("not observed", "Users read every event that was reported as sent."),
        ),
        (
            (build.drop_rates({(AS_COMMITTED, BEFORE): lambda kind: build.NONE}),),
            ("unknown", "No leak was measured."),
            ("as committed", "420 of 420 events do not reach their user."),
            ("not observed", "Users read every event that was reported as sent."),
        ),
    ],
)
def test_risks_are_stated_in_these_words(
    tables: tuple[Table, ...], leak: tuple[str, ...], loss: tuple[str, ...], undetected: tuple[str, ...]
) -> None:
    found = risks(read(*tables))
    assert [(risk.kind, risk.title) for risk in found] == [
        ("leak", "Leak: read by another user"),
        ("loss", "Loss: not read by its user"),
        ("undetected", "Undetected: reported as sent, but not read"),
    ]
    assert [(risk.when, *risk.sentences) for risk in found] == [leak, loss, undetected]


def test_leak_of_two_repairs_or_of_none_is_named() -> None:
    def leaking(*members: int) -> Table:
        return build.repair_subsets(
            lambda made: (0, 7) if [n for n, each in enumerate(made, 1) if each] == list(members) else (0, 0)
        )

    def sentence(*members: int) -> str:
        return risks(read(build.drop_rates(), leaking(*members)))[0].sentences[0]

    assert sentence() == "7 of 420 events reach another user without any repair."
    assert sentence(2, 3).startswith("7 of 420 events reach another user after repairs 2 and 3 without repairs 1 and 4")
    assert sentence(4).startswith("7 of 420 events reach another user after repair 4 without repairs 1, 2 and 3")


def test_leak_after_all_repairs_makes_every_order_unsafe() -> None:
    subsets = build.repair_subsets(lambda made: (0, 7) if all(made) else (0, 0))
    assert order_note(read(build.drop_rates(), subsets)) == "In 0 of 24 orders of the repairs, no event leaks."


def test_first_sentence_ends_after_the_counts_if_no_fix_was_measured() -> None:
    tables = read(build.drop_rates({(AS_COMMITTED, BEFORE): lambda kind: build.NONE}))
    assert answer(tables).first == "In the rebuilt chain, none of 420 test events reaches its user."


def test_repairs_that_leak_nothing_are_not_said_to_leak() -> None:
    tables = read(build.repairs(delivered=(0, 0, 10, 20)))
    assert answer(tables).second == "Together, four repairs deliver 20 of 420 events."


@pytest.mark.parametrize(("names", "text"), [(1, "Fix 2 with its method"), (2, "Fix 2 with its method, or Fix 3,")])
def test_fixes_that_can_replace_a_repair_are_listed(names: int, text: str) -> None:
    complete = ["fix 2 with its method", "fix 3"][:names]
    rows = [{**dict(row), "leaked": 0} for row in build.routing_alternatives().records if row["routing"] in complete]
    assert routing_note(read(build.table("routing_alternatives", rows))) == f"{text} can replace repair 2 in this test."


def test_chart_has_these_labels() -> None:
    rows = {title: [row.label for row in rows] for title, rows in chart(read(*build.drop_tables())).items()}
    assert rows == {
        "The audit's fixes": [
            "no fix",
            "Fix 1: thread in run id",
            "Fix 2 as written",
            "Fix 2 with its method",
            "Fix 3: lookup table",
            "Fixes 1 and 2 as written",
            "Fixes 1, 2 with the method",
            "all three fixes",
        ],
        "The repairs, one after another": [
            "1 An agent for each run",
            "+ 2 The run carries its thread",
            "+ 3 Each socket has its thread",
            "+ 4 Link 8 calls the bridge",
        ],
        "Without repair 1": ["2, 3 and 4"],
    }


def test_kinds_of_a_split_bar_are_listed() -> None:
    rates = build.drop_rates({(AS_COMMITTED, BEFORE): build.of_kind})
    [row] = chart(read(rates))["The audit's fixes"]
    assert row.committed is not None
    assert "; thread_<16 hex>: 0 of 60 dropped; " in row.committed.alt
    assert share(0, 0) == "unknown"


def test_bars_of_two_parts_are_not_drawn_as_one() -> None:
    steps = {key: (lambda kind: build.NONE if kind == "uuid" else build.EVERY) for key in build.STEPS}
    rates = build.drop_rates(steps)
    two_kinds = build.table(
        "drop_rates", [dict(row) for row in rates.records if row["thread ids"] in ("uuid", "chat_<n>")]
    )
    rows = chart(read(two_kinds))["The audit's fixes"]
    assert {len(row.committed.parts) for row in rows if row.committed} == {2}
    assert unchanged(rows) is None


def test_leak_of_a_fix_is_stated_only_for_a_fix_that_leaks() -> None:
    steps = {
        (AS_REPORTED, "fix 1"): build.for_each_kind(20, 0, 0),
        (AS_REPORTED, "fix 3"): build.for_each_kind(20, 40, 0),
    }
    leak, *_ = risks(read(build.drop_rates(steps), build.repair_subsets()))
    assert leak.sentences[1].startswith("With only link 9 broken, Fix 3 leaks events for 7 of 7 kinds of thread id: ")
    sound = {key: (lambda kind: build.EVERY) for key in steps}
    assert not any(
        "Fix" in sentence for sentence in risks(read(build.drop_rates(sound), build.repair_subsets()))[0].sentences
    )


@pytest.mark.parametrize(
    "parameters", ["THREADS = 0\nRUNS = 2", "THREADS = 2\nRUNS = 0", "RUNS = 2", "THREADS = 7\nRUNS = 9"]
)
def test_scope_states_no_product_that_is_not_the_number_of_events(parameters: str) -> None:
    cells = (code(parameters, tags=("parameters",)),)
    report = report_of(executed("10_a", tabulated(build.drop_rates()), cells=cells))
    assert not any(
        "×" in sentence or "?" in sentence or "None" in sentence for sentence in scope(read_drop_tables(report))
    )
