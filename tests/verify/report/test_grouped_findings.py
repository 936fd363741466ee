from itertools import permutations

import pytest

from bridgekit_verify.measure.statistics import Sample
from bridgekit_verify.report.drop_tables import read_drop_tables
from bridgekit_verify.report.findings import Finding
from bridgekit_verify.report.grouped_findings import (
    all_findings,
    claim_groups,
    headline,
    link_statuses,
    other_findings,
    sections,
    smallest_sample,
    startup_note,
    timed_findings,
)
from bridgekit_verify.report.page import index_html
from bridgekit_verify.report.report_data import Report
from tests.verify.report.drop_tables import drop_tables, repairs, table
from tests.verify.report.example import LINKS, claim, link_finding
from tests.verify.report.notebooks import drawn, executed, finding, recorded, report_of, tabulated


def report_with(*findings: Finding) -> Report:
    return report_of(executed("01_a", *map(recorded, findings)))


def test_both_answers_of_a_link_are_those_of_its_finding() -> None:
    links = link_statuses(report_with(*map(link_finding, LINKS)))
    assert {link.number: (link.name, link.reported, link.right, link.works) for link in links} == LINKS
    assert [link.reason for link in links] == [
        f"As committed, it {row[3]}: evidence of link {n}." for n, row in LINKS.items()
    ]


@pytest.mark.parametrize("numbers", list(permutations((9, 1, 5)))[:4])
def test_links_are_in_the_order_of_the_chain_whatever_the_order_of_the_findings(numbers: tuple[int, ...]) -> None:
    report = report_with(link_finding(10), *map(link_finding, numbers))
    assert [link.number for link in link_statuses(report)] == list(range(1, 11))


def test_a_link_with_a_large_number_comes_last() -> None:
    report = report_with(finding("link-64", link=64), link_finding(3))
    assert [link.number for link in link_statuses(report)] == [*range(1, 11), 64]


def test_all_ten_links_are_there_and_one_without_a_finding_is_unknown() -> None:
    links = link_statuses(report_with(finding()))
    assert [link.number for link in links] == list(range(1, 11))
    missing, tenth = links[0], links[-1]
    assert (missing.reported, missing.right, missing.works, missing.sound) == ("unknown",) * 4
    assert missing.reason == "Unknown: no notebook recorded a finding about this link."
    assert (tenth.reported, tenth.right, tenth.works) == ("not examined", "not examined", "unknown")


def test_a_finding_with_another_id_does_not_answer_for_its_link() -> None:
    links = link_statuses(report_with(finding("claim-x", link=3, works="works")))
    assert links[2].works == "unknown"


def test_a_link_beyond_the_audit_is_shown_but_not_counted() -> None:
    report = report_with(link_finding(10), link_finding(3), finding("link-11", link=11, works="fails"))
    assert [link.number for link in link_statuses(report)][-1] == 11
    assert headline(report).links == 9
    assert headline(report).answers["no"] == (3,)
    assert headline(report).failing == (3, 10, 11)
    assert "links that fail when run as committed: 3, 10, 11" in headline(report).lines


def test_the_headline_counts_each_answer() -> None:
    found = headline(report_with(*map(link_finding, LINKS)))
    assert found.answers == {
        "yes": (2, 4, 6, 7, 9),
        "as worded, but insufficient": (1, 5),
        "no": (3, 8),
        "not examined": (),
        "unknown": (),
    }
    assert found.sentence == (
        "Of the audit's verdicts on 9 links, 5 are right, 2 are wrong, and 2 are right as worded, but insufficient."
    )
    assert found.failing == (1, 3, 5, 8, 9, 10)


def test_the_headline_counts_what_could_not_be_judged() -> None:
    found = headline(report_with(link_finding(3), link_finding(9)))
    assert found.sentence == (
        "Of the audit's verdicts on 9 links, 1 is right, 1 is wrong, 0 are right as worded, but insufficient, and 7"
        " could not be judged."
    )


def test_the_headline_uses_the_singular_for_one_link() -> None:
    assert headline(report_with(link_finding(1))).sentence == (
        "Of the audit's verdicts on 9 links, 0 are right, 0 are wrong, 1 is right as worded, but insufficient, and 8"
        " could not be judged."
    )


def test_links_that_were_not_measured_do_not_count_as_sound() -> None:
    report = report_with(link_finding(1), link_finding(2, sound="does not hold"), link_finding(3, sound="unknown"))
    assert headline(report).sound == 1
    assert "links that work in the sound chain: 1 of 9" in headline(report).lines


def test_the_headline_uses_the_whole_chain_and_keeps_before_and_after_apart() -> None:
    chain = claim("chain", before=(0, 500), after=(499, 500))
    found = headline(report_with(link_finding(9), chain))
    assert (found.before, found.after) == ((0, 500), (499, 500))
    assert found.lines[-1] == "events delivered as committed: 0 of 500; in the sound chain: 499 of 500"


def test_a_headline_without_counts_is_unknown() -> None:
    found = headline(report_of(executed("01_a")))
    assert found.sentence == "Unknown: none of the audit's 9 links has been judged."
    assert found.lines[0].startswith("Unknown")
    assert found.lines[-1] == "events delivered as committed: unknown; in the sound chain: unknown"
    assert found.lines[2] == "links that fail when run as committed: none"


