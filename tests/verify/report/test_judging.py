import pytest

from bridgekit_verify.measure.statistics import Sample
from bridgekit_verify.report.findings import Finding
from bridgekit_verify.report.judging import (
    claim_groups,
    headline,
    link_statuses,
    other_findings,
    sections,
    smallest_sample,
    timed_findings,
    without_sample,
)
from bridgekit_verify.report.structure import Report
from tests.verify.report.notebooks import drawn, executed, finding, recorded, report_of


def report_with(*findings: Finding) -> Report:
    return report_of(executed("01_a", *map(recorded, findings)))


@pytest.mark.parametrize(
    ("reported", "verdict", "works", "agreement", "icon"),
    [
        ("working", "holds", "works", "confirmed", "works"),
        ("working", "does not hold", "fails", "contradicted", "fails"),
        ("broken", "holds", "fails", "confirmed", "expected"),
        ("broken", "does not hold", "works", "contradicted", "works"),
        ("working", "unknown", "unknown", "unknown", "unknown"),
        ("absent", "does not hold", "unknown", "contradicted", "fails"),
    ],
)
def test_link_status_distinguishes_failure_from_contradiction(
    reported: str, verdict: str, works: str, agreement: str, icon: str
) -> None:
    link = link_statuses(report_with(finding(reported=reported, verdict=verdict)))[2]
    assert (link.works, link.agreement, link.icon) == (works, agreement, icon)


def test_all_nine_links_are_there_and_one_without_a_finding_is_unknown() -> None:
    links = link_statuses(report_with(finding()))
    assert [link.number for link in links] == list(range(1, 10))
    missing = links[0]
    assert (missing.reported, missing.works, missing.found, missing.sound) == ("unknown",) * 4
    assert missing.before.n == missing.after.n == 0


def test_a_link_beyond_the_audit_is_shown_but_not_counted() -> None:
    report = report_with(finding(), finding("link-10", link=10, title="Link 10 · Connection"))
    assert [link.number for link in link_statuses(report)][-1] == 10
    assert headline(report).links == 9
    assert headline(report).contradicted == (3,)


def test_the_headline_counts_what_could_not_be_judged() -> None:
    nine = finding("link-9", link=9, reported="broken", verdict="holds", before=(0, 300), after=(300, 300))
    summary = headline(report_with(finding(), nine)).sentence
    assert summary == (
        "Of the audit's verdicts on 9 links, 1 holds when run, 1 does not and 7 could not be judged: "
        "0 of 300 events arrived as committed, 300 of 300 in the sound chain."
    )


def test_the_headline_uses_the_whole_chain_if_it_was_measured() -> None:
    nine = finding("link-9", link=9, before=(1, 9), after=(9, 9))
    chain = finding("chain", link=None, before=(0, 500), after=(500, 500))
    assert headline(report_with(nine, chain)).before == (0, 500)


def test_a_headline_without_counts_names_no_rate() -> None:
    summary = headline(report_with(finding(before=None, after=None)))
    assert "events arrived" not in summary.sentence
    assert summary.lines[-1] == "events delivered in the sound chain: unknown (nothing counted)"


def test_headline_without_verdicts_is_unknown() -> None:
    assert headline(report_of(executed("01_a"))).sentence.startswith("Unknown")


def test_claims_are_grouped_by_the_first_word_of_their_id() -> None:
    report = report_with(finding(), finding("fix-2", link=None), finding("claim-lost", link=None))
    assert {title: [f.id for f in group] for title, group in claim_groups(report).items()} == {
        "Fixes": ["fix-2"],
        "Claims about impact": ["claim-lost"],
    }
    assert [f.id for f in other_findings(report)] == ["link-3"]


def test_smallest_sample_is_that_of_the_finding_with_the_fewest_observations() -> None:
    report = report_with(
        finding(sample=Sample(2, "agents")),
        finding("fix-1", link=None, sample=Sample(90, "events")),
        finding("claim-value", link=None, verdict="unknown", sample=Sample(1, "calls")),
        finding("chain", link=None),
    )
    smallest = smallest_sample(report)
    assert smallest is not None
    assert (smallest.id, str(smallest.sample)) == ("link-3", "2 agents")
    assert [each.id for each in without_sample(report)] == ["chain"]


def test_findings_that_rest_on_a_time_are_listed() -> None:
    timed = finding("scale-edges", link=None, timing="CPU time of an event")
    assert [each.id for each in timed_findings(report_with(finding(), timed))] == ["scale-edges"]


def test_finding_of_a_section_is_shown_with_its_figure_and_not_as_evidence() -> None:
    report = report_of(
        executed("11_a", recorded(finding("missed-ladder", link=None)), drawn("missed_ladder"), drawn("other"))
    )
    [(title, [section])] = sections(report).items()
    assert title == "What the audit missed"
    assert section.finding.id == "missed-ladder"
    assert section.figure is not None
    assert section.figure.name == "missed_ladder"
    assert section.table is None
    assert other_findings(report) == []
