"""The plugin as its users meet it: their own test files, collected by a pytest of their own, with real sockets."""

from __future__ import annotations

import re
from importlib.metadata import entry_points

import pytest

from bridgekit.pytest_plugin import assert_delivered
from tests.tree import ROOT
from tests.verify.measure.recordings import sound

pytestmark = pytest.mark.slow

pytest_plugins = ["pytester"]

DOCUMENT = (ROOT / "docs" / "testing-your-agents.md").read_text(encoding="utf-8")
EXAMPLE, RECORDING = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
MESSAGE = re.findall(r"```text\n(.*?)```", DOCUMENT, re.DOTALL)[0]

BEGINNING = EXAMPLE[: EXAMPLE.index("async def test_")]
"""The documented example without its tests: an agent and the two fixtures."""


@pytest.fixture
def users(pytester: pytest.Pytester) -> pytest.Pytester:
    """A user's project. His warnings are errors too."""
    pytester.makeini("[pytest]\nfilterwarnings = error\n")
    return pytester


def run(users: pytest.Pytester, source: str, *words: str) -> pytest.RunResult:
    users.makepyfile(source)
    return users.runpytest_subprocess("-p", "no:nbmake", "-p", "no:cacheprovider", *words)


def test_plugin_is_offered_to_every_pytest() -> None:
    [found] = entry_points(group="pytest11", name="bridgekit")
    assert found.value == "bridgekit.pytest_plugin"


def test_documented_example_passes(users: pytest.Pytester) -> None:
    run(users, EXAMPLE).assert_outcomes(passed=2)


def test_documented_recording_prints_the_documented_breaches(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {}
    exec(compile(RECORDING, "testing-your-own-agents.md", "exec"), names)
    told = [line.split(" | ") for line in capsys.readouterr().out.splitlines()]
    assert [f"  {rule}: {sentence}" for rule, _, sentence in told] == MESSAGE.splitlines()[3:6]
    frames = names["frames"]
    assert isinstance(frames, list)
    with pytest.raises(AssertionError) as failed:
        assert_delivered(frames)
    assert str(failed.value) == MESSAGE.rstrip()


def test_run_whose_agent_says_nothing_fails_with_what_is_missing_and_what_was_read(users: pytest.Pytester) -> None:
    silent = BEGINNING.replace("        await self.emit_thinking(", "        str(")
    told = run(
        users,
        silent
        + """\
async def test_silent(bridgekit_app):
    heard = await bridgekit_app.run("researcher", "bridges")
    assert_delivered(heard.events, runs=[heard.run_id])
""",
    )
    told.assert_outcomes(failed=1)
    told.stdout.fnmatch_lines(
        [
            "*AssertionError: 1 of 1 runs do not hold",
            "*run 'run_*':",
            "*  critical types: no agent_thinking was read",
            "*   1  seq 1  agent_started *'request': 'bridges'*",
            "*   4  seq 4  agent_completed *'answer': 'all about bridges'*",
        ]
    )
    assert "bridgekit/pytest_plugin.py" not in told.stdout.str(), "the failure is shown in the user's own test"


def test_chain_that_delivers_nothing_fails_at_once_and_is_unknown(users: pytest.Pytester) -> None:
    """As the audit found it: nothing is published, so nothing is waited for either."""
    told = run(
        users,
        BEGINNING
        + """\
from bridgekit_verify.variants import variant

@pytest.fixture
def bridgekit_config():
    return variant("as reported").parts({"researcher": Silent}, hex_source=lambda digits: "0" * digits)

class Silent(BaseAgent):
    async def execute(self, context):
        return 1

async def test_reported(bridgekit_app):
    heard = await bridgekit_app.run("researcher")
    assert heard.result == 1
    assert_delivered(heard.events, runs=[heard.run_id])
""",
        "--durations=1",
    )
    told.assert_outcomes(failed=1)
    told.stdout.fnmatch_lines(["*run 'run_000000000000':", "*  nothing was read of it: unknown"])


def test_client_waits_for_a_runs_end_and_no_longer_than_it_is_told(users: pytest.Pytester) -> None:
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
        await client.until_complete()
        assert [event.type for event in client.events] == ["agent_started", "agent_error"]
        [report] = assert_delivered(client.timed).values()
        assert report.latency.n == 2

async def test_patience_ends(bridgekit_client):
    async with bridgekit_client() as client:
        with pytest.raises(TimeoutError, match="run 'r' has not ended within 0.01 s; read so far: nothing"):
            await client.until_complete("r", seconds=0.01)
        with pytest.raises(TimeoutError, match="no run ended within 0.01 s"):
            await client.until_complete(seconds=0.01)
        assert not await client.until_seq(1, seconds=0.01)

async def test_server_that_goes_away_is_told(bridgekit_app, bridgekit_client):
    from bridgekit.errors import Disconnected

    async with bridgekit_client() as client:
        await bridgekit_app.app.state.bridgekit_connections.drain()
        with pytest.raises(Disconnected):
            await client.until_complete()

async def test_what_the_test_raises_is_not_wrapped(bridgekit_client):
    with pytest.raises(KeyError):
        async with bridgekit_client():
            raise KeyError("mine")
""",
    ).assert_outcomes(passed=4)


def test_application_of_ones_own_is_served(users: pytest.Pytester) -> None:
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
    heard = await bridgekit_app.run("researcher", "bridges", thread_id="thread_9", user_id="bob")
    assert {event.thread_id for event in heard.events} == {"thread_9"}
    assert_delivered(heard.events)
""",
    ).assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("def test_it(bridgekit_config): ...", "bridgekit does not know your agents. Give your tests a fixture*"),
        (
            EXAMPLE.replace('return "asyncio"', 'return "trio"'),
            "The client that listens for bridgekit runs on asyncio, and this test runs on trio.*",
        ),
    ],
)
def test_what_is_missing_is_told_with_what_to_write(users: pytest.Pytester, source: str, line: str) -> None:
    told = run(users, source)
    told.stdout.fnmatch_lines([line, "*@pytest.fixture"])
    assert told.parseoutcomes().keys() == {"errors"}


def test_project_that_does_not_use_it_loads_nothing_of_it(users: pytest.Pytester) -> None:
    run(
        users,
        """\
import sys

def test_nothing_else_is_loaded(request):
    assert request.config.pluginmanager.has_plugin("bridgekit")
    assert [name for name in sys.modules if name.startswith("bridgekit")] == ["bridgekit", "bridgekit.pytest_plugin"]
    assert "uvicorn" not in sys.modules
""",
    ).assert_outcomes(passed=1)


def test_assertion_answers_the_reports_of_what_it_accepts() -> None:
    reports = assert_delivered(sound(), runs=["a"], required=(), signalled=[(1, 1)])
    assert [report.holds for report in reports.values()] == [True]


def test_assertion_is_not_content_with_an_empty_recording() -> None:
    with pytest.raises(AssertionError, match="nothing was read of it: unknown"):
        assert_delivered([])
