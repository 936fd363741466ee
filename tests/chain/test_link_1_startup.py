"""Link 1: the application starts completely and passes its self-checks, or does not start."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from starlette.applications import Starlette

from bridgekit.chain import self_check
from bridgekit.chain.context import RunContext
from bridgekit.chain.link_1_startup import create_app, lifespan
from bridgekit.chain.link_2_supervisor_agent import SupervisorAgent
from bridgekit.chain.link_3_registry import AgentRegistry
from bridgekit.chain.link_6_base_agent import BaseAgent
from bridgekit.chain.link_9_bridge import AgentWebSocketBridge
from bridgekit.chain.self_check import SOUND_CHECKS
from bridgekit.counters import RUN_ENDED
from bridgekit.errors import DeterministicStartupError, ThreadNotOwned
from bridgekit.events import AgentEvent, Frame, Outcome, Receipt
from bridgekit.ids import ThreadId
from bridgekit.mapping import RunThreadMappingService
from bridgekit.thread_resolvers import Carried
from bridgekit.transport.hub import Hub
from bridgekit_verify import as_committed
from bridgekit_verify.audited_routing import OpaqueRunIds
from bridgekit_verify.variants import resolver_as_committed
from tests.chain.agents import Researcher, config, started
from tests.factories import ALICE, BOB, THREAD


def cannot(*_: object, **__: object) -> Any:
    raise ConnectionError("no such thing today")


class RegistryDroppingBridge(AgentRegistry):
    def set_websocket_bridge(self, bridge: AgentWebSocketBridge) -> None:
        pass


class RaisingRegistry(AgentRegistry):
    def set_websocket_bridge(self, bridge: AgentWebSocketBridge) -> None:
        cannot()


class HubWithoutConnections(Hub):
    """A hub that delivers to no socket."""

    def deliver(self, thread_id: ThreadId, frame: Frame) -> int:
        return 0


class HubReportingFalseSuccess(Hub):
    """A hub that delivers nothing, but reports events as sent if the thread has a subscriber."""

    def publish(self, event: AgentEvent, thread_id: ThreadId) -> Receipt:
        outcome = Outcome.SENT if self.connections(thread_id) else Outcome.NO_SUBSCRIBER
        return Receipt(outcome=outcome, sockets=1, thread_id=thread_id)


def resolver_without_lookup(mapping: RunThreadMappingService) -> Carried:
    return Carried()


class EndingTwice(BaseAgent):
    async def execute(self, context: RunContext) -> object:
        await self.emit_agent_completed("first")
        await self.emit_error("second")
        return None


async def unhappy_check(bridge: AgentWebSocketBridge, supervisor: SupervisorAgent) -> None:
    cannot()


async def test_every_link_holds_the_same_bridge_when_the_application_has_started() -> None:
    application = await started()
    supervisor = application.supervisor
    holders = (
        supervisor.websocket_bridge,
        supervisor.registry.websocket_bridge,
        supervisor.engine.websocket_bridge,
        supervisor.engine.agent_core.websocket_bridge,
    )
    assert all(held is application.bridge for held in holders)


async def test_bridges_differ_when_two_applications_start() -> None:
    one, other = await started(), await started()
    assert one.bridge is not other.bridge
    assert one.bridge.hub is not other.bridge.hub


async def test_connections_and_counters_are_empty_when_the_self_checks_have_passed() -> None:
    application = await started()
    assert len(application.bridge.hub) == 0
    assert (application.counters.sent, application.counters.lost) == (Counter(), Counter())


FAILING_COMPONENTS = [
    ("mapping", cannot, 1, "the bridge"),
    ("hub", cannot, 1, "the bridge"),
    ("resolver", cannot, 1, "the bridge"),
    ("bridge", cannot, 1, "the bridge"),
    ("supervisor", cannot, 2, "the supervisor"),
    ("registry", cannot, 3, "the agent registry"),
    ("registry", RaisingRegistry, 3, "the registry's bridge"),
    ("engine", cannot, 4, "the execution engine"),
    ("core", cannot, 5, "the execution core"),
    ("self_checks", (unhappy_check,), 1, "unhappy_check"),
]


@pytest.mark.parametrize(("part", "choice", "link", "name"), FAILING_COMPONENTS)
async def test_startup_error_names_the_link_when_a_component_cannot_be_created(
    part: str, choice: object, link: int, name: str
) -> None:
    app = create_app(config(**{part: choice}))
    with pytest.raises(DeterministicStartupError) as refused:
        async with app.router.lifespan_context(app):
            raise AssertionError("started")
    assert refused.value.link == link
    assert refused.value.reason == f"{name} could not be created: ConnectionError: no such thing today"
    assert str(refused.value) == f"link {link}: {refused.value.reason}"
    assert isinstance(refused.value.__cause__, ConnectionError)
    assert app.state._state == {}


async def test_startup_error_names_link_3_when_an_agent_name_is_invalid() -> None:
    with pytest.raises(DeterministicStartupError, match="agent_name: must not be empty") as refused:
        await started(agents={"": Researcher})
    assert refused.value.link == 3


@pytest.mark.parametrize(
    ("choices", "link", "reason"),
    [
        ({"hub": as_committed.HubWithoutThreads}, 10, "an event to a subscribed thread did not arrive"),
        ({"hub": HubWithoutConnections}, 10, "an event to a subscribed thread did not arrive"),
        ({"hub": HubReportingFalseSuccess}, 10, "an event to a subscribed thread did not arrive"),
        (
            {"resolver": resolver_without_lookup},
            9,
            "the thread looked up by run id was not found: the event carries no thread",
        ),
        (
            {"hub": as_committed.HubThatAlwaysSaysSent},
            10,
            "an event without a subscriber was reported as sent",
        ),
        ({"hub": as_committed.HubAsCommitted}, 10, "an event without a subscriber was reported as sent"),
        (
            {"supervisor": as_committed.SupervisorWithItsOwnBridge},
            2,
            "the supervisor holds a bridge other than the application's",
        ),
        ({"registry": RegistryDroppingBridge}, 3, "the registry holds a bridge other than the application's"),
        (
            {"engine": as_committed.EngineWithItsOwnBridge},
            4,
            "the engine holds a bridge other than the application's",
        ),
        (
            {"run_ids": OpaqueRunIds(), "resolver": resolver_as_committed},
            9,
            "the thread carried by the event was not found: the orchestrator call failed; the run id names no thread",
        ),
    ],
)
async def test_self_check_names_the_link_when_the_chain_is_broken(
    choices: dict[str, object], link: int, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Only the check that must time out has a short timeout; the others may take long on a busy machine.
    timeout = 0.1 if choices.get("hub") is HubReportingFalseSuccess else 60.0
    monkeypatch.setattr(self_check, "ARRIVAL_TIMEOUT_SECONDS", timeout)
    with pytest.raises(DeterministicStartupError) as refused:
        await started(**choices)
    assert (refused.value.link, refused.value.reason) == (link, reason)


@pytest.mark.parametrize(
    "choices",
    [{"hub": as_committed.HubAsCommitted}, {"supervisor": as_committed.SupervisorWithItsOwnBridge}],
)
async def test_self_check_as_committed_passes_when_the_chain_is_broken(choices: dict[str, object]) -> None:
    """D1: it accepts chains that the sound checks refuse."""
    await started(**choices, self_checks=(as_committed.self_check_that_cannot_fail,))
    with pytest.raises(DeterministicStartupError):
        await started(**choices, self_checks=SOUND_CHECKS)


async def test_bridge_is_in_app_state_when_the_lifespan_runs() -> None:
    app = Starlette(lifespan=lifespan(config()))
    async with app.router.lifespan_context(app):
        assert app.state.agent_websocket_bridge is app.state.bridgekit.bridge
        assert app.state.bridgekit_connections.hub is app.state.bridgekit.bridge.hub


async def test_open_thread_is_refused_when_another_user_owns_the_thread() -> None:
    application = await started()
    assert await application.owner_of(THREAD) is None
    await application.open_thread(THREAD, ALICE)
    await application.open_thread(THREAD, ALICE)
    with pytest.raises(ThreadNotOwned) as refused:
        await application.open_thread(THREAD, BOB)
    assert (refused.value.thread_id, refused.value.user_id) == (THREAD, BOB)
    assert await application.owner_of(THREAD) == ALICE


@pytest.mark.parametrize("agent_name", ["researcher", "ending_twice"])
async def test_configured_observer_gets_every_event_of_a_run_and_none_of_the_self_checks(agent_name: str) -> None:
    observed: list[tuple[AgentEvent, Receipt]] = []
    agents = {"researcher": Researcher, "ending_twice": EndingTwice}
    application = await started(agents=agents, observers=(lambda event, receipt: observed.append((event, receipt)),))
    assert observed == []
    await application.supervisor.run(agent_name=agent_name, thread_id=THREAD, user_id=ALICE, request="why?")
    counters = application.counters
    counted = counters.sent.total() + counters.kept.total() + counters.pending.total() + counters.lost.total()
    assert len(observed) == counted
    lost = [receipt.reason for _, receipt in observed if receipt.lost]
    assert lost == ([] if agent_name == "researcher" else [RUN_ENDED])
    assert len(lost) == counters.lost.total()
    assert {event.run_id for event, _ in observed} == {observed[0][0].run_id}
