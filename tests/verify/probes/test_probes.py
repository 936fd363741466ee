"""The probes: each judges only its own link."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from bridgekit.chain.link_2_supervisor_agent import SupervisorAgent
from bridgekit.cursors_and_gaps import Cursor
from bridgekit.errors import DeterministicStartupError
from bridgekit.events import AgentEvent, Answer, EventType, Outcome, Receipt
from bridgekit.ids import ThreadId
from bridgekit.stores import redis_stores, sqlite_stores
from bridgekit.transport.hub import LINK, Connection, Hub
from bridgekit.transport.log import EventLog, Replay
from bridgekit_verify.measure.thread_id_families import FAMILIES
from bridgekit_verify.probes.probes import Observations, Probe, ProbeAnswer, probe, probe_all, probe_ten
from bridgekit_verify.probes.scenario_agents import audited_threads
from bridgekit_verify.probes.scenario_run import judge_all, observe
from bridgekit_verify.variants import BROKEN, SOUND, Variant, variant
from tests.verify.measure.test_experiment import REFUSED_BY_ITS_CHECK

SIGNS = {"+": ProbeAnswer.HOLDS, "-": ProbeAnswer.DOES_NOT_HOLD, "?": ProbeAnswer.UNKNOWN}


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


def signs(probes: list[Probe]) -> str:
    back = {answer: sign for sign, answer in SIGNS.items()}
    assert [each.link.number for each in probes] == list(range(1, 10))
    assert all(each.evidence for each in probes)
    return "".join(back[each.answer] for each in probes)


@pytest.fixture(scope="module")
async def observed() -> Observations:
    """Observations for the module: a link that variants have in common is observed once."""
    return Observations()


@pytest.mark.short_form(5)
@pytest.mark.slow
@pytest.mark.parametrize("link", BROKEN)
async def test_only_the_broken_link_is_named(link: int, observed: Observations) -> None:
    assert signs(await probe_all(BROKEN[link], shared=observed)) == "".join(
        "-" if each == link else "+" for each in range(1, 10)
    )


@pytest.mark.short_form(4)
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "answers"),
    [
        ("sound", "+++++++++"),
        ("as reported", "++++++++-"),
        ("fix 1", "++++++++-"),
        ("fix 2 as written", "++++++++-"),
        ("fix 2 with its method", "++++++++-"),  # a route is gone as soon as its run has ended
        ("fixes 1 and 2 with the method", "++++++++-"),
        ("fix 3", "++++++++-"),  # a route is gone as soon as its run has ended
        ("as committed", "-+-+-++--"),
    ],
)
async def test_links_of_each_variant_hold_as_listed(name: str, answers: str, observed: Observations) -> None:
    assert signs(await probe_all(variant(name), shared=observed)) == answers


@pytest.mark.slow
async def test_refusal_to_start_fails_the_named_link() -> None:
    """The other links are tried alone, so that they are known."""
    found = await probe_all(REFUSED_BY_ITS_CHECK)
    assert signs(found) == "+++-+++++"


@pytest.mark.slow
async def test_refusal_that_no_probe_explains_is_the_evidence_of_the_named_link() -> None:
    async def refuse(bridge: object, supervisor: object) -> None:
        raise DeterministicStartupError(7, "a check that always fails")

    found = await probe_all(Variant(name="refused", summary="refused", self_checks=(refuse,)))
    assert signs(found) == "++++++-++"
    assert found[6].evidence == "startup refused: link 7: a check that always fails"


class HubWithoutDelivery(Hub):
    def deliver(self, thread_id: object, frame: object) -> int:
        return 0


@pytest.mark.slow
async def test_refusal_by_the_hub_is_not_attributed_to_one_of_the_nine_links() -> None:
    silent = Variant(name="no delivery", summary="no socket is reached", hub=HubWithoutDelivery)
    found = await probe_all(silent)
    assert signs(found) == "?????????"
    assert "link 10: an event to a subscribed thread did not arrive" in found[8].evidence
    ten = await probe_ten(silent)
    assert [each.link.number for each in ten if each.answer is not ProbeAnswer.HOLDS] == [10]


async def test_link_that_nothing_reaches_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault that is part of every chain, so that no probe can avoid it."""

    async def run(self: object, **request: str) -> None:
        return None

    monkeypatch.setattr(SupervisorAgent, "run", run)
    monkeypatch.setattr(SupervisorAgent, "open_run", run)
    found = await probe_all(SOUND)
    assert signs(found) == "+-??????+"  # link 9 was also called directly


