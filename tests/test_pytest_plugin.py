"""The plugin in a user's project: another pytest session collects the user's test files and uses real sockets."""

from __future__ import annotations

import re
from importlib.metadata import entry_points

import pytest

import bridgekit.testing  # noqa: F401  # otherwise, each pytest session in this process would import it again
from bridgekit.pytest_plugin import assert_delivered
from tests.invariants.recordings import sound
from tests.tree import ROOT

pytestmark = pytest.mark.slow

pytest_plugins = ["pytester"]

DOCUMENT = (ROOT / "docs" / "testing-your-agents.md").read_text(encoding="utf-8")
EXAMPLE, RECORDING = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
MESSAGE = re.findall(r"```text\n(.*?)```", DOCUMENT, re.DOTALL)[0]

BEGINNING = EXAMPLE[: EXAMPLE.index("async def test_")]
"""The documented example without its tests: an agent and the two fixtures."""
OTHER_PLUGINS = ("-p", "no:nbmake", "-p", "no:cacheprovider", "-p", "no:xdist")


@pytest.fixture
def users(pytester: pytest.Pytester) -> pytest.Pytester:
    """A user's project, in which warnings are errors."""
    pytester.makeini("[pytest]\nfilterwarnings = error\n")
    return pytester


def run(users: pytest.Pytester, source: str, *words: str) -> pytest.RunResult:
    """Run the user's tests in this process, which has imported what they need: starting a process takes longer."""
    users.makepyfile(source)
    return users.runpytest_inprocess(*OTHER_PLUGINS, "-p", "no:asyncio", *words)


def run_in_a_process(users: pytest.Pytester, source: str, *words: str) -> pytest.RunResult:
    users.makepyfile(source)
    return users.runpytest_subprocess(*OTHER_PLUGINS, *words)


def test_plugin_is_registered_as_a_pytest_entry_point() -> None:
    [found] = entry_points(group="pytest11", name="bridgekit")
    assert found.value == "bridgekit.pytest_plugin"


def test_documented_example_passes(users: pytest.Pytester) -> None:
    run_in_a_process(users, EXAMPLE, "-p", "no:asyncio").assert_outcomes(passed=2)


def test_documented_recording_prints_the_documented_violations(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {}
    exec(compile(RECORDING, "testing-your-agents.md", "exec"), names)
    printed = [line.split(" | ") for line in capsys.readouterr().out.splitlines()]
    assert [f"  {invariant}: {message}" for invariant, _, message in printed] == MESSAGE.splitlines()[3:6]
    frames = names["frames"]
    assert isinstance(frames, list)
    with pytest.raises(AssertionError) as failed:
        assert_delivered(frames)
    assert str(failed.value) == MESSAGE.rstrip()


def test_assertion_shows_missing_types_and_frames_when_an_agent_emits_nothing(users: pytest.Pytester) -> None:
    silent = BEGINNING.replace("        await self.emit_thinking(", "        str(")
    result = run(
        users,
        silent
        + """\
async def test_silent(bridgekit_app):
    observed = await bridgekit_app.run("researcher", "bridges")
    assert_delivered(observed.events, runs=[observed.run_id])
""",
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*AssertionError: 1 of 1 runs do not hold",
            "*run 'run_*':",
            "*  critical types: no agent_thinking was read",
            "*   1  seq 1  agent_started *'request': 'bridges'*",
            "*   4  seq 4  agent_completed *'answer': 'all about bridges'*",
        ]
    )
    assert "bridgekit/pytest_plugin.py" not in result.stdout.str(), "the failure is shown in the user's own test"


