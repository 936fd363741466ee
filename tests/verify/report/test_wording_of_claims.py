"""The findings about the audit's claims word by word, for measurements that need no server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from bridgekit_verify.links import LINKS
from bridgekit_verify.measure.drops import count_drops
from bridgekit_verify.measure.experiment import Measurement
from bridgekit_verify.measure.statistics import Sample
from bridgekit_verify.probes.audit_descriptions import Wording
from bridgekit_verify.probes.probes import Probe, ProbeAnswer
from bridgekit_verify.report.claims import audit_answer, chain_claim, fix_claim, link_claim, lost_claim, verdict_of
from bridgekit_verify.report.findings import Finding, RunAnswer
from bridgekit_verify.studies.drops import BEFORE, COMMITTED, REPORTED, FixDrops
from bridgekit_verify.studies.links_and_fixes import EXAMPLE, LinkStudy
from bridgekit_verify.variants import AS_COMMITTED, BROKEN, FIXES, SOUND
from tests.verify.report.thoughts import BOB, KINDS, PARSED, cell, every, measured, none, some, study_of, thoughts

HOLDS, DOES_NOT_HOLD, UNKNOWN = ProbeAnswer.HOLDS, ProbeAnswer.DOES_NOT_HOLD, ProbeAnswer.UNKNOWN


AFTER_FIXES: Mapping[str, Mapping[str, Measurement]] = {
    REPORTED: every(),
    "fix 1": PARSED,
    "fix 2 as written": every(),
    "fix 2 with its method": none(),
    "fix 3": none(),
    "fixes 1 and 2 as written": PARSED,
    "fixes 1 and 2 with the method": some((5, 0, 0), (5, 1, 0), (3, 4, 0)),
    "fixes 1, 2 and 3": none(),
}


def read_by_another_as_well() -> Measurement:
    """Return a measurement in which every event arrives, and another user reads one of them."""
    history = thoughts(5, 0, 0)
    history.arrivals.append(replace(history.arrivals[0], socket=BOB))
    return measured(SOUND, history)


def drops_of(
    reported: Mapping[str, Mapping[str, Measurement]], committed: Mapping[str, Mapping[str, Measurement]]
) -> FixDrops:
    studies = {COMMITTED: study_of(committed), REPORTED: study_of(reported)}
    counts = {
        chain: {
            BEFORE if step == chain else step: {kind: count_drops(study.cells[kind, step]) for kind in KINDS}
            for step in study.variants
        }
        for chain, study in studies.items()
    }
    return FixDrops(counts, studies[REPORTED].groups, studies)


STOPPED_LATER = {COMMITTED: every(), **{fix: every(8) for fix in FIXES}}
"""The code as committed: without link 9's defect, link 8 stops every event."""
DROPS = drops_of(AFTER_FIXES, STOPPED_LATER)


# Verdicts and answers.


def test_verdict_is_unknown_if_nothing_was_measured() -> None:
    assert [verdict_of(True), verdict_of(False)] == ["holds", "does not hold"]
    assert [verdict_of(holds, known=False) for holds in (True, False)] == ["unknown"] * 2


@pytest.mark.parametrize(
    ("reported", "works", "as_worded", "answer"),
    [
        ("working", "works", False, "yes"),
        ("working", "fails", True, "as worded, but insufficient"),
        ("working", "fails", False, "no"),
        ("working", "unknown", True, "unknown"),
        ("broken", "fails", False, "yes"),
        ("broken", "works", True, "no"),
        ("broken", "works", False, "no"),
    ],
)
def test_audit_is_right_if_it_reports_what_the_link_does(
    reported: str, works: RunAnswer, as_worded: bool, answer: str
) -> None:
    assert audit_answer(reported, works, as_worded=as_worded) == answer


# The links.


def probe_of(number: int, answer: ProbeAnswer, evidence: str = "it was tested") -> Probe:
    return Probe(LINKS[number - 1], answer, evidence, Sample(number + 3, "calls"))


def link_finding(number: int, committed: ProbeAnswer, sound: ProbeAnswer = HOLDS, *, true: bool = True) -> Finding:
    broken = measured(BROKEN[number], thoughts(1, 2, 3))
    return link_claim(
        LinkStudy(
            LINKS[number - 1],
            probe_of(number, committed),
            Wording("it passes the bridge on", true),
            probe_of(number, sound, "it was repaired"),
            broken,
            measured(SOUND, thoughts(6, 0, 0)),
            broken,
        )
    )


