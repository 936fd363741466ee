"""The explorer: what a choice shows, what it says about an invalid value, and its table where no reader is present."""

from __future__ import annotations

import re
from typing import Any

import anyio
import pytest

from bridgekit.errors import BridgekitError
from bridgekit_verify.report import notebook_explorer
from bridgekit_verify.report.notebook_explorer import CHAINS, controls, explore, explore_once
from bridgekit_verify.report.notebook_outputs import show_table

COUNTS = ["chain", "events", "delivered", "dropped", "dropped and leaked"]
CHANGE_TIMEOUT_SECONDS = 60


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.slow
async def test_choice_shows_the_trace_and_the_drop_rates_of_three_chains() -> None:
    found = await explore_once("fix 1", ["thread_alice", "thread_alice_smith"], runs_at_once=2)
    assert found.rates[COUNTS].to_numpy().tolist() == [
        ["as committed", 10, 0, 10, 0],
        ["fix 1", 10, 5, 5, 5],
        ["sound", 10, 10, 0, 0],
    ]
    assert found.request == "question 2"  # the run whose event another user read
    assert found.sentence == (
        "fix 1: the event agent_thinking of question 2 is read by alice-0 and not by its user, bob-1, because"
        " link 9 named thread_alice instead of thread_alice_smith."
    )
    html = found.html()
    assert found.sentence in html
    assert re.search(r'<img alt="[^"]*passes through links 1 to 10 [^"]*" src="data:image/png;base64,', html)


@pytest.mark.parametrize(("runs", "threads", "events"), [(1, 3, 15), (3, 1, 15), (5, 2, 30), (32, 16, 160)])
async def test_runs_at_once_may_exceed_the_threads(runs: int, threads: int, events: int) -> None:
    found = await explore_once("sound", [f"chat {number}" for number in range(threads)], runs_at_once=runs)
    assert list(found.rates["events"]) == [events] * 2
    assert list(found.rates["dropped"]) == [events, 0]


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"threads": [""]}, "must not be empty"),
        ({"threads": ["a", "a"]}, "'a' occurs twice"),
        ({"threads": [f"thread_{number}" for number in range(17)]}, "at most 16 are allowed, not 17"),
        ({"runs_at_once": 0}, "runs at once: must be a whole number from 1 to 32, not 0"),
        ({"runs_at_once": 33}, "runs at once: must be a whole number from 1 to 32, not 33"),
        ({"runs_at_once": "two"}, "runs at once: must be a whole number from 1 to 32, not 'two'"),
        ({"runs_at_once": 1.5}, "runs at once: must be a whole number from 1 to 32, not 1.5"),
        ({"runs_at_once": "2"}, "runs at once: must be a whole number from 1 to 32, not '2'"),
        ({"chain": "perfect"}, "no variant is called 'perfect'"),
        ({"event": "agent_dreaming"}, "no event of this run is called 'agent_dreaming'"),
    ],
)
async def test_invalid_choice_is_refused_with_what_is_allowed(choice: dict[str, Any], message: str) -> None:
    valid: dict[str, Any] = {"chain": "sound", "threads": ["thread_123"], "runs_at_once": 1}
    with pytest.raises(BridgekitError, match=message):
        await explore_once(**(valid | choice))


@pytest.mark.slow
async def test_markup_in_a_thread_id_is_escaped() -> None:
    found = await explore_once("fix 1", ["<img src=x onerror=alert(1)>", 'thread_"a'], runs_at_once=2)
    assert "<img src=x" not in found.html()


@pytest.mark.parametrize("session", [None, ""])
async def test_one_table_of_every_chain_is_shown_where_no_session_is_live(
    session: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    if session is not None:
        monkeypatch.setenv("JPY_SESSION_NAME", session)
    shown: list[Any] = []
    monkeypatch.setattr(notebook_explorer, "show_table", lambda *given, **named: shown.append((*given, named["name"])))
    await explore()
    [(table, caption, name)] = shown
    assert (list(table["chain"]), name) == ([*CHAINS], "explorer")
    assert caption == "Drop rates of each chain, with four threads and four runs at once"
    assert list(table["events"]) == [20] * len(CHAINS)
    show_table(table, caption, name=name)


class Result:
    """Waits until the explorer shows something new."""

    def __init__(self, box: Any) -> None:
        self.widget = box.children[-1]
        self._changed = anyio.Event()
        self.widget.observe(lambda _: self._changed.set(), "value")

    async def wait_for(self, text: str) -> str:
        with anyio.fail_after(CHANGE_TIMEOUT_SECONDS):
            while text not in self.widget.value:
                self._changed = anyio.Event()
                await self._changed.wait()
        return str(self.widget.value)


@pytest.mark.slow
async def test_live_controls_show_a_new_result_for_each_change_and_recover_from_an_invalid_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("ipywidgets", reason="the extra `notebooks` has it")
    monkeypatch.setattr(notebook_explorer, "FIGURE_DOTS_PER_INCH", 24)  # only the words matter here
    box = controls(7)
    chain, threads, at_once, _, run, _ = box.children
    result = Result(box)
    await result.wait_for("as committed: the event agent_thinking of question 1 ends at link 8")
    chain.value, threads.value = "fix 3", "support-42"
    assert "bob-1" not in await result.wait_for(
        "fix 3: the event agent_thinking of question 1 passes through links 1 to 10"
    )
    at_once.value = 0
    message = await result.wait_for("runs at once: must be a whole number from 1 to 32, not 0")
    assert "Allowed: 1 to 16 different thread ids" in message
    at_once.value = 1
    await result.wait_for("fix 3: the event agent_thinking of question 1 passes through links 1 to 10")
    threads.value = "a, <b>, a"
    await result.wait_for("occurs twice")
    threads.value = "thread_1"
    await result.wait_for("fix 3: the event agent_thinking of question 1 passes through links 1 to 10")
    run.click()
    await result.wait_for("Running")
    await result.wait_for("is read by its user, alice-0")