@pytest.mark.slow
async def test_call_that_does_not_return_is_named_and_its_callers_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    async def wait(hub: object, event: object, thread_id: object) -> None:
        await anyio.sleep_forever()

    monkeypatch.setattr(Hub, "publish", wait)
    seen = await observe(replace(SOUND, self_checks=()), audited_threads(), timeout_seconds=1)
    assert not seen.complete
    found = {link: each.evidence for link, each in judge_all(seen).items() if each.violations}
    assert found.keys() == {10}
    assert found[10].startswith("publish did not return within")


@pytest.mark.slow
@pytest.mark.parametrize("edge", ["asgi", "native"])
async def test_sound_chain_holds_on_each_edge(edge: str) -> None:
    assert {each.answer for each in await probe_ten(SOUND, edge=edge)} == {ProbeAnswer.HOLDS}


@pytest.mark.acceptance
async def test_sound_chain_holds_on_sqlite_twice_on_the_same_file(tmp_path: Path) -> None:
    chain = replace(SOUND, stores=sqlite_stores(tmp_path / "bridge.sqlite"))
    for _ in range(2):
        assert [each.evidence for each in await probe_ten(chain) if each.answer is not ProbeAnswer.HOLDS] == []


@pytest.mark.slow
async def test_sound_chain_holds_on_redis(redis_url: str) -> None:
    chain = replace(SOUND, stores=redis_stores(redis_url, prefix="probes"))
    assert [each.evidence for each in await probe_ten(chain) if each.answer is not ProbeAnswer.HOLDS] == []


class LateHub(Hub):
    """Stores events of the audit's thread after a client has joined, as a store that does not answer in time."""

    def __init__(self, log: EventLog) -> None:
        super().__init__(log)
        self.waiting: list[tuple[AgentEvent, ThreadId]] = []
        self.released = False

    def publish(self, event: AgentEvent, thread_id: ThreadId) -> Answer:
        if self.released or thread_id != audited_threads()[0].thread_id:
            return super().publish(event, thread_id)
        if event.type is not EventType.TOOL_EXECUTING and not self.waiting:
            return super().publish(event, thread_id)
        self.waiting.append((event, thread_id))
        return Receipt(outcome=Outcome.PENDING, thread_id=thread_id, link=LINK, reason="no answer in time")

    async def join(self, connection: Connection, after: Cursor | None = None) -> Replay:
        replay = await super().join(connection, after)
        for event, thread_id in self.waiting:
            super().publish(event, thread_id)
        self.released = self.released or bool(self.waiting)
        self.waiting = []
        return replay


@pytest.mark.slow
async def test_event_that_is_stored_after_a_client_joined_is_no_duplicate() -> None:
    chain = replace(SOUND, hub=LateHub)
    assert [each.evidence for each in await probe_ten(chain) if each.answer is not ProbeAnswer.HOLDS] == []


async def test_single_probe_agrees_with_the_nine() -> None:
    assert (await probe(9, BROKEN[9])).answer is ProbeAnswer.DOES_NOT_HOLD
    assert (await probe(9, SOUND)).answer is ProbeAnswer.HOLDS


@pytest.mark.slow
async def test_evidence_states_what_the_probe_observed() -> None:
    reported = await probe(9, variant("as reported"))
    assert reported.evidence.startswith("the bridge finds no route for 13 of 13 kinds of thread id")
    leaking = await probe(9, variant("fix 1"))
    assert "events went to another user's thread" in leaking.evidence


@pytest.mark.slow
@pytest.mark.parametrize(
    ("own", "answer", "evidence"),
    [
        (["thread_1", "thread_2"], ProbeAnswer.HOLDS, "for 1 of 1 kinds of thread id"),
        (["support-42"], ProbeAnswer.DOES_NOT_HOLD, "the bridge finds no route for 1 of 1 kinds"),
        (["thread_a", "thread_a_b"], ProbeAnswer.DOES_NOT_HOLD, "2 events went to another user's thread"),
    ],
)
async def test_link_9_is_tested_with_a_readers_own_thread_ids(
    own: list[str], answer: ProbeAnswer, evidence: str
) -> None:
    found = await probe(9, variant("fix 1"), families={"mine": own})
    assert found.answer is answer
    assert found.evidence.startswith(evidence)


@pytest.mark.slow
async def test_id_that_occurs_in_two_families_is_tested_once() -> None:
    found = await probe(9, SOUND, families={**FAMILIES, "mine": ["chat_0", "thread_124"]})
    assert found.answer is ProbeAnswer.HOLDS
