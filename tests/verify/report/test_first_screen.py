"""The page is rendered once from known findings, and every number in it is compared with its source."""

from __future__ import annotations

import json
import re
from base64 import b64decode
from collections.abc import Iterable
from functools import cache

import pytest
from bs4 import BeautifulSoup, Tag

from bridgekit_verify.report.drop_tables import AS_COMMITTED, AS_REPORTED, BEFORE, FIXES, REPAIRS
from bridgekit_verify.report.findings import Finding, answers
from bridgekit_verify.report.glossary import TERMS
from bridgekit_verify.report.page import index_html
from bridgekit_verify.report.result_files import results_csv, results_json
from tests.verify.report.drop_tables import ALL, EACH, KINDS, STEPS, repairs, subset_counts
from tests.verify.report.example import LINKS, claim, example_report, link_finding
from tests.verify.report.notebooks import executed, recorded, report_of

REPORT = example_report()


@cache
def page() -> BeautifulSoup:
    return BeautifulSoup(index_html(REPORT), "html.parser")


def one(selector: str, within: Tag | None = None) -> Tag:
    found = (within or page()).select(selector)
    assert len(found) == 1, (selector, len(found))
    return found[0]


def words(tag: Tag) -> str:
    return " ".join(tag.get_text(" ").replace("\N{NO-BREAK SPACE}", " ").split())


def widths(part: Tag) -> tuple[float, float]:
    """Return the shares that are drawn as lost and as leaked."""
    return drawn_share(one("i.lost", part)), drawn_share(one("i.leaked", part))


def drawn_share(tag: Tag) -> float:
    return float(str(tag["style"]).removeprefix("width:").removesuffix("%")) / 100


def drawn_parts(cell: Tag) -> list[tuple[float, float]]:
    return [widths(part) for part in cell.select(".kind")]


