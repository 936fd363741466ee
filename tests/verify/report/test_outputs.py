import pandas as pd
import pytest

from bridgekit_verify.report import Finding, checked, record, show_table, source_of
from bridgekit_verify.report.findings import cell_text
from bridgekit_verify.report.outputs import read_source, table_of
from tests.verify.report.notebooks import finding


def test_outside_a_kernel_everything_prints_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    record(finding())
    show_table(pd.DataFrame({"delivered": [1]}), "Delivered events", name="delivery")
    checked("03_agent_registry")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Link 3 · AgentRegistry: the claim does not hold"
    assert "Delivered events" in lines
    assert lines[-1] == "checked: 03_agent_registry"


def test_a_finding_refuses_more_delivered_than_attempted() -> None:
    with pytest.raises(ValueError, match="61 of 60"):
        finding(after=(61, 60))


def test_a_finding_refuses_an_id_that_is_no_anchor() -> None:
    with pytest.raises(ValueError, match="hyphens"):
        finding("Link 3")


def test_the_name_of_a_link_is_what_follows_the_dot() -> None:
    assert finding().name == "AgentRegistry"


def test_a_missing_table_value_becomes_none() -> None:
    frame = pd.DataFrame({"rate": [0.5, float("nan")], "who": ["a", None], "at": [pd.Timestamp("2025-09-01"), pd.NaT]})
    table = table_of(frame, "caption", name="t", measurement=True)
    assert table.columns == ("rate", "who", "at")
    assert table.records[1] == {"rate": None, "who": None, "at": None}


def test_a_named_index_becomes_a_column() -> None:
    frame = pd.DataFrame({"delivered": [1, 2]}, index=pd.Index(["a", "b"], name="variant"))
    assert table_of(frame, "caption", name="t", measurement=True).columns == ("variant", "delivered")


def test_a_measurement_with_a_reserved_column_raises() -> None:
    with pytest.raises(ValueError, match="'notebook'"):
        table_of(pd.DataFrame({"notebook": [1]}), "caption", name="t", measurement=True)


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