def test_link_that_fails_is_stated_in_these_words() -> None:
    assert link_finding(5, DOES_NOT_HOLD) == Finding(
        id="link-5",
        title="Link 5 · AgentExecutionCore",
        link=5,
        claim="Link 5 is working: it passes the bridge on.",
        reported="working",
        verdict="does not hold",
        audit_right="as worded, but insufficient",
        works="fails",
        answer="As committed, link 5 fails: it was tested.",
        evidence=(
            "As worded, the audit's description of link 5 is true.",
            "With only link 5 as committed, the core shares one agent between all runs: 1 of 6 events reach"
            " their user, and 2 reach another user.",
            "With link 5 repaired, 6 of 6 events reach their user. In the sound chain, link 5 passes its test: it"
            " was repaired.",
        ),
        before=(1, 6),
        after=(6, 6),
        sound="holds",
        sample=Sample(8, "calls"),
    )
    assert link_finding(9, DOES_NOT_HOLD, DOES_NOT_HOLD, true=False) == Finding(
        id="link-9",
        title="Link 9 · AgentWebSocketBridge routing",
        link=9,
        claim="Link 9 is broken: it passes the bridge on.",
        reported="broken",
        verdict="holds",
        audit_right="yes",
        works="fails",
        answer="As committed, link 9 fails: it was tested.",
        evidence=(
            "As worded, the audit's description of link 9 is not true.",
            "With only link 9 as committed, the run id does not contain the thread id: 1 of 6 events reach their"
            " user, and 2 reach another user.",
            "With link 9 repaired, 6 of 6 events reach their user. In the sound chain, link 9 still fails its test:"
            " it was"
            " repaired.",
        ),
        before=(1, 6),
        after=(6, 6),
        sound="does not hold",
        sample=Sample(12, "calls"),
    )


def test_link_that_works_is_stated_in_these_words() -> None:
    assert link_finding(2, HOLDS) == Finding(
        id="link-2",
        title="Link 2 · SupervisorAgent",
        link=2,
        claim="Link 2 is working: it passes the bridge on.",
        reported="working",
        verdict="holds",
        audit_right="yes",
        works="works",
        answer="As committed, link 2 works: it was tested.",
        evidence=(
            "As worded, the audit's description of link 2 is true.",
            "In an experiment, link 2 is broken on purpose, so that the supervisor passes on a second bridge: 1 of 6"
            " events reach their user, and 2 reach another user.",
            "With link 2 sound, 6 of 6 events reach their user. In the sound chain, link 2 passes its test: it was"
            " repaired.",
        ),
        before=(1, 6),
        after=(6, 6),
        experiment="the supervisor passes on a second bridge",
        sound="holds",
        sample=Sample(5, "calls"),
    )


def test_link_whose_test_gave_no_result_is_stated_in_these_words() -> None:
    assert link_finding(4, UNKNOWN, UNKNOWN) == Finding(
        id="link-4",
        title="Link 4 · ExecutionEngine",
        link=4,
        claim="Link 4 is working: it passes the bridge on.",
        reported="working",
        verdict="unknown",
        audit_right="unknown",
        answer="As committed, the test of link 4 gave no result: it was tested.",
        evidence=(
            "As worded, the audit's description of link 4 is true.",
            "In an experiment, link 4 is broken on purpose, so that the engine passes on a second bridge: 1 of 6 events"
            " reach their user, and 2 reach another user.",
            "With link 4 sound, 6 of 6 events reach their user. In the sound chain, link 4 was tested without a"
            " result: it was"
            " repaired.",
        ),
        before=(1, 6),
        after=(6, 6),
        experiment="the engine passes on a second bridge",
        sample=Sample(7, "calls"),
    )


def test_link_1_is_measured_with_the_hub_as_committed() -> None:
    with_the_hub, alone = (link_finding(number, DOES_NOT_HOLD).evidence[1] for number in (1, 3))
    assert with_the_hub.startswith("With only link 1's checks and the hub (link 10) as committed, startup does not ")
    assert alone.startswith("With only link 3 as committed, the registry binds agents ")


# The chain.


def chain_finding(broken: tuple[int, ...], unknown: tuple[int, ...] = ()) -> Finding:
    probes = [
        probe_of(number, DOES_NOT_HOLD if number in broken else UNKNOWN if number in unknown else HOLDS)
        for number in range(1, 10)
    ]
    return chain_claim(probes, measured(AS_COMMITTED, thoughts(1, 2, 3)), measured(SOUND, thoughts(6, 0, 0)))


