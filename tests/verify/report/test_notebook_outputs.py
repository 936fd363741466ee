import datetime
import enum
import json
import logging
import uuid
from decimal import Decimal
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest

from bridgekit_verify.report import Finding, checked, printed_log, record, show_table, show_text, source_of
from bridgekit_verify.report.findings import cell_text, delivery_text
from bridgekit_verify.report.notebook_outputs import _card, _grid, _paragraphs, read_source, table_of
from tests.verify.report.notebooks import finding


def test_outside_a_kernel_everything_prints_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    record(finding())
    show_table(pd.DataFrame({"delivered": [1]}), "Delivered events", name="delivery")
    checked("03_agent_registry")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Link 3 · AgentRegistry: Was the audit right? no. Does it work when run? unknown."
    assert "Delivered events" in lines
    assert lines[-1] == "checked: 03_agent_registry"


def test_a_finding_refuses_more_delivered_than_attempted() -> None:
    with pytest.raises(ValueError, match="61 of 60"):
        finding(after=(61, 60))


def test_a_finding_refuses_an_id_that_is_no_anchor() -> None:
    with pytest.raises(ValueError, match="hyphens"):
        finding("Link 3")


def test_the_delivery_states_only_what_was_counted() -> None:
    assert delivery_text(finding(before=(0, 60), after=None)) == "before 0 of 60"
    assert delivery_text(finding(before=None, after=(3, 3))) == "after 3 of 3"


@pytest.mark.parametrize(
    ("changes", "colour"),
    [
        ({"audit_right": "yes"}, "#009E73"),
        ({"audit_right": "as worded, but insufficient"}, "#E69F00"),
        ({"audit_right": "no"}, "#D55E00"),
        ({"audit_right": "not examined"}, "#999999"),
        ({"audit_right": "no", "id": "missed-leaks"}, "#D55E00"),
        ({"audit_right": "yes", "id": "missed-leaks"}, "#999999"),
    ],
)
def test_the_edge_of_a_card_has_the_colour_of_its_answer(changes: dict[str, Any], colour: str) -> None:
    key = changes.pop("id", "link-3")
    assert f"border-left:5px solid {colour};" in _card(finding(key, **changes))


def test_the_name_of_a_link_is_what_follows_the_dot() -> None:
    assert finding().name == "AgentRegistry"


def test_a_missing_table_value_becomes_none() -> None:
    frame = pd.DataFrame({"rate": [0.5, float("nan")], "who": ["a", None], "at": [pd.Timestamp("2025-09-01"), pd.NaT]})
    table = table_of(frame, "caption", name="t", measurement=True)
    assert table.columns == ("rate", "who", "at")
    assert table.records[1] == {"rate": None, "who": None, "at": None}


def test_a_folded_table_shows_its_caption_as_the_summary() -> None:
    table = table_of(pd.DataFrame({"step": ["fix 1"], "lost": [3]}), "Losses", name="t", measurement=False)
    folded = _grid(msgspec.structs.replace(table, folded=True))
    assert folded.startswith("<details><summary>Losses</summary><table>")
    assert folded.endswith("</table></details>")
    assert "details" not in _grid(table)


def test_long_sentences_are_shown_as_escaped_paragraphs_and_as_lines(capsys: pytest.CaptureFixture[str]) -> None:
    show_text("Link 9 named <uuid4>.", "No user reads the event.")
    assert capsys.readouterr().out == "Link 9 named <uuid4>.\nNo user reads the event.\n"
    html = _paragraphs(["Link 9 named <uuid4>.", "No user reads the event."])
    assert html.count("<p ") == 2
    assert "Link 9 named &lt;uuid4&gt;." in html


def test_columns_of_text_are_aligned_to_the_left() -> None:
    grid = _grid(table_of(pd.DataFrame({"step": ["fix 1"], "lost": [3]}), "Losses", name="t", measurement=False))
    assert '<td style="text-align:left">fix 1</td><td>3</td>' in grid


def test_a_named_index_becomes_a_column() -> None:
    frame = pd.DataFrame({"delivered": [1, 2]}, index=pd.Index(["a", "b"], name="variant"))
    assert table_of(frame, "caption", name="t", measurement=True).columns == ("variant", "delivered")


