import csv
import io
import json
from dataclasses import replace

import pytest

from bridgekit_verify.report.executed_notebooks import DuplicateFinding
from bridgekit_verify.report.findings import Table
from bridgekit_verify.report.page import index_html
from bridgekit_verify.report.result_files import MAX_COLUMNS, csv_columns, results_csv, results_json
from tests.verify.report.notebooks import (
    ENVIRONMENT,
    code,
    executed,
    finding,
    notebook,
    raised,
    recorded,
    report_of,
    tabulated,
)

DELIVERY = Table(
    name="delivery",
    caption="Delivery",
    columns=("variant", "delivered"),
    records=({"variant": "audited", "delivered": 0}, {"variant": "sound, ours", "delivered": 60}),
)
LATENCY = Table(name="latency", caption="Latency", columns=("ms", "raw"), records=({"ms": None, "raw": [1, 2]},))
SOURCES = Table(name="sources", caption="Where", columns=("file",), records=({"file": "x"},), measurement=False)


def with_values(table: Table, value: object) -> Table:
    """Return a measurement table with this value in every cell."""
    records = tuple(dict.fromkeys(table.columns, value) for _ in table.records)
    return Table(name=table.name, caption=table.caption, columns=table.columns, records=records)


def rows_of(*tables: Table) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(results_csv(report_of(executed("01_a", *map(tabulated, tables)))))))


def test_the_table_has_a_row_for_each_measurement_and_the_columns_of_all_tables() -> None:
    report = report_of(executed("01_a", tabulated(DELIVERY), tabulated(SOURCES)), executed("02_b", tabulated(LATENCY)))
    rows = list(csv.reader(io.StringIO(results_csv(report))))
    assert rows == [
        ["notebook", "table", "variant", "delivered", "ms", "raw"],
        ["01_a", "delivery", "audited", "0", "", ""],
        ["01_a", "delivery", "sound, ours", "60", "", ""],
        ["02_b", "latency", "", "", "", "[1, 2]"],
    ]


def test_the_table_has_at_most_25_columns_and_each_is_documented() -> None:
    wide = Table(
        name="wide",
        caption="Wide",
        columns=tuple(f"c{n}" for n in range(40)),
        records=({f"c{n}": n for n in range(40)},),
    )
    report = report_of(executed("01_a", tabulated(wide), tabulated(DELIVERY), tabulated(DELIVERY)))
    header = next(csv.reader(io.StringIO(results_csv(report))))
    assert len(header) == MAX_COLUMNS == 25
    assert header[:4] == ["notebook", "table", "variant", "delivered"]  # documented ones first, then by frequency
    assert csv_columns(report).keys() == set(header)
    assert all(csv_columns(report).values())
    results = json.loads(results_json(report))
    assert results["tables"][0]["records"] == [{f"c{n}": n for n in range(40)}]
    assert results["csv_columns"] == csv_columns(report)


@pytest.mark.parametrize(
    "text",
    [
        "=1+1",
        "+1",
        "-1",
        "@SUM(1)",
        "\t=1",
        "\r=1",
        "\n=1",
        " =1",
        "＝1",
        "＋1",
        "－1",
        "＠1",
        '=HYPERLINK("http://evil.example/","open")',
    ],
)
def test_no_text_cell_begins_as_a_formula(text: str) -> None:
    table = Table(name="t", caption="T", columns=(text, "thread"), records=({text: "a", "thread": text},))
    [row] = rows_of(table)
    assert row["thread"] == f"'{text}"
    assert f"'{text}" in row


def test_negative_numbers_stay_numbers() -> None:
    table = Table(name="t", caption="T", columns=("change",), records=({"change": -1.5}, {"change": -3}))
    assert [row["change"] for row in rows_of(table)] == ["-1.5", "-3"]


def test_json_holds_findings_tables_and_what_they_were_made_with() -> None:
    parameters = code("SEED = 7\nRUNS = 3", tags=("parameters",))
    report = report_of(executed("01_a", recorded(finding()), tabulated(SOURCES), cells=(parameters,)))
    results = json.loads(results_json(report))
    assert results["schema"] == 3
    assert results["complete"] is True
    assert results["environment"]["seeds"] == [7]
    assert results["environment"]["commit"] == "0123456789abcdef"
    assert results["findings"][0]["notebook"] == "01_a"
    assert results["findings"][0]["before"] == [0, 60]
    assert results["findings"][0]["after"] == [60, 60]
    assert results["tables"][0]["records"] == [{"file": "x"}]
    assert results["notebooks"][0]["parameters"] == {"SEED": 7, "RUNS": 3}


def test_a_column_without_a_meaning_names_its_tables() -> None:
    # With ten names, the order of a set is hardly ever alphabetical.
    tables = [Table(name=name, caption="", columns=("ms",), records=({"ms": 1},)) for name in "bacjihgfed"]
    expected = "column of a, b, c, d, e, f, g, h, i, j"
    assert csv_columns(report_of(executed("01_a", *map(tabulated, tables))))["ms"] == expected


def test_json_is_indented_and_keeps_letters_of_every_language() -> None:
    text = results_json(report_of(executed("01_a", recorded(finding(answer="Zoë 线程")))))
    assert text.startswith('{\n  "schema": 3,\n')
    assert text.endswith("}\n")
    assert "Zoë 线程" in text


def test_json_never_contains_a_number_that_json_lacks() -> None:
    parameters = code("LIMIT = 1e999", tags=("parameters",))
    with pytest.raises(ValueError, match="JSON compliant"):
        results_json(report_of(executed("01_a", cells=(parameters,))))


@pytest.mark.parametrize("changed", [True, False, None])
def test_uncommitted_changes_are_stated_in_the_data_and_on_the_page(changed: bool | None) -> None:
    report = replace(report_of(executed("01_a")), environment=replace(ENVIRONMENT, changed=changed))
    assert json.loads(results_json(report))["environment"]["uncommitted_changes"] is changed
    assert ("with uncommitted changes" in index_html(report)) == bool(changed)


def test_json_of_a_failed_notebook_is_not_complete() -> None:
    failed = notebook(code("fail()", raised("ValueError", "no")))
    results = json.loads(results_json(report_of(("01_a", failed))))
    assert results["complete"] is False
    assert results["failures"] == ["01_a: code cell 1: ValueError: no"]


def test_a_finding_recorded_twice_is_refused_naming_both_places() -> None:
    with pytest.raises(DuplicateFinding, match="link-3 is recorded twice, in 01_a and in 02_b"):
        report_of(executed("01_a", recorded(finding())), executed("02_b", recorded(finding())))


def test_running_times_are_those_that_the_runner_stored() -> None:
    first, last = code("a"), code("b")
    first["metadata"]["execution"] = {
        "iopub.execute_input": "2026-01-01T00:00:00Z",
        "shell.execute_reply": "2026-01-01T00:00:01Z",
    }
    last["metadata"]["execution"] = {
        "iopub.execute_input": "2026-01-01T00:00:01Z",
        "shell.execute_reply": "2026-01-01T00:00:02.500Z",
    }
    report = report_of(("01_a", notebook(first, last)))
    assert report.seconds == 2.5
    assert json.loads(results_json(report))["environment"]["started"] == "2026-01-01T00:00:00+00:00"