def test_chain_is_stated_in_these_words() -> None:
    assert chain_finding((8, 9), (2, 4)) == Finding(
        id="chain",
        title="The chain as a whole",
        claim="Eight of the nine links work, and one is broken.",
        reported="broken",
        verdict="does not hold",
        works="fails",
        answer=(
            "As committed, 2 of 9 links fail: 8 and 9. The audit calls only link 9 broken. The tests of links 2 and 4"
            " gave no result."
        ),
        evidence=(
            "Link 8 · Event emission: it was tested.",
            "Link 9 · AgentWebSocketBridge routing: it was tested.",
        ),
        before=(1, 6),
        after=(6, 6),
        sample=Sample(4, "calls of link 1"),
    )


@pytest.mark.parametrize(
    ("broken", "unknown", "verdict", "works", "end"),
    [
        ((9,), (), "holds", "fails", "1 of 9 links fail: 9. The audit calls only link 9 broken."),
        ((), (), "does not hold", "works", "0 of 9 links fail. The audit calls only link 9 broken."),
        ((), (9,), "unknown", "unknown", "The audit calls only link 9 broken. The tests of link 9 gave no result."),
        ((9,), (8,), "unknown", "fails", "The audit calls only link 9 broken. The tests of link 8 gave no result."),
        (
            (1,),
            (9,),
            "does not hold",
            "fails",
            "The audit calls only link 9 broken. The tests of link 9 gave no result.",
        ),
    ],
)
def test_chain_is_as_reported_only_if_exactly_link_9_fails(
    broken: tuple[int, ...], unknown: tuple[int, ...], verdict: str, works: str, end: str
) -> None:
    finding = chain_finding(broken, unknown)
    assert (finding.verdict, finding.works) == (verdict, works)
    assert finding.answer.endswith(end)


def test_sample_of_the_chain_is_the_smallest_of_its_links() -> None:
    sound = measured(SOUND, thoughts(6, 0, 0))
    untested = [Probe(link, UNKNOWN, "") for link in LINKS]
    assert chain_claim(untested, sound, sound).sample is None
    mixed = [*untested[:7], probe_of(8, HOLDS), probe_of(9, HOLDS)]
    assert chain_claim(mixed, sound, sound).sample == Sample(11, "calls of link 8")


# The fixes.


def test_fix_1_is_stated_in_these_words() -> None:
    assert fix_claim(1, DROPS) == Finding(
        id="fix-1",
        title="Fix 1 · alone",
        claim="Fix 1, a critical change of a single line, puts the thread id into the run id, so that the bridge finds"
        " the thread.",
        reported="fix",
        verdict="does not hold",
        works="fails",
        answer=(
            "As committed with Fix 1, 0 of 18 events reach their user. With Fix 1 and only link 9 broken, every event"
            " reaches its user for 1 of 1 documented kind and 0 of 2 stress kinds of thread id. Events of 2 of 3"
            " kinds of thread id leak to another user: 'chat_<n>', 'starts with another id'."
        ),
        evidence=(
            "With Fix 1 and only link 9 broken, events of these kinds of thread id do not reach their user:"
            " 'chat_<n>', 'starts with another id'.",
            "With Fix 1 and only link 9 broken, events of these kinds of thread id reach another user: 'chat_<n>',"
            " 'starts with another id'.",
            "With Fix 1 and only link 9 broken, events of documented kinds of thread id are delivered as follows:"
            " 'thread_123' 5 of"
            " 5.",
            "With Fix 1 and only link 9 broken, events of stress kinds of thread id are delivered as follows:"
            " 'chat_<n>' 0 of 6,"
            " 'starts with another id' 3 of 7.",
        ),
        before=(0, 5),
        after=(5, 5),
        counted="thread_123, with only link 9 broken",
        sample=Sample(5, "events"),
    )


