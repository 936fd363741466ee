"""Faults that developers of such backends make often, injected from outside: see `test_injected_faults`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from bridgekit.chain.error_text import user_error_text
from bridgekit.chain.link_1_startup import Application, BridgeConfig, start_application
from bridgekit.chain.models_tools_and_owners import MemoryThreadStore, PythonTools, ScriptedModel
from bridgekit.stores import Stores
from bridgekit_verify.probes.probes import ProbeAnswer, probe_ten
from bridgekit_verify.variants import SOUND
from tests.verify.probes.backend_faults import BACKEND_FAULTS
from tests.verify.probes.common_faults import COMMON_FAULTS, SERIAL_RUNS, SOCKETS_OF_ANOTHER_HUB
from tests.verify.probes.further_faults import FURTHER_FAULTS
from tests.verify.probes.injected_faults import FAULTS, Fault, inject
from tests.verify.probes.test_injected_faults import assert_audit_names, assert_first_step_names

pytestmark = pytest.mark.slow

NAMES = [fault.name for fault in COMMON_FAULTS]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # required by uvicorn


def test_faults_differ_from_those_of_the_other_tables() -> None:
    every = (*NAMES, *(fault.name for fault in (*FAULTS, *FURTHER_FAULTS, *BACKEND_FAULTS)))
    assert len(set(every)) == len(every)
    assert {fault.link for fault in COMMON_FAULTS} == set(range(1, 11))


@pytest.mark.short_form(4)
@pytest.mark.parametrize("fault", COMMON_FAULTS, ids=NAMES)
def test_audit_names_only_the_faulty_link(
    fault: Fault, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    inject(fault, monkeypatch)
    assert_audit_names(fault.link, capsys)


@pytest.mark.acceptance
@pytest.mark.parametrize("fault", COMMON_FAULTS, ids=NAMES)
def test_first_verification_step_names_only_the_faulty_link(
    fault: Fault, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    inject(fault, monkeypatch)
    assert_first_step_names(fault, capsys)


@pytest.mark.acceptance
@pytest.mark.parametrize("fault", [SOCKETS_OF_ANOTHER_HUB, *SERIAL_RUNS], ids=lambda fault: fault.name)
async def test_links_that_cannot_be_judged_are_unknown(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    inject(fault, monkeypatch)
    answers = {each.link.number: each.answer for each in await probe_ten(SOUND)}
    assert [link for link, answer in answers.items() if answer is ProbeAnswer.DOES_NOT_HOLD] == [fault.link]
    assert ProbeAnswer.UNKNOWN in answers.values()


PARTS_OF_ITS_OWN: dict[str, Callable[[], Any]] = {
    "db_session_factory": MemoryThreadStore,
    "tool_dispatcher": lambda: PythonTools({}),
    "llm_manager": ScriptedModel,
    "agents": dict,
    "error_text": lambda: user_error_text,
    "observers": tuple,
    "payload_hook": lambda: None,
    "self_checks": tuple,
}


@pytest.mark.short_form(1)
@pytest.mark.parametrize("name", PARTS_OF_ITS_OWN)
async def test_startup_with_a_part_of_its_own_is_named(name: str) -> None:
    async def start(config: BridgeConfig, stores: Stores) -> Application:
        return await start_application(replace(config, **{name: PARTS_OF_ITS_OWN[name]()}), stores)

    answers = await probe_ten(replace(SOUND, start=start), threads=1)
    assert [each.link.number for each in answers if each.answer is not ProbeAnswer.HOLDS] == [1]
