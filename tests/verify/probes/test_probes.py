"""The probes: each judges only its own link. On asyncio, because they use a real server."""

from __future__ import annotations

import pytest

from bridgekit.transport.hub import Hub
from bridgekit_verify.measure.families import FAMILIES
from bridgekit_verify.probes.probes import Probe, ProbeAnswer, probe, probe_all
from bridgekit_verify.variants import BROKEN, SOUND, Variant, variant
from tests.verify.measure.test_experiment import REFUSED_BY_ITS_CHECK

SIGNS = {"+": ProbeAnswer.HOLDS, "-": ProbeAnswer.DOES_NOT_HOLD, "?": ProbeAnswer.UNKNOWN}

DIAGONAL = {
    1: "-+++++++?",
    2: "+-+++++++",
    3: "++-++++++",
    4: "+++-+++++",
    5: "++++-++++",
    6: "+++++-+++",
    7: "++++++-++",
    8: "+++++++-+",
    9: "++++++++-",
}
"""Link 9 cannot be tested if no socket is assigned to a thread, which link 1 did not detect."""


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


def signs(probes: list[Probe]) -> str:
    back = {answer: sign for sign, answer in SIGNS.items()}
    assert [each.link.number for each in probes] == list(range(1, 10))
    assert all(each.evidence for each in probes)
    return "".join(back[each.answer] for each in probes)


@pytest.mark.parametrize("link", BROKEN)
async def test_only_the_broken_link_is_named(link: int) -> None:
    assert signs(await probe_all(BROKEN[link])) == DIAGONAL[link]


@pytest.mark.parametrize(
    ("name", "answers"),
    [
        ("sound", "+++++++++"),
        ("as reported", "++++++++-"),
        ("fix 1", "++++++++-"),
        ("fix 2 as written", "++++++++-"),
        ("fix 2 with its method", "+++++++++"),
        ("fix 3", "+++++++++"),
        ("fixes 1 and 2 with the method", "++++++++-"),
        ("as committed", "-+-+-++--"),
    ],
)
async def test_links_of_each_variant_hold_as_listed(name: str, answers: str) -> None:
    assert signs(await probe_all(variant(name))) == answers


async def test_refusal_to_start_fails_the_named_link_and_leaves_the_others_unknown() -> None:
    assert signs(await probe_all(REFUSED_BY_ITS_CHECK)) == "???-?????"


async def test_refusal_by_link_10_fails_the_last_probe() -> None:
    class HubWithoutDelivery(Hub):
        def deliver(self, thread_id: object, frame: object) -> int:
            return 0

    found = await probe_all(Variant(name="no delivery", summary="no socket is reached", hub=HubWithoutDelivery))
    assert signs(found) == "????????-"
    assert "link 10: an event to a subscribed thread did not arrive" in found[8].evidence


async def test_single_probe_agrees_with_the_nine() -> None:
    assert (await probe(9, BROKEN[9])).answer is ProbeAnswer.DOES_NOT_HOLD
    assert (await probe(9, SOUND)).answer is ProbeAnswer.HOLDS


async def test_evidence_states_what_the_probe_observed() -> None:
    reported = await probe(9, variant("as reported"))
    assert reported.evidence.startswith("no route in 13 of 13 families of thread ids")
    leaking = await probe(9, variant("fix 1"))
    assert "reached another user's socket" in leaking.evidence


@pytest.mark.parametrize(
    ("own", "answer", "evidence"),
    [
        (["thread_1", "thread_2"], ProbeAnswer.HOLDS, "in 1 of 1 families of thread ids"),
        (["support-42"], ProbeAnswer.DOES_NOT_HOLD, "no route in 1 of 1 families"),
        (["thread_a", "thread_a_b"], ProbeAnswer.DOES_NOT_HOLD, "1 events reached another user's socket"),
    ],
)
async def test_link_9_is_tested_with_a_readers_own_thread_ids(
    own: list[str], answer: ProbeAnswer, evidence: str
) -> None:
    found = await probe(9, variant("fix 1"), families={"mine": own})
    assert found.answer is answer
    assert found.evidence.startswith(evidence)


async def test_id_that_occurs_in_two_families_is_tested_once() -> None:
    found = await probe(9, SOUND, families={**FAMILIES, "mine": ["chat_0", "thread_124"]})
    assert found.answer is ProbeAnswer.HOLDS