def test_fix_2_is_stated_in_these_words() -> None:
    assert fix_claim(2, DROPS) == Finding(
        id="fix-2",
        title="Fix 2 · alone",
        claim=(
            "With Fix 2, a backup, the bridge finds the thread by parsing the run id and then querying the"
            " orchestrator."
        ),
        reported="fix",
        verdict="does not hold",
        works="fails",
        answer=(
            "As committed with Fix 2 as written, 0 of 18 events reach their user. With Fix 2 as written and only link 9"
            " broken, every event reaches its user for 0 of 1 documented kind and 0 of 2 stress kinds of thread id."
            " No event leaks."
        ),
        evidence=(
            (
                "With Fix 2 as written and only link 9 broken, events of these kinds of thread id do not reach their"
                " user: 'thread_123', 'chat_<n>', 'starts with another id'."
            ),
            "With Fix 2 as written and only link 9 broken, events of these kinds of thread id reach another user:"
            " none.",
            "With Fix 2 as written and only link 9 broken, events of documented kinds of thread id are delivered as"
            " follows:"
            " 'thread_123' 0 of 5.",
            "With Fix 2 as written and only link 9 broken, events of stress kinds of thread id are delivered as"
            " follows: 'chat_<n>'"
            " 0 of 6, 'starts with another id' 0 of 7.",
            "With Fixes 1 and 2 as written and only link 9 broken, every event reaches its user for 1 of 1 documented"
            " kind and 0 of 2 stress kinds"
            " of thread id. Events of 2 of 3 kinds of thread id leak to another user: 'chat_<n>', 'starts with another"
            " id'.",
            "The orchestrator lacks the method that Fix 2 calls. 'Fix 2 with its method' adds the method as a lookup in"
            " Fix 3's mapping.",
            "With only link 9 broken and Fix 2 with its method, every event reaches its user for 1 of 1 documented kind"
            " and 2 of 2 stress kinds of thread id. No event leaks.",
            "With only link 9 broken and Fixes 1 and 2 with the method, every event reaches its user for 1 of 1"
            " documented kind and 0 of 2 stress kinds of thread id. Events of 2 of 3 kinds of thread id leak to another"
            " user: 'chat_<n>', 'starts with another id'.",
            "For 2 of 3 kinds of thread id, Fix 2 with its method delivers fewer events together with Fix 1 than alone:"
            " 'chat_<n>', 'starts with another id'.",
        ),
        before=(0, 5),
        after=(0, 5),
        counted="thread_123, with only link 9 broken",
        sample=Sample(5, "events"),
    )


def test_fix_3_is_stated_in_these_words() -> None:
    assert fix_claim(3, DROPS) == Finding(
        id="fix-3",
        title="Fix 3 · alone",
        claim="With Fix 3, which is optional, the bridge finds the thread in a service that stores each run's thread.",
        reported="fix",
        verdict="holds",
        works="fails",
        answer=(
            "As committed with Fix 3, 0 of 18 events reach their user. With Fix 3 and only link 9 broken, every event"
            " reaches its user for 1 of 1 documented kind and 2 of 2 stress kinds of thread id. No event leaks."
        ),
        evidence=(
            "With Fix 3 and only link 9 broken, events of these kinds of thread id do not reach their user: none.",
            "With Fix 3 and only link 9 broken, events of these kinds of thread id reach another user: none.",
            "With Fix 3 and only link 9 broken, events of documented kinds of thread id are delivered as follows:"
            " 'thread_123' 5 of"
            " 5.",
            "With Fix 3 and only link 9 broken, events of stress kinds of thread id are delivered as follows:"
            " 'chat_<n>' 6 of 6,"
            " 'starts with another id' 7 of 7.",
            "The test of Fix 3 uses one process, and emits events only while their run is active. Notebook 11 tests"
            " Fix 3 after a run's end, after a restart, and with a run that is registered twice.",
        ),
        before=(0, 5),
        after=(5, 5),
        counted="thread_123, with only link 9 broken",
        sample=Sample(5, "events"),
    )


def test_fix_2_that_was_measured_alone_has_no_further_evidence() -> None:
    alone = {step: AFTER_FIXES[step] for step in (REPORTED, "fix 2 as written")}
    finding = fix_claim(2, drops_of(alone, {step: every() for step in (COMMITTED, "fix 2 as written")}))
    assert len(finding.evidence) == 4


def test_fix_2_that_fix_1_does_not_make_worse_says_so() -> None:
    steps = {**AFTER_FIXES, "fixes 1 and 2 with the method": none()}
    assert fix_claim(2, drops_of(steps, STOPPED_LATER)).evidence[-1] == (
        "For 0 of 3 kinds of thread id, Fix 2 with its method delivers fewer events together with Fix 1 than alone:"
        " none."
    )


@pytest.mark.parametrize(
    ("after", "verdict"),
    [
        (none(), "holds"),
        (some((5, 0, 0), (5, 0, 1), (7, 0, 0)), "does not hold"),
        (some((5, 1, 0), (6, 0, 0), (7, 0, 0)), "does not hold"),
        ({**none(), EXAMPLE: read_by_another_as_well()}, "does not hold"),
        (some((5, 0, 0), (0, 0, 0), (7, 0, 0)), "unknown"),
    ],
)
def test_fix_holds_if_no_event_is_lost_or_leaked(after: Mapping[str, Measurement], verdict: str) -> None:
    assert fix_claim(1, drops_of({**AFTER_FIXES, "fix 1": after}, STOPPED_LATER)).verdict == verdict


