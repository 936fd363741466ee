"""For any measured numbers, a sentence never contradicts a number next to it: generate, render, parse, compare."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from bs4 import BeautifulSoup
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridgekit_verify.report.drop_tables import AS_COMMITTED, AS_REPORTED, BEFORE, FIXES
from bridgekit_verify.report.findings import Table
from bridgekit_verify.report.page import index_html
from tests.verify.report import drop_tables as build
from tests.verify.report.drop_tables import ALL, EACH, KINDS, STEPS, Counts
from tests.verify.report.example import link_finding
from tests.verify.report.notebooks import executed, recorded, report_of, tabulated

pytestmark = pytest.mark.slow

# The ends are the values at which the sentences change.
COUNT = st.sampled_from([0, 1, EACH // 2, EACH - 1, EACH])
StepCounts = dict[tuple[str, str], Counts]
APPENDIX = '<section id="reading">'
PROPERTY = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def fates(draw: st.DrawFn) -> Counts:
    delivered = draw(COUNT)
    return delivered, draw(st.sampled_from([0, EACH - delivered])), draw(st.sampled_from([0, EACH - delivered]))


@st.composite
def steps(draw: st.DrawFn) -> dict[tuple[str, str], Counts]:
    """Return counts for each step; often all steps of a chain are alike, as in the audited code."""
    same = draw(st.booleans())
    one = draw(fates())
    return {key: one if same and key[0] == AS_COMMITTED else draw(fates()) for key in STEPS}


def rates(counts: dict[tuple[str, str], Counts]) -> Table:
    return build.drop_rates({key: constant(each) for key, each in counts.items()})


def constant(counts: Counts) -> Callable[[str], Counts]:
    """Return a function that gives the same counts for every kind of thread id."""
    return lambda kind: counts


def rendered(*outputs: dict[str, Any]) -> BeautifulSoup:
    """Parse the page without its appendix: the copies of notebooks and data take most of the time."""
    page, appendix, _ = index_html(report_of(executed("10_a", *outputs))).partition(APPENDIX)
    assert appendix
    return BeautifulSoup(page, "html.parser")


def text_of(page: BeautifulSoup, selector: str) -> str:
    [found] = page.select(selector)
    return " ".join(found.get_text(" ").replace("\N{NO-BREAK SPACE}", " ").split())


def numbers(text: str) -> list[int]:
    return [int(each.replace(",", "")) for each in re.findall(r"\d[\d,]*", text)]


def the_answer_agrees(page: BeautifulSoup, counts: StepCounts) -> None:
    first = text_of(page, "#answer strong")
    kinds = len(KINDS)
    delivered, leaked = (kinds * counts[AS_COMMITTED, BEFORE][part] for part in (0, 1))
    fixes = [(kinds * counts[AS_COMMITTED, name][0], kinds * counts[AS_COMMITTED, name][1]) for name in FIXES]
    assert bool(page.select("#answer.yes")) == (delivered == ALL and leaked == 0)
    assert (f"none of {ALL:,} test events reaches its user" in first) == (delivered == 0)
    assert ("nobody" in first) is False
    if only := re.search(r"only ([\d,]+) of [\d,]+ test events reach their user", first):
        assert numbers(only[1]) == [delivered]
        assert 0 < delivered < ALL
    if another := re.search(r"and ([\d,]+) reach another user", first):
        assert numbers(another[1]) == [leaked]
    assert ("changes that" in first) == all(fix == (delivered, leaked) for fix in fixes)
    if best := re.search(r"delivers most: ([\d,]+) of ([\d,]+)", first):
        assert numbers(best[0]) == [max(fix[0] for fix in fixes), ALL]
        assert max(fix[0] for fix in fixes) > delivered
    if "delivers more" in first:
        assert all(fix[0] <= delivered for fix in fixes)


def the_risks_agree(page: BeautifulSoup, counts: StepCounts) -> None:
    kinds = len(KINDS)
    delivered, leaked, false = (kinds * part for part in counts[AS_COMMITTED, BEFORE])
    leak, loss, undetected = (text_of(page, f".risks .{kind}") for kind in ("leak", "loss", "undetected"))
    assert ("as committed" in leak) == (leaked > 0)
    assert numbers(loss)[:2] == [ALL - delivered, ALL]
    assert ("not observed" in loss) == (delivered == ALL)
    worst = max([false, *(kinds * counts[AS_COMMITTED, name][2] for name in FIXES)])
    assert ("not observed" in undetected) == (worst == 0)
    if worst:
        [stated] = re.findall(r"([\d,]+) of [\d,]+ events are reported as sent", undetected)
        assert numbers(stated) == [worst]


def the_text_of_a_bar_agrees_with_its_drawing(page: BeautifulSoup, counts: StepCounts) -> None:
    rows = page.select(".chart tbody")[0].select("tr")
    same = rows[0].select("td[rowspan]")
    outcomes = {counts[AS_COMMITTED, name][:2] for name in (BEFORE, *FIXES)}
    assert bool(same) == (len(outcomes) == 1)
    for name, row in zip((BEFORE, *FIXES), rows, strict=True):
        cells = [*same, *row.select("td:not([rowspan])")]
        for chain, cell in zip((AS_COMMITTED, AS_REPORTED), cells, strict=True):
            delivered, leaked, _ = counts[chain, name]
            text = " ".join(cell.select(".result")[0].get_text().split())
            assert text.startswith("0 % dropped") == (delivered == EACH and leaked == 0)
            assert text.startswith("100 % dropped") == (delivered == 0 and leaked == 0)
            shares = re.findall(r"([\d.<]+) % (lost|leaked|delivered)", text)
            if leaked and delivered + leaked <= EACH and all("<" not in share for share, _ in shares):
                assert abs(sum(float(share) for share, _ in shares) - 100) < 0.2
            assert ("leaked" in text) == (leaked > 0)
            drawn = [float(str(part["style"]).removeprefix("width:").rstrip("%")) for part in cell.select(".kind i")]
            assert abs(sum(drawn) - 100 * (EACH - delivered) / EACH) < 0.05


def a_priority_is_right_exactly_if_its_numbers_say_so(
    page: BeautifulSoup, counts: dict[tuple[str, str], Counts]
) -> None:
    alone = {name: counts[AS_REPORTED, name] for name in FIXES}
    rank = {name: (delivered, -leaked) for name, (delivered, leaked, _) in alone.items()}
    others = ("fix 2 as written", "fix 2 with its method", "fix 3")
    answers = [page.select(f"#claim-priority-{number} .mark")[0].get_text(strip=True) for number in (1, 2, 3)]
    assert (answers[0] == "yes") == all(rank[name] <= rank["fix 1"] for name in others)
    enough = alone["fixes 1 and 2 as written"][:2] == (EACH, 0)
    assert (answers[1] == "yes") == enough
    assert (answers[1] == "no") == (not enough and rank["fixes 1 and 2 as written"] <= rank["fix 1"])
    assert (answers[2] == "yes") == enough
    optional = text_of(page, "#claim-priority-3 .because")
    [stated] = re.findall(r"calls optional, delivers ([\d,]+) of", optional)
    assert numbers(stated) == [len(KINDS) * alone["fix 3"][0]]
    assert ("more than Fix 1" in optional) == (alone["fix 3"][0] > alone["fix 1"][0])


@PROPERTY
@given(steps())
def test_every_sentence_agrees_with_the_counts(counts: dict[tuple[str, str], Counts]) -> None:
    """One test, because the page takes far longer than its checks."""
    page = rendered(tabulated(rates(counts)), tabulated(build.repair_subsets()))
    the_answer_agrees(page, counts)
    the_risks_agree(page, counts)
    the_text_of_a_bar_agrees_with_its_drawing(page, counts)
    a_priority_is_right_exactly_if_its_numbers_say_so(page, counts)


@PROPERTY
@given(st.lists(st.tuples(COUNT, COUNT, COUNT, COUNT), min_size=1, max_size=1), st.integers(0, EACH))
def test_the_repairs_are_said_to_deliver_everything_only_if_they_do(
    delivered: list[tuple[int, int, int, int]], leaked: int
) -> None:
    counts = tuple(len(KINDS) * count for count in delivered[0])
    page = rendered(
        tabulated(build.drop_rates()), tabulated(build.repairs(counts, (0, 0, 0, min(leaked, ALL - counts[3]))))
    )
    second = text_of(page, "#answer")
    assert (f"deliver all {ALL}" in second) == (counts[3] == ALL)
    if counts[3] < ALL:
        assert f"deliver {counts[3]:,} of {ALL}" in second
    gains = [text_of(page, f"#repair-{order} .gain") for order in (1, 2, 3, 4)]
    assert [int(gain.replace(",", "")) for gain in gains] == [
        after - before for before, after in zip((0, *counts), counts, strict=False)
    ]


@PROPERTY
@given(
    st.sampled_from(["works", "fails", "unknown"]),
    st.sampled_from(["yes", "as worded, but insufficient", "no", "unknown"]),
    st.integers(0, 200),
)
def test_a_link_that_works_never_stands_beside_a_count_of_lost_events(works: str, right: str, k: int) -> None:
    finding = link_finding(
        3, works=works, audit_right=right, before=(k, 200), experiment="" if works == "fails" else "broken on purpose"
    )
    page = rendered(recorded(finding))
    [summary] = page.select("#link-3 > summary")
    assert "200" not in summary.get_text()
    [rates_] = page.select("#link-3 .rates")
    assert ("experiment" in rates_.get_text()) == (works != "fails")
    sentence = text_of(page, "#links .lead")
    counted = {"yes": "right(?! as)", "as worded, but insufficient": "right as worded", "no": "wrong"}
    for answer, phrase in counted.items():
        assert bool(re.search(f"1 is {phrase}", sentence)) == (right == answer), sentence
    assert ("1 of 10 links fails: 3" in sentence) == (works == "fails")