def test_assertion_fails_at_once_when_the_chain_delivers_nothing(users: pytest.Pytester) -> None:
    """The chain as reported publishes no event, so `run` waits for none."""
    result = run(
        users,
        BEGINNING
        + """\
from bridgekit_verify.variants import variant

@pytest.fixture
def bridgekit_config():
    return variant("as reported").config({"researcher": Silent}, hex_source=lambda digits: "0" * digits)

class Silent(BaseAgent):
    async def execute(self, context):
        return 1

async def test_reported(bridgekit_app):
    observed = await bridgekit_app.run("researcher")
    assert observed.result == 1
    assert_delivered(observed.events, runs=[observed.run_id])
""",
        "--durations=1",
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*run 'run_000000000000':", "*  unknown: no frame of this run was read"])


def test_client_stops_waiting_when_the_run_ends_or_the_timeout_expires(users: pytest.Pytester) -> None:
    run(
        users,
        BEGINNING
        + """\
class Failing(BaseAgent):
    async def execute(self, context):
        raise ValueError("no sources")

@pytest.fixture
def bridgekit_config():
    return BridgeConfig(agents={"failing": Failing})

async def test_error_reaches_the_user_and_the_test(bridgekit_app, bridgekit_client):
    async with bridgekit_client() as client:
        with pytest.raises(ValueError, match="no sources"):
            await bridgekit_app.run("failing")
        await client.wait_until_complete()
        assert [event.type for event in client.events] == ["agent_started", "agent_error"]
        [report] = assert_delivered(client.timed).values()
        assert report.latency.n == 2

async def test_wait_times_out(bridgekit_client):
    async with bridgekit_client() as client:
        with pytest.raises(TimeoutError, match="run 'r' has not ended within 0.01 s; read so far: nothing"):
            await client.wait_until_complete("r", seconds=0.01)
        with pytest.raises(TimeoutError, match="no run ended within 0.01 s"):
            await client.wait_until_complete(seconds=0.01)
        assert not await client.wait_until_seq(1, seconds=0.01)

async def test_disconnected_is_raised(bridgekit_app, bridgekit_client):
    from bridgekit.errors import Disconnected

    async with bridgekit_client() as client:
        await bridgekit_app.app.state.bridgekit_connections.drain()
        with pytest.raises(Disconnected):
            await client.wait_until_complete()

async def test_error_of_the_test_is_not_wrapped(bridgekit_client):
    with pytest.raises(KeyError):
        async with bridgekit_client():
            raise KeyError("missing")
""",
    ).assert_outcomes(passed=4)


def test_own_application_is_served_when_the_fixture_is_overridden(users: pytest.Pytester) -> None:
    run(
        users,
        BEGINNING
        + """\
from fastapi import FastAPI
from bridgekit import lifespan, routes

@pytest.fixture
def bridgekit_asgi(bridgekit_config):
    app = FastAPI(lifespan=lifespan(bridgekit_config))
    app.router.routes.extend(routes())
    return app

async def test_mounted(bridgekit_app, bridgekit_asgi):
    assert bridgekit_app.app is bridgekit_asgi
    assert bridgekit_app.url.startswith("ws://127.0.0.1:")
    observed = await bridgekit_app.run("researcher", "bridges", thread_id="thread_9", user_id="bob")
    assert {event.thread_id for event in observed.events} == {"thread_9"}
    assert_delivered(observed.events)
""",
    ).assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("def test_it(bridgekit_config): ...", "bridgekit does not know your agents. Define this fixture*"),
        (
            EXAMPLE.replace('return "asyncio"', 'return "trio"'),
            "bridgekit's test client needs asyncio, but this test runs on trio.*",
        ),
    ],
)
def test_error_shows_the_fixture_to_write_when_it_is_missing(users: pytest.Pytester, source: str, line: str) -> None:
    result = run(users, source)
    result.stdout.fnmatch_lines([line, "*@pytest.fixture"])
    assert result.parseoutcomes().keys() == {"errors"}


def test_plugin_imports_nothing_else_when_no_test_uses_it(users: pytest.Pytester) -> None:
    run_in_a_process(
        users,
        """\
import sys

def test_nothing_else_is_loaded(request):
    assert request.config.pluginmanager.has_plugin("bridgekit")
    assert [name for name in sys.modules if name.startswith("bridgekit")] == ["bridgekit", "bridgekit.pytest_plugin"]
    assert "uvicorn" not in sys.modules
""",
        "-p",
        "no:asyncio",
    ).assert_outcomes(passed=1)


def test_assertion_returns_the_reports_when_every_run_holds() -> None:
    reports = assert_delivered(sound(), runs=["a"], required=(), signalled=[(1, 1)])
    assert [report.holds for report in reports.values()] == [True]


def test_assertion_fails_when_the_recording_is_empty() -> None:
    with pytest.raises(AssertionError, match="unknown: no frame of this run was read"):
        assert_delivered([])