@pytest.mark.parametrize(
    ("committed", "works"),
    [(none(), "works"), (every(), "fails"), (some((0, 0, 0), (0, 0, 0), (0, 0, 0)), "unknown")],
)
def test_fix_works_if_every_event_arrives_as_committed(committed: Mapping[str, Measurement], works: str) -> None:
    assert fix_claim(3, drops_of(AFTER_FIXES, {**STOPPED_LATER, "fix 3": committed})).works == works


# Events are lost.


def test_lost_claim_is_stated_in_these_words() -> None:
    assert lost_claim(DROPS) == Finding(
        id="claim-lost",
        title="Claim · events are completely lost",
        claim="As committed, no agent event reaches a user, and link 9 is the reason.",
        reported="broken",
        verdict="does not hold",
        audit_right="as worded, but insufficient",
        answer="As committed, 0 of 18 events reach their user. Before or after the audit's fixes, events are lost at"
        " links 8 and 9, and not only at link 9.",
        evidence=(
            "As committed before any fix, events are lost at link 9.",
            "If a fix repairs link 9 in the code as committed, events are lost at link 8.",
        ),
        before=(0, 5),
        counted="thread_123, as committed",
        rule=(
            "The audit is right if no event arrives as committed, and events are lost at link 9 only. The audit's"
            " statement is insufficient if no event"
            " arrives as committed, but events are lost at other links as well, before or after the audit's fixes."
        ),
        sample=Sample(5, "events"),
    )


@pytest.mark.parametrize(
    ("before", "after", "right", "answer", "evidence"),
    [
        (
            every(9),
            every(9),
            "yes",
            "0 Before and after the audit's fixes, events are lost only at link 9.",
            ("link 9", "link 9"),
        ),
        (
            every(8),
            every(2),
            "as worded, but insufficient",
            "0 Before or after the audit's fixes, events are lost at links 2 and 8, and not only at link 9.",
            ("link 8", "link 2"),
        ),
        (
            every(8),
            every(8),
            "as worded, but insufficient",
            "0 Before or after the audit's fixes, events are lost at link 8, and not only at link 9.",
            ("link 8", "link 8"),
        ),
        (none(), every(8), "no", "18", ("no link", "link 8")),
        (
            some((0, 5, 0), (0, 0, 6), (0, 0, 7)),
            every(9),
            "no",
            "0 Before and after the audit's fixes, events are lost only at link 9.",
            ("link 9", "link 9"),
        ),
        (
            some((1, 0, 4), (0, 0, 6), (0, 0, 7)),
            every(9),
            "no",
            "1 Before and after the audit's fixes, events are lost only at link 9.",
            ("link 9", "link 9"),
        ),
    ],
)
def test_lost_claim_is_right_if_only_link_9_loses_events(
    before: Mapping[str, Measurement],
    after: Mapping[str, Measurement],
    right: str,
    answer: str,
    evidence: tuple[str, str],
) -> None:
    finding = lost_claim(drops_of(AFTER_FIXES, {COMMITTED: before, **dict.fromkeys(FIXES, after)}))
    assert (finding.right, finding.verdict) == (right, "holds" if right == "yes" else "does not hold")
    count, _, stopped = answer.partition(" ")
    assert finding.answer == f"As committed, {count} of 18 events reach their user. {stopped}".rstrip()
    assert finding.evidence == (
        f"As committed before any fix, events are lost at {evidence[0]}.",
        f"If a fix repairs link 9 in the code as committed, events are lost at {evidence[1]}.",
    )


def test_links_that_lose_events_are_listed_in_order() -> None:
    lost = {kind: cell((0, 0, 1), link) for kind, link in zip(KINDS, (8, 2, 9), strict=True)}
    finding = lost_claim(drops_of(AFTER_FIXES, {COMMITTED: lost, **dict.fromkeys(FIXES, lost)}))
    assert finding.evidence == (
        "As committed before any fix, events are lost at links 2, 8 and 9.",
        "If a fix repairs link 9 in the code as committed, events are lost at links 2, 8 and 9.",
    )


@pytest.mark.parametrize("chain", [COMMITTED, REPORTED])
def test_lost_claim_is_unknown_if_one_of_its_measurements_expected_nothing(chain: str) -> None:
    nothing = {"fix 1": some((0, 0, 0), (0, 0, 0), (0, 0, 0))}
    reported, committed = (
        {**steps, **(nothing if name == chain else {})}
        for name, steps in ((REPORTED, AFTER_FIXES), (COMMITTED, {COMMITTED: every(), **dict.fromkeys(FIXES, every())}))
    )
    finding = lost_claim(drops_of(reported, committed))
    assert (finding.right, finding.verdict) == ("unknown", "unknown")
