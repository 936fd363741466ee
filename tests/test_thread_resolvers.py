"""The resolvers: which thread each strategy finds for an event."""

from __future__ import annotations

import pytest

from bridgekit.errors import BridgekitError
from bridgekit.events import AgentEvent
from bridgekit.ids import RunId, ThreadId
from bridgekit.mapping import RunThreadMappingService
from bridgekit.thread_resolvers import Carried, MappingLookup, NoRoute, route_of
from bridgekit_verify.audited_routing import EmbeddedRunIds, FirstOf, ReportParser
from tests.factories import RUN, THREAD, emitted

NAMES_NO_THREAD = NoRoute("the run id names no thread")


class Never:
    """A resolver that must not be called."""

    async def resolve(self, event: AgentEvent) -> ThreadId | NoRoute:
        raise BridgekitError("called although an earlier resolver had found the thread")


@pytest.mark.parametrize(
    ("run_id", "found"),
    [
        ("run_thread_123_1f2e3d4c", "thread_123"),
        ("run_thread_alice_smith_1f2e3d4c", "thread_alice"),
        ("run_thread_alice_jones_1f2e3d4c", "thread_alice"),
        ("run_thread_team0_red_lead_1f2e3d4c", "thread_team0"),
        ("run_thread_run_0_run_0_1f2e3d4c", "thread_run"),
        ("run_my_thread_7_1f2e3d4c", "thread_7"),
        ("run_thread_thread_7_1f2e3d4c", "thread_thread"),
        ("thread_9", "thread_9"),
        ("run_thread_", "thread_"),
        ("run_thread_00b7e3c2-1c1b-4d6e-8f8a-0a1b2c3d4e5f_1f2e3d4c",
         "thread_00b7e3c2-1c1b-4d6e-8f8a-0a1b2c3d4e5f"),
        ("run_thread_Zürich 1 · 東京_1f2e3d4c", "thread_Zürich 1 · 東京"),
    ],
)  # fmt: skip
async def test_parser_keeps_only_the_segment_after_thread(run_id: str, found: str) -> None:
    assert await route_of(ReportParser(), emitted(run_id=RunId(run_id))) == found


@pytest.mark.parametrize(
    "run_id",
    [
        "run_1f2e3d4c5b6a",
        "run_chat_1_1f2e3d4c",
        "run_session_1756800000000_5b6a7988_1f2e3d4c",
        "run_00b7e3c2-1c1b-4d6e-8f8a-0a1b2c3d4e5f_1f2e3d4c",
        "run_thread",
        "run_threads_1_1f2e3d4c",
        "",
    ],
)
async def test_parser_finds_no_thread_when_the_run_id_has_another_form(run_id: str) -> None:
    assert await route_of(ReportParser(), emitted(run_id=RunId(run_id))) == NAMES_NO_THREAD


async def test_parser_returns_one_thread_when_two_users_share_a_prefix() -> None:
    """D9c: a lost event becomes a leaked one."""
    ids = EmbeddedRunIds()
    smith, jones = [
        await route_of(ReportParser(), emitted(run_id=ids.new(ThreadId(f"thread_alice_{name}"))))
        for name in ("smith", "jones")
    ]
    assert smith == jones == "thread_alice"


async def test_parser_ignores_the_thread_when_the_event_carries_one() -> None:
    assert await route_of(ReportParser(), emitted(thread_id=THREAD)) == NAMES_NO_THREAD


async def test_carried_returns_the_events_own_thread() -> None:
    assert await route_of(Carried(), emitted(thread_id=THREAD)) == THREAD
    assert await route_of(Carried(), emitted(thread_id=None)) == NoRoute("the event carries no thread")


async def test_carried_uses_the_other_resolver_only_when_the_event_has_no_thread() -> None:
    assert await route_of(Carried(otherwise=Never()), emitted(thread_id=THREAD)) == THREAD
    mapping = RunThreadMappingService()
    orderly = Carried(otherwise=MappingLookup(mapping))
    neither = NoRoute("the event carries no thread; the run is not in the mapping")
    assert await route_of(orderly, emitted(thread_id=None)) == neither
    await mapping.register_mapping(RUN, ThreadId("thread_mapped"))
    assert await route_of(orderly, emitted(thread_id=None)) == "thread_mapped"


async def test_mapping_lookup_uses_the_run_id_when_the_event_carries_a_thread() -> None:
    mapping = RunThreadMappingService()
    await mapping.register_mapping(RUN, ThreadId("thread_mapped"))
    lookup = MappingLookup(mapping)
    assert await route_of(lookup, emitted(thread_id=THREAD)) == "thread_mapped"
    assert await route_of(lookup, emitted(run_id=RunId("run_2"))) == NoRoute("the run is not in the mapping")


async def test_first_of_returns_the_first_thread_when_several_resolvers_find_one() -> None:
    mapping = RunThreadMappingService()
    await mapping.register_mapping(RUN, ThreadId("thread_mapped"))
    assert await route_of(FirstOf(Carried(), Never()), emitted()) == THREAD
    assert await route_of(FirstOf(MappingLookup(mapping), Carried()), emitted()) == "thread_mapped"
    assert await route_of(FirstOf(ReportParser(), Carried()), emitted()) == THREAD


async def test_first_of_returns_all_reasons_when_no_resolver_finds_a_thread() -> None:
    unknown = emitted(thread_id=None)
    found = await route_of(FirstOf(Carried(), ReportParser()), unknown)
    assert found == NoRoute("the event carries no thread; the run id names no thread")
    assert await route_of(FirstOf(), unknown) == NoRoute("")