def rounded(parts: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Round shares to the precision with which the page draws them."""
    return [(round(lost, 3), round(leaked, 3)) for lost, leaked in parts]


def shares(expected: int, delivered: int, leaked: int) -> tuple[float, float]:
    return (expected - delivered - leaked) / expected, leaked / expected


@pytest.mark.slow
def test_every_bar_of_the_fixes_shows_the_counts_of_its_chain_and_step() -> None:
    rows = page().select(".chart tbody")[0].select("tr")
    assert len(rows) == 1 + len(FIXES)
    for name, row in zip((BEFORE, *FIXES), rows, strict=True):
        for chain, cell in zip((AS_COMMITTED, AS_REPORTED), cells_of(row, rows[0]), strict=True):
            each = [STEPS[chain, name](kind) for kind in sorted(KINDS, key=lambda kind: not KINDS[kind])]
            expected = [shares(EACH, delivered, leaked) for delivered, leaked, _ in each]
            drawn, split = drawn_parts(cell), len(set(expected)) > 1
            assert rounded(drawn) == rounded(expected if split else expected[:1]), (chain, name)
            dropped = EACH * len(each) - sum(delivered for delivered, _, _ in each)
            leaked = sum(leaked for _, leaked, _ in each)
            assert f"{dropped} of {ALL} events dropped, {leaked} of them read by another user" in words(cell)


def cells_of(row: Tag, first: Tag) -> list[Tag]:
    """Return a row's cells. If no fix changes the code as committed, one cell stands for all rows."""
    same = first.select("td[rowspan]")
    return [*same, *row.select("td:not([rowspan])")]


def test_bars_of_the_repairs_show_what_arrives_after_each() -> None:
    body = page().select(".chart tbody")[1]
    rows = [row for row in body.select("tr") if "group-title" not in (row.get("class") or [])]
    for row, record in zip(rows, repairs().records, strict=True):
        assert rounded(drawn_parts(row)) == rounded([shares(ALL, record["delivered"], record["leaked"])])
        assert f"{ALL - record['delivered']} of {ALL} events dropped" in words(row)


def test_bar_of_the_wrong_order_is_the_subset_without_the_first_repair() -> None:
    delivered, leaked = subset_counts((False, True, True, True))
    row = page().select(".chart tbody")[2].select("tr")[-1]
    assert rounded(drawn_parts(row)) == rounded([shares(ALL, delivered, leaked)])
    assert "50 % leaked, 50 % delivered" in words(row)


def test_actions_are_the_repairs_in_their_order_with_what_arrives_after_each() -> None:
    earlier = 0
    for row, record in zip(page().select(".actions tbody tr"), repairs().records, strict=True):
        cells = [words(cell) for cell in row.select("td, th")]
        gain = record["delivered"] - earlier
        assert cells[0] == str(record["order"])
        assert cells[1:4] == [record["repair"], record["links"], record["purpose"]]
        assert cells[4] == f"-{record['lines removed']} +{record['lines added']}"
        assert cells[5] == (f"+{gain}" if gain else "0")
        assert cells[6] == f"{record['delivered']:,} of {ALL:,}"
        earlier = record["delivered"]


def test_answer_and_risks_come_before_the_links() -> None:
    text = index_html(REPORT)
    assert text.index('id="answer"') < text.index('id="risks"') < text.index('id="actions"') < text.index('id="links"')
    assert [risk["class"] for risk in page().select(".risks > li")] == [["leak"], ["loss"], ["undetected"]]
    assert words(one("#answer")).startswith(f"In the rebuilt chain, none of {ALL} test events reaches its user")


def test_each_link_has_both_marks() -> None:
    for number, (_, _, right, works) in LINKS.items():
        marks = one(f"#link-{number} > summary").select(".mark")
        assert [(mark["data-question"], words(mark)) for mark in marks] == [
            ("Was the audit right?", right),
            ("Does it work when run?", works),
        ]


def test_the_whole_chain_follows_its_links() -> None:
    assert [row["id"] for row in page().select("#links > details")][-2:] == ["link-10", "chain"]


def test_the_sentence_about_the_links_counts_the_marks() -> None:
    assert words(one("#links .lead")).startswith(
        "Of the audit's verdicts on 9 links, 5 are right, 2 are wrong, and 2 are right as worded, but insufficient."
        " As committed, 6 of 10 links fail: 1, 3, 5, 8, 9 and 10."
    )


def test_a_count_of_a_link_that_works_is_called_an_experiment() -> None:
    for number, (_, _, _, works) in LINKS.items():
        row = one(f"#link-{number}")
        assert " of 60" not in words(one("summary", row))
        assert ("experiment" in words(one(".rates", row))) == (works == "works")


def test_counts_before_and_after_are_not_exchanged() -> None:
    for number, (_, _, _, works) in LINKS.items():
        finding = link_finding(number)
        rates = one(f"#link-{number} .rates").select(".rate")
        labels = ("broken", "sound") if works == "works" else ("before", "after")
        shapes = ("rect", "circle")
        for rate, label, counts, shape in zip(rates, labels, (finding.before, finding.after), shapes, strict=True):
            assert counts is not None
            assert [mark.name for mark in rate.select("svg svg > *")] == [shape]
            assert words(one(".label", rate)) == label
            assert words(one(".counts", rate)) == f"{counts[0]} of {counts[1]}"
            assert float(str(one("svg svg", rate)["x"]).rstrip("%")) / 100 == pytest.approx(
                counts[0] / counts[1], abs=1e-4
            )


def test_deterministic_counts_have_no_interval() -> None:
    findings = json.loads(results_json(REPORT))["findings"]
    assert len(findings) > 20
    for finding in findings:
        assert not [name for name in finding if "interval" in name]
    for rates in page().select(".rates"):
        assert "%" not in words(rates)


def test_answers_in_the_results_are_those_of_the_page() -> None:
    results = json.loads(results_json(REPORT))
    assert {each["link"]: (each["reported"], each["audit_right"], each["works"]) for each in results["links"]} == {
        number: (reported, right, works) for number, (_, reported, right, works) in LINKS.items()
    }
    assert results["answer"]["text"] == words(one("#answer"))
    for each in results["findings"]:
        runs = each["id"] == "chain" or each["id"].startswith(("link-", "fix-"))
        assert (each["works"] is not None) == runs, each["id"]


def test_the_page_and_the_card_in_a_notebook_show_the_same_answers() -> None:
    for row in page().select("details.row[id]"):
        key = str(row["id"])
        summary = [(mark["data-question"], words(mark)) for mark in row.select("summary .mark")]
        if found := REPORT.findings.get(key):
            assert summary == list(answers(found[0]).items()), key
            assert all(f"{question} {answer}." in str(found[0]) for question, answer in summary), key


def test_only_links_and_fixes_say_whether_they_work() -> None:
    for row in page().select("details.row[id]"):
        questions = [str(mark["data-question"]) for mark in row.select("summary .mark")]
        runs = row["id"] == "chain" or str(row["id"]).startswith(("link-", "fix-"))
        assert ("Does it work when run?" in questions) == runs, row["id"]


def test_what_the_audit_missed_contradicts_it() -> None:
    mark = one("#missed-leaks summary .mark")
    assert (mark["data-question"], words(mark)) == ("Contradicts the audit?", "yes")


def test_what_was_run_is_counted() -> None:
    text = words(one("#run"))
    assert f"{len(REPORT.notebooks)} notebooks" in text
    assert f"{len(KINDS)} kinds of thread id" in text
    assert f"Of the {2 ** len(REPAIRS)} combinations" in text
    assert "did not rebuild them" in words(one("#not-run"))


def test_the_first_screen_counts_the_claims_about_the_measurements_that_hold() -> None:
    claims = [
        claim(f"trust-{number}", reported="ours", verdict=verdict)
        for number, verdict in enumerate(("holds", "unknown", "holds"))
    ]
    built = BeautifulSoup(index_html(report_of(executed("14_a", *map(recorded, claims)))), "html.parser")
    assert "tests the measurements themselves: 2 of 3 claims hold." in words(built.select("#run")[0])
    without = BeautifulSoup(index_html(report_of(executed("01_a"))), "html.parser")
    assert "the measurements themselves" not in words(without.select("#run")[0])


def test_the_data_can_be_saved_from_the_page_itself() -> None:
    for name, content in (("results.csv", results_csv(REPORT)), ("results.json", results_json(REPORT))):
        links = page().select(f'a[download="{name}"]')
        assert links
        for link in links:
            kind, _, data = str(link["href"]).partition(";charset=utf-8;base64,")
            assert kind.startswith("data:")
            assert b64decode(data).decode() == content


def test_each_link_opens_its_target_within_the_file() -> None:
    """A browser does not open a `<details>` element that is a target itself."""
    anchors = {str(tag["id"]) for tag in page().select("[id]") if tag.name != "details"}
    for link in page().select("a[href]"):
        target = str(link["href"])
        assert (target[1:] in anchors) if target.startswith("#") else link.has_attr("download"), target


def test_priorities_and_advice_have_verdicts() -> None:
    group = [words(row) for row in page().select("#claims details.row") if str(row["id"]).startswith("claim-")]
    assert [row["id"] for row in page().select('#claims [id^="claim-priority"]')] == [
        "claim-priority-1",
        "claim-priority-2",
        "claim-priority-3",
    ]
    assert any("which the audit calls optional, delivers" in text for text in group)


def test_the_part_for_engineers_says_why_each_section_is_there() -> None:
    for chapter in page().select("#engineers .chapter"):
        heading, paragraph = chapter.find_all(["h3", "p"], recursive=False)[:2]
        assert heading.name == "h3"
        assert len(words(paragraph).split()) > 20


def test_a_fault_has_its_explanation_beside_its_name() -> None:
    cell = one('#fault-matrix td[data-label="fault: "] small')
    assert words(cell) == "a laptop that went to sleep"


def test_only_the_first_screen_and_the_summaries_are_open() -> None:
    assert [details["id"] for details in page().select("details[open]")] == []
    outside = [figure for figure in page().select("figure") if figure.find_parent("details") is None]
    assert outside == []


def test_each_figure_is_in_the_row_of_its_finding() -> None:
    assert one("#missed-leaks > figure img")["alt"] == "A dot at 0 of 60."


def test_the_glossary_explains_the_terms_of_the_first_screen() -> None:
    assert [words(term) for term in page().select("#glossary dt")] == list(TERMS)
    for term in ("event", "thread", "as committed", "dropped", "leaked", "reported as sent", "repair", "experiment"):
        assert term in TERMS


def test_without_data_the_page_says_unknown_and_states_no_number() -> None:
    bare = BeautifulSoup(index_html(report_of(executed("01_a"))), "html.parser")
    assert words(one("#answer", bare)).startswith("Unknown")
    assert "Unknown" in words(one("#drop-rates", bare))
    assert "Unknown" in words(one("#actions", bare))
    assert [words(when) for when in bare.select(".risks .when")] == ["unknown"] * 3
    for number in range(1, 10):
        assert [words(mark) for mark in bare.select(f"#link-{number} .mark")] == ["unknown", "unknown"]
    assert [words(mark) for mark in bare.select("#link-10 .mark")] == ["not examined", "unknown"]
    first = " ".join(words(tag) for tag in bare.select("#answer, #drop-rates, #risks, #actions"))
    assert not re.search(r"\d+ of \d+|\d %", first)


@pytest.mark.parametrize("right", ["yes", "as worded, but insufficient", "no", "not examined", "unknown"])
@pytest.mark.parametrize("works", ["works", "fails", "unknown"])
def test_the_marks_of_every_answer_differ_in_shape(right: str, works: str) -> None:
    finding: Finding = claim("fix-1", audit_right=right, works=works)
    marks = BeautifulSoup(index_html(report_of(executed("01_a", recorded(finding)))), "html.parser").select(
        "#fix-1 .mark"
    )
    assert [words(mark) for mark in marks] == [right, works]
    icons = [str(one("use", mark)["href"]) for mark in marks]
    expected = {
        "yes": "works",
        "as worded, but insufficient": "partly",
        "no": "fails",
        "not examined": "none",
        "unknown": "unknown",
    }
    assert icons == [f"#icon-{expected[right]}", f"#icon-{works}"]
