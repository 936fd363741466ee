"""Which link raised an error, by the object whose method raised it.

For a probe, an error of a link is evidence, and an error of the probe itself is not.
"""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import replace
from types import ModuleType

import pytest

import bridgekit_verify
from bridgekit.chain.link_1_startup import BridgeConfig
from bridgekit.chain.link_6_base_agent import BaseAgent
from bridgekit.chain.link_7_8_adapter import WebSocketBridgeAdapter
from bridgekit.errors import DeterministicStartupError
from bridgekit.stores import in_memory
from bridgekit_verify.measure.error_origin import DEFECTS, LINK_OF_KIND, link_of_error, raised_by_harness
from bridgekit_verify.measure.experiment import measure
from bridgekit_verify.measure.workload import RunBarrier, Workload, thread_ids
from bridgekit_verify.probes import scenario_run
from bridgekit_verify.probes.probes import ProbeAnswer, probe_all, probe_hub, probe_ten
from bridgekit_verify.probes.scenario import Observation
from bridgekit_verify.validation import broken_links_1_to_5, broken_links_6_to_8, broken_links_9_and_10
from bridgekit_verify.variants import BROKEN, SOUND, WITHOUT_ROUTING


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"  # uvicorn runs on asyncio only


class Agent(broken_links_6_to_8.AgentThatRaises):
    async def execute(self, context: object) -> object:
        return None


@pytest.mark.parametrize(
    ("link", "call"),
    [
        (6, lambda: BaseAgent.set_websocket_bridge(Agent.__new__(Agent), None, "run")),  # type: ignore[arg-type]
        (6, lambda: Agent.__new__(Agent).set_websocket_bridge(None, "run")),  # type: ignore[arg-type]
        (7, lambda: broken_links_6_to_8.AdapterThatRefusesItsBridge().set_websocket_bridge(None, "run", "agent")),  # type: ignore[arg-type]
        (10, lambda: broken_links_9_and_10.HubThatRaises().publish(None, "thread")),  # type: ignore[arg-type]
    ],
)
def test_error_is_attributed_to_the_link_whose_method_raised_it(link: int, call: object) -> None:
    with pytest.raises(Exception) as raised:  # noqa: PT011 - any error
        call()  # type: ignore[operator]
    assert link_of_error(raised.value) == link
    assert not raised_by_harness(raised.value)


async def test_method_decides_between_the_two_links_of_the_adapter() -> None:
    with pytest.raises(OSError, match="link 8") as raised:
        await broken_links_6_to_8.AdapterThatRaises().emit_thinking("hm")
    assert link_of_error(raised.value) == 8


async def test_startup_is_link_1() -> None:
    with pytest.raises(DeterministicStartupError) as raised:
        await broken_links_1_to_5.start_with_two_bridges(
            BridgeConfig(agents={}, resolver=lambda mapping: 1 / 0),  # type: ignore[arg-type, return-value]
            in_memory(),
        )
    assert link_of_error(raised.value) == 1


def test_error_without_a_link_in_its_traceback_belongs_to_the_harness() -> None:
    error = ValueError("never raised")
    assert link_of_error(error) is None
    assert raised_by_harness(error)


async def test_bug_of_the_scenario_propagates_and_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    async def play(seen: Observation) -> None:
        seen.nothing_like_it()  # type: ignore[attr-defined]

    monkeypatch.setattr(scenario_run, "play", play)
    with pytest.raises(AttributeError):
        await probe_all(SOUND)


@pytest.mark.slow
async def test_error_of_a_link_is_evidence_about_no_other_link() -> None:
    answers = await probe_ten(replace(SOUND, hub=broken_links_9_and_10.HubThatRaises), threads=1)
    assert [each.answer for each in answers[:9]] == [ProbeAnswer.HOLDS] * 9
    assert answers[9].answer is ProbeAnswer.DOES_NOT_HOLD


@pytest.mark.slow
async def test_link_that_raises_does_not_affect_the_probes_before_it() -> None:
    broken = replace(SOUND, bridge=broken_links_9_and_10.BridgeThatRaises, self_checks=WITHOUT_ROUTING)
    answers = await probe_all(broken, threads=1)
    assert [each.answer for each in answers] == [ProbeAnswer.HOLDS] * 8 + [ProbeAnswer.DOES_NOT_HOLD]


@pytest.mark.slow
async def test_hub_has_its_own_probe() -> None:
    assert (await probe_hub(SOUND)).answer is ProbeAnswer.HOLDS
    broken = await probe_hub(BROKEN[1])
    assert (broken.link.number, broken.answer) == (10, ProbeAnswer.DOES_NOT_HOLD)
    assert (await probe_hub(BROKEN[9], threads=1)).answer is ProbeAnswer.HOLDS


@pytest.mark.slow
async def test_refusal_by_link_10_is_attributed_to_the_hub_if_the_hub_is_probed() -> None:
    refused = replace(SOUND, hub=BROKEN[1].hub)
    answers = await probe_ten(refused)
    assert [each.answer for each in answers] == [ProbeAnswer.HOLDS] * 9 + [ProbeAnswer.DOES_NOT_HOLD]


class ThirdPartyAdapter(WebSocketBridgeAdapter):
    def set_websocket_bridge(self, bridge: object, run_id: str, agent_name: str, **given: object) -> None:
        raise OSError("not in this package")


@pytest.mark.slow
async def test_broken_link_outside_the_package_is_named() -> None:
    answers = await probe_all(replace(SOUND, adapter=ThirdPartyAdapter), threads=1)
    assert [each.link.number for each in answers if each.answer is not ProbeAnswer.HOLDS] == [7]
    assert answers[6].evidence.startswith("raised OSError: not in this package")


async def test_error_of_the_workload_ends_the_measurement_and_is_attributed_to_no_link(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The traceback contains links: judged by the outermost one, link 2 would be blamed for a bug of the harness."""

    async def step(barrier: RunBarrier) -> None:
        raise ValueError("a bug of the workload")

    monkeypatch.setattr(RunBarrier, "step", step)
    with pytest.raises(ValueError, match="a bug of the workload"):
        await measure(SOUND, Workload(threads=thread_ids("thread_123", 1)))


def test_modules_of_broken_links_exist() -> None:
    """After a renaming, errors of its links would count as errors of the harness."""
    assert {name for name in DEFECTS if importlib.util.find_spec(name) is None} == set()


def test_each_subclass_of_a_link_in_the_suite_is_listed_as_recording_or_broken() -> None:
    """Judged by class and not by name: a new module of broken links must be listed."""
    kinds = tuple(kind for kind, _ in LINK_OF_KIND)
    found = {
        module.__name__
        for module in suite_modules()
        for each in vars(module).values()
        if isinstance(each, type) and issubclass(each, kinds) and each.__module__ == module.__name__
    }
    recording = {
        "bridgekit_verify.faults.trials.worker_process",
        "bridgekit_verify.probes.audit_descriptions",
        "bridgekit_verify.validation.frame_loss",
    }
    assert found >= DEFECTS
    assert found - DEFECTS == recording


def suite_modules() -> list[ModuleType]:
    names = [each.name for each in pkgutil.walk_packages(bridgekit_verify.__path__, "bridgekit_verify.")]
    assert len(names) > 50
    return [importlib.import_module(name) for name in names]