LOST_EVENTS = {
    "value that JSON cannot carry": (
        "await self.emit_progress({'value': object()})",
        "*progress_update of run 'run_*' was lost: refused at link 8, PayloadError",
    ),
    "frame that is too large": (
        "await self.emit_progress({'value': 'x' * 2_000_000})",
        "*progress_update of run 'run_*' was lost: refused at link 8, FrameTooLarge",
    ),
    "second end": (
        "await self.emit_agent_completed(); await self.emit_error('late')",
        "*agent_error of run 'run_*' was lost: refused at link 8, the run has ended",
    ),
    "event from another thread": (
        "await anyio.to_thread.run_sync(asyncio.run, self.emit_thinking('hm'))",
        "*agent_thinking of run 'run_*' was lost: refused at link 8, WrongEventLoop",
    ),
    "event without a bridge": (
        "await type(self._websocket_adapter)().emit_thinking('hm')",
        "*agent_thinking of run 'run_*' was lost: refused at link 7, the adapter holds no bridge or no run id",
    ),
    "event after the end": (
        "await self.emit_agent_completed(); await self.emit_thinking('late')",
        "*agent_thinking of run 'run_*' was emitted after the run's end",
    ),
}


@pytest.mark.parametrize(("emission", "line"), LOST_EVENTS.values(), ids=LOST_EVENTS)
def test_test_fails_when_an_event_was_lost_or_late_although_no_assertion_shows_it(
    users: pytest.Pytester, emission: str, line: str
) -> None:
    """The agent hides the error, and the numbers that the socket receives have no gap."""
    result = run(
        users,
        "from bridgekit.errors import BridgekitError\n"
        + BEGINNING.replace(
            "        return {",
            f"""\
        try:
            import anyio.to_thread, asyncio
            {emission}
        except (ValueError, BridgekitError):
            pass
        return {{""",
        )
        + """\
async def test_hidden(bridgekit_app):
    await bridgekit_app.run("researcher", "bridges")

async def test_expected(bridgekit_app):
    await bridgekit_app.run("researcher", "bridges")
    assert len(bridgekit_app.problems) >= 1
    bridgekit_app.problems.clear()

async def test_failing(bridgekit_app):
    await bridgekit_app.run("researcher", "bridges")
    assert False, "for a reason of its own"
""",
    )
    result.assert_outcomes(passed=1, failed=2)
    result.stdout.fnmatch_lines(
        ["not every event reached its user*A test that expects this calls `bridgekit_app.problems.clear()`:", line]
    )
    result.stdout.fnmatch_lines(["*for a reason of its own*", "*Captured bridgekit teardown*", line[1:]])


SHARED_AGENT = """\
import anyio
from bridgekit.chain.link_3_registry import AgentRegistry

class Shared(AgentRegistry):
    def create(self, name):
        if name not in self.__dict__:
            self.__dict__[name] = super().create(name)
        return self.__dict__[name]

class Meeting(BaseAgent):
    met = 0
    async def execute(self, context):
        Meeting.met += 1
        while Meeting.met < 2:
            await anyio.lowlevel.checkpoint()
        await self.emit_thinking(context.request)
        return context.request

@pytest.fixture
def bridgekit_config():
    Meeting.met = 0
    return BridgeConfig(agents={"meeting": Meeting}, registry=REGISTRY)

async def test_two_users(bridgekit_app):
    observed = {}
    async def ask(user):
        observed[user] = await bridgekit_app.run("meeting", user, thread_id=f"thread_{user}", user_id=user)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask, "alice")
        tasks.start_soon(ask, "bob")
    for each in observed.values():
        assert_delivered(each.events, runs=[each.run_id], required=())
"""


@pytest.mark.parametrize(("registry", "outcome"), [("Shared", "failed"), ("AgentRegistry", "passed")])
def test_test_fails_when_two_runs_share_an_agent_object(users: pytest.Pytester, registry: str, outcome: str) -> None:
    """Each socket receives a complete stream of one run. One has a thought of the other user."""
    result = run(users, BEGINNING + SHARED_AGENT.replace("REGISTRY", registry))
    result.assert_outcomes(**{outcome: 1})
    if outcome == "failed":
        result.stdout.fnmatch_lines(
            ["*agent_thinking of run 'run_*' was emitted by run 'run_*': do the two share an agent?"]
        )


LEFT_TASKS = """\
import asyncio

class Leaving(BaseAgent):
    async def execute(self, context):
        self.task = asyncio.get_running_loop().create_task(self.late())
        return None

    async def late(self):
        await asyncio.sleep(DELAY)
        await self.emit_thinking("late")

@pytest.fixture
def bridgekit_config():
    return BridgeConfig(agents={"leaving": Leaving})

async def test_left_task(bridgekit_app):
    observed = await bridgekit_app.run("leaving")
    assert_delivered(observed.events, runs=[observed.run_id], required=())
"""