def test_a_measurement_with_a_reserved_column_raises() -> None:
    with pytest.raises(ValueError, match="'notebook'"):
        table_of(pd.DataFrame({"notebook": [1]}), "caption", name="t", measurement=True)


@pytest.mark.parametrize("numbers", [[1.2345678901234567e-12, 0.1 + 0.2, 2 / 3], [2**63, -(2**63)], [5e-324, 1e308]])
def test_a_number_keeps_its_exact_value(numbers: list[float]) -> None:
    table = table_of(pd.DataFrame({"p": numbers}), "caption", name="t", measurement=True)
    stored = json.loads(msgspec.json.encode(table))
    assert [record["p"] for record in stored["records"]] == numbers


class Colour(enum.Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (uuid.UUID(int=7), "00000000-0000-0000-0000-000000000007"),
        (Decimal("0.10"), "0.10"),
        (datetime.date(2025, 9, 1), "2025-09-01"),
        (pd.Timestamp("2025-09-01T12:00"), "2025-09-01T12:00:00"),
        (Colour.RED, "red"),
        (np.int64(7), 7),
        (np.bool_(True), True),
        (np.array([1, 2]), [1, 2]),
        ((1, "a"), [1, "a"]),
        ({"k": 1}, {"k": 1}),
        (pd.NA, None),
    ],
)
def test_a_value_is_stored_as_the_json_type_with_the_same_meaning(value: object, stored: object) -> None:
    frame = pd.DataFrame({"value": pd.Series([value], dtype=object)})
    assert table_of(frame, "caption", name="t", measurement=True).records == ({"value": stored},)


@pytest.mark.parametrize("value", [b"raw", float("inf"), object(), {1, 2}, 1j, datetime.timedelta(1)])
def test_a_value_that_json_cannot_represent_is_refused_naming_its_place(value: object) -> None:
    frame = pd.DataFrame({"value": pd.Series([value], dtype=object)})
    with pytest.raises(ValueError, match="table t, column 'value': "):
        table_of(frame, "caption", name="t", measurement=True)


def test_two_columns_of_the_same_name_are_refused() -> None:
    with pytest.raises(ValueError, match="two columns have the name 'a'"):
        table_of(pd.DataFrame([[1, 2]], columns=["a", "a"]), "caption", name="t", measurement=True)


@pytest.mark.parametrize("thing", ["a text", None, {"id": "link-3"}])
def test_what_is_no_finding_is_refused(thing: object) -> None:
    with pytest.raises(TypeError, match="record takes a Finding, not a"):
        record(thing)  # type: ignore[arg-type]


@pytest.mark.parametrize("change", [{"verdict": "maybe"}, {"answer": 7}, {"before": ("1", 2)}, {"works": True}])
def test_a_finding_with_a_field_of_a_wrong_type_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError)):
        record(finding(**change))


def test_source_location_is_relative_to_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    source = read_source(Finding)
    assert source.reference.startswith("bridgekit_verify/report/findings.py, lines ")
    assert source.code.startswith("class Finding(")
    assert "\n    id: str\n" in source.code
    source_of(Finding)
    assert capsys.readouterr().out.startswith("# bridgekit_verify/report/findings.py")


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (True, "yes"), (1234, "1,234"), (0.123456, "0.1235"), (12345.6, "12,346"), ("a", "a")],
)
def test_table_values_are_formatted(value: object, text: str) -> None:
    assert cell_text(value) == text


def test_folded_table_is_closed_and_keeps_its_rows() -> None:
    folded = table_of(pd.DataFrame({"a": [1]}), "Rows", name="rows", measurement=False, folded=True)
    assert folded.folded
    assert _grid(folded).startswith("<details><summary>Rows</summary><table>")
    assert _grid(folded).endswith("</table></details>")
    assert "<td>1</td>" in _grid(folded)
    assert "<details>" not in _grid(table_of(pd.DataFrame({"a": [1]}), "Rows", name="rows", measurement=False))


def test_log_is_printed_within_the_block_only(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("bridgekit.chain.example")
    level = logging.getLogger("bridgekit").level
    with printed_log():
        logger.debug("could not emit %s", "agent_started")
    logger.warning("outside")
    assert capsys.readouterr().out == "DEBUG could not emit agent_started\n"
    assert logging.getLogger("bridgekit").level == level