def test_the_first_line_for_a_terminal_is_the_answer() -> None:
    report = report_of(executed("10_a", *map(tabulated, drop_tables())))
    assert headline(report).lines[0].startswith("In the rebuilt chain, none of 420 test events reaches its user")


def test_claims_are_grouped_by_the_start_of_their_id() -> None:
    keys = ("fix-2", "claim-lost", "claim-priority-1", "claim-monitoring", "step-1", "claimed-x")
    report = report_with(finding(), *map(claim, keys))
    assert {title: [f.id for f in group] for title, group in claim_groups(report).items()} == {
        "The three fixes": ["fix-2"],
        "Priorities and advice": ["claim-priority-1", "claim-monitoring"],
        "Verification steps": ["step-1"],
        "Claims about impact": ["claim-lost"],
    }
    assert [f.id for f in other_findings(report)] == ["claimed-x"]


def test_a_group_without_claims_is_left_out() -> None:
    assert list(claim_groups(report_with(claim("fix-1")))) == ["The three fixes"]


def test_findings_computed_from_the_tables_belong_to_their_notebook() -> None:
    report = report_of(executed("10_a", *map(tabulated, drop_tables()), recorded(claim("fix-1"))))
    found = all_findings(report)
    assert {key for key in found if key.startswith("claim-")} == {
        "claim-priority-1",
        "claim-priority-2",
        "claim-priority-3",
        "claim-monitoring",
    }
    assert {notebook.name for _, notebook in found.values()} == {"10_a"}
    assert found["fix-1"][0].answer == "Answer of fix-1."


def test_a_recorded_finding_is_preferred_to_a_computed_one() -> None:
    mine = claim("claim-monitoring", answer="Mine.")
    report = report_of(executed("10_a", *map(tabulated, drop_tables()), recorded(mine)))
    assert all_findings(report)["claim-monitoring"][0].answer == "Mine."


def test_the_first_link_is_explained_if_no_repair_changes_it() -> None:
    tables = read_drop_tables(report_of(executed("10_a", *map(tabulated, drop_tables()))))
    links = link_statuses(report_with(*map(link_finding, LINKS)))
    assert startup_note(links, tables).endswith(
        "After the repairs, replace the startup check with a check that can fail."
    )
    of_link_1 = [{**dict(row), "links": "1 and 3"} for row in repairs().records]
    assert (
        startup_note(links, read_drop_tables(report_of(executed("01_a", tabulated(table("repairs", of_link_1)))))) == ""
    )
    assert startup_note(link_statuses(report_with(link_finding(1, works="works"))), tables) == ""
    assert startup_note(links, read_drop_tables(report_of(executed("01_a")))) == ""
    others = report_with(link_finding(1, works="works"), link_finding(3))
    assert startup_note(link_statuses(others), tables) == ""


@pytest.mark.parametrize(
    ("verdict", "reported", "right"),
    [
        ("holds", "fix", "yes"),
        ("does not hold", "fix", "no"),
        ("unknown", "fix", "unknown"),
        ("holds", "ours", "not examined"),
    ],
)
def test_the_answer_about_another_claim_follows_from_its_verdict(verdict: str, reported: str, right: str) -> None:
    assert claim("fix-1", verdict=verdict, reported=reported).right == right


def test_smallest_sample_is_that_of_the_finding_with_the_fewest_observations() -> None:
    report = report_with(
        finding(sample=Sample(2, "agents")),
        claim("fix-1", sample=Sample(90, "events")),
        claim("claim-value", verdict="unknown", sample=Sample(1, "calls")),
        claim("chain"),
        claim("claim-late", verdict="unknown"),
    )
    smallest = smallest_sample(report)
    assert smallest is not None
    assert (smallest.id, str(smallest.sample)) == ("link-3", "2 agents")


def test_findings_that_rest_on_a_time_are_listed() -> None:
    timed = claim("scale-edges", timing="CPU time of an event")
    assert [each.id for each in timed_findings(report_with(finding(), timed))] == ["scale-edges"]
    other = claim("scale-memory", timing="CPU time of an event")
    assert "1 verdict depends on measured time" in index_html(report_with(finding(), timed))
    assert "2 verdicts depend on measured time" in index_html(report_with(finding(), timed, other))


def test_finding_of_a_section_is_shown_with_its_figure_and_not_elsewhere() -> None:
    report = report_of(executed("11_a", recorded(claim("missed-leaks")), drawn("missed_leaks"), drawn("other")))
    [(title, [section])] = sections(report).items()
    assert title == "What the audit missed"
    assert section.finding.id == "missed-leaks"
    assert section.figure is not None
    assert section.figure.name == "missed_leaks"
    assert section.table is None
    assert other_findings(report) == []


def test_sections_are_in_the_order_of_the_page_and_not_of_the_notebooks() -> None:
    report = report_with(claim("trust-a"), claim("scale-a"), claim("missed-a"), claim("fault-a"))
    assert list(sections(report)) == ["What the audit missed", "Faults", "Scale", "Validation"]


def test_other_findings_begin_with_the_whole_chain() -> None:
    report = report_with(claim("extra"), claim("chain"), link_finding(3), claim("link-x"))
    assert [f.id for f in other_findings(report)] == ["chain", "extra", "link-x"]
