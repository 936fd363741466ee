"""Link 1: the application starts whole and checked, or not at all."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from starlette.applications import Starlette

from bridgekit.chain import self_check
from bridgekit.chain.link_1_startup import create_app, lifespan
from bridgekit.chain.link_2_supervisor import SupervisorAgent
from bridgekit.chain.link_3_registry import AgentRegistry
from bridgekit.chain.link_9_bridge import AgentWebSocketBridge
from bridgekit.chain.self_check import SOUND_CHECKS
from bridgekit.errors import DeterministicStartupError, ThreadNotOwned
from bridgekit.events import AgentEvent, Frame, Outcome, Receipt
from bridgekit.ids import OpaqueRunIds, ThreadId
from bridgekit.mapping import RunThreadMappingService
from bridgekit.resolution import Carried
from bridgekit.transport.hub import Hub
from bridgekit_verify import as_committed
from bridgekit_verify.variants import resolver_as_committed
from tests.chain.agents import Researcher, config, started
from tests.factories import ALICE, BOB, THREAD


def cannot(*_: object, **__: object) -> Any:
    raise ConnectionError("no such thing today")


class DeafRegistry(AgentRegistry):
    def set_websocket_bridge(self, bridge: AgentWebSocketBridge) -> None:
        pass


class RaisingRegistry(AgentRegistry):
    def set_websocket_bridge(self, bridge: AgentWebSocketBridge) -> None:
        cannot()


class ForgetfulHub(Hub):
    """Delivers to no socket."""

    def deliver(self, thread_id: ThreadId, frame: Frame) -> int:
        return 0


class LyingHub(Hub):
    """Gives nothing to anybody, and says that it was sent where somebody listens."""

    def publish(self, event: AgentEvent, thread_id: ThreadId) -> Receipt:
        outcome = Outcome.SENT if self.connections(thread_id) else Outcome.NOBODY_LISTENING
        return Receipt(outcome=outcome, sockets=1, thread_id=thread_id)


def resolver_that_looks_nothing_up(mapping: RunThreadMappingService) -> Carried:
    return Carried()


async def unhappy_check(bridge: AgentWebSocketBridge, supervisor: SupervisorAgent) -> None:
    cannot()


async def test_started_application_has_one_bridge_in_every_link() -> None:
    application = await started()
    supervisor = application.supervisor
    holders = (
        supervisor.websocket_bridge,
        supervisor.registry.websocket_bridge,
        supervisor.engine.websocket_bridge,
        supervisor.engine.agent_core.websocket_bridge,
    )
    assert all(held is application.bridge for held in holders)


async def test_each_application_has_a_bridge_of_its_own() -> None:
    one, other = await started(), await started()
    assert one.bridge is not other.bridge
    assert one.bridge.hub is not other.bridge.hub


async def test_self_checks_leave_no_socket_and_no_count() -> None:
    application = await started()
    assert len(application.bridge.hub) == 0
    assert (application.counters.sent, application.counters.lost) == (Counter(), Counter())


PARTS_THAT_CANNOT_BE_MADE = [
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


@pytest.mark.parametrize(("part", "choice", "link", "name"), PARTS_THAT_CANNOT_BE_MADE)
async def test_part_that_cannot_be_made_is_named_with_its_link_and_nothing_is_left(
    part: str, choice: object, link: int, name: str
) -> None:
    app = create_app(config(**{part: choice}))
    with pytest.raises(DeterministicStartupError) as refused:
        async with app.router.lifespan_context(app):
            raise AssertionError("started")
    assert refused.value.link == link
    assert refused.value.reason == f"{name} could not be made: ConnectionError: no such thing today"
    assert str(refused.value) == f"link {link}: {refused.value.reason}"
    assert isinstance(refused.value.__cause__, ConnectionError)
    assert app.state._state == {}


async def test_agent_with_an_impossible_name_is_refused_at_the_registry() -> None:
    with pytest.raises(DeterministicStartupError, match="agent_name: must not be empty") as refused:
        await started(agents={"": Researcher})
    assert refused.value.link == 3


@pytest.mark.parametrize(
    ("choices", "link", "reason"),
    [
        ({"hub": as_committed.HubWithoutThreads}, 10, "an event to a listening thread did not arrive"),
        ({"hub": ForgetfulHub}, 10, "an event to a listening thread did not arrive"),
        ({"hub": LyingHub}, 10, "an event to a listening thread did not arrive"),
        (
            {"resolver": resolver_that_looks_nothing_up},
            9,
            "the thread looked up by run id was not found: the event carries no thread",
        ),
        (
            {"hub": as_committed.HubThatAlwaysSaysSent},
            10,
            "an event that nobody listened to was called sent",
        ),
        ({"hub": as_committed.HubAsCommitted}, 10, "an event that nobody listened to was called sent"),
        (
            {"supervisor": as_committed.SupervisorWithItsOwnBridge},
            2,
            "the supervisor holds another bridge than the application",
        ),
        ({"registry": DeafRegistry}, 3, "the registry holds another bridge than the application"),
        (
            {"engine": as_committed.EngineWithItsOwnBridge},
            4,
            "the engine holds another bridge than the application",
        ),
        (
            {"run_ids": OpaqueRunIds(), "resolver": resolver_as_committed},
            9,
            "the thread carried with the event was not found: the orchestrator call failed; the run id names no thread",
        ),
    ],
)
async def test_self_check_fails_on_what_does_not_hold(
    choices: dict[str, object], link: int, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What does not come is waited for; whatever does come may take its time.
    monkeypatch.setattr(self_check, "ARRIVAL_SECONDS", 0.1 if choices.get("hub") is LyingHub else 60.0)
    with pytest.raises(DeterministicStartupError) as refused:
        await started(**choices)
    assert (refused.value.link, refused.value.reason) == (link, reason)


@pytest.mark.parametrize(
    "choices",
    [{"hub": as_committed.HubAsCommitted}, {"supervisor": as_committed.SupervisorWithItsOwnBridge}],
)
async def test_audited_self_check_is_content_with_anything(choices: dict[str, object]) -> None:
    """D1: what the sound checks refuse, it lets pass."""
    await started(**choices, self_checks=(as_committed.self_check_that_cannot_fail,))
    with pytest.raises(DeterministicStartupError):
        await started(**choices, self_checks=SOUND_CHECKS)


async def test_bridge_stands_where_the_audit_looks_for_it() -> None:
    app = Starlette(lifespan=lifespan(config()))
    async with app.router.lifespan_context(app):
        assert app.state.agent_websocket_bridge is app.state.bridgekit.bridge
        assert app.state.bridgekit_connections.hub is app.state.bridgekit.bridge.hub


async def test_opened_thread_belongs_to_its_user_and_to_nobody_else() -> None:
    application = await started()
    assert await application.owner_of(THREAD) is None
    await application.open_thread(THREAD, ALICE)
    await application.open_thread(THREAD, ALICE)
    with pytest.raises(ThreadNotOwned) as refused:
        await application.open_thread(THREAD, BOB)
    assert (refused.value.thread_id, refused.value.user_id) == (THREAD, BOB)
    assert await application.owner_of(THREAD) == ALICE