@pytest.mark.parametrize("delay", ["0", "0.1"])
def test_test_fails_when_a_task_that_the_agent_left_behind_emits_an_event(users: pytest.Pytester, delay: str) -> None:
    result = run(users, BEGINNING + LEFT_TASKS.replace("DELAY", delay))
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*agent_thinking of run 'run_*' was emitted after the run's end"])


def test_sub_agent_that_reports_to_its_callers_run_is_no_problem(users: pytest.Pytester) -> None:
    run(
        users,
        BEGINNING
        + """\
class Outer(BaseAgent):
    async def execute(self, context):
        Inner.outer = self
        supervisor = Outer.application.supervisor
        names = {"thread_id": context.thread_id, "user_id": context.user_id, "request": ""}
        return (await supervisor.run(agent_name="inner", **names)).result

class Inner(BaseAgent):
    async def execute(self, context):
        await self.emit_thinking("inner")
        await self.outer.emit_thinking("half of it is done")
        return "done"

@pytest.fixture
def bridgekit_config():
    return BridgeConfig(agents={"outer": Outer, "inner": Inner})

async def test_nested(bridgekit_app):
    Outer.application = bridgekit_app.application
    observed = await bridgekit_app.run("outer")
    assert len({event.run_id for event in observed.events}) == 2
    assert_delivered(observed.events, required=())
""",
    ).assert_outcomes(passed=1)


SCOPE = ("-o", "asyncio_default_fixture_loop_scope=function")
MODES = {
    "strict": (("-o", "asyncio_mode=strict", *SCOPE), {"passed": 2}),
    "auto": (("-o", "asyncio_mode=auto", *SCOPE), {"errors": 2}),
    "auto by option": (("--asyncio-mode=auto", *SCOPE), {"errors": 2}),
}


@pytest.mark.short_form(1)
@pytest.mark.parametrize(("words", "outcomes"), MODES.values(), ids=MODES)
def test_documented_example_beside_pytest_asyncio(
    users: pytest.Pytester, words: tuple[str, ...], outcomes: dict[str, int]
) -> None:
    """In its auto mode, pytest-asyncio takes over fixtures that are anyio's, and a message says so."""
    result = run_in_a_process(users, EXAMPLE, *words)
    result.assert_outcomes(**outcomes)
    if "errors" in outcomes:
        result.stdout.fnmatch_lines(["*pytest-asyncio in its auto mode runs them in another event loop.", "*strict*"])


def test_user_test_of_pytest_asyncio_runs_beside_the_example(users: pytest.Pytester) -> None:
    theirs = "\n\n@pytest.mark.asyncio\nasync def test_theirs(): ...\n"
    example = EXAMPLE.replace("pytestmark = pytest.mark.anyio\n", "").replace(
        "async def test_", "@pytest.mark.anyio\nasync def test_"
    )
    run_in_a_process(users, example + theirs, "-o", "asyncio_mode=strict", *SCOPE).assert_outcomes(passed=3)


OTHERS = {
    "plain": "def test_it(bridgekit_app): ...",
    "client": "def test_it(bridgekit_client): ...",
    "asyncio": "@pytest.mark.asyncio\nasync def test_it(bridgekit_app): ...",
    "hypothesis": "@hypothesis.given(hypothesis.strategies.none())\ndef test_it(bridgekit_app, value): ...",
    "unittest": "class TestIt(unittest.TestCase):\n    def test_it(self): ...",
    "asynchronous unittest": "class TestIt(unittest.IsolatedAsyncioTestCase):\n    async def test_it(self): ...",
}


def test_test_that_anyio_does_not_run_fails_at_once(users: pytest.Pytester) -> None:
    """The server's event loop does not run during the test, so that a request of the test would never be answered."""
    used = "\n    @pytest.fixture(autouse=True)\n    def served(self, bridgekit_app): ...\n"
    source = BEGINNING.replace("pytestmark = pytest.mark.anyio\n", "import unittest\nimport hypothesis.strategies\n")
    for number, test in enumerate(OTHERS.values()):
        source += test.replace("test_it", f"test_{number}").replace("TestIt", f"Test{number}") + "\n"
        source += used if "unittest" in test else ""
    # In its strict mode, pytest-asyncio warns of the fixture as well.
    result = run_in_a_process(users, source, "-o", "asyncio_mode=strict", *SCOPE, "-W", "default")
    result.assert_outcomes(errors=len(OTHERS))
    result.stdout.fnmatch_lines([f"*so that test_{number} would wait for it forever." for number in range(len(OTHERS))])
