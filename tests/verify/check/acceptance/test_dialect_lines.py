"""A live run of a sound backend, judged with one line less in its dialect: answers only become unknown."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import msgspec
import pytest

from bridgekit_verify.check.live.backend_check import check_backend
from bridgekit_verify.check.live.saved_run import LiveRun
from bridgekit_verify.check.live.scenarios import Load
from bridgekit_verify.check.live.verdict import check_run
from bridgekit_verify.check.property_answers import State
from bridgekit_verify.studies.other_backends import EXAMPLES, example_backend

TABLE: dict[str, Any] = tomllib.loads((EXAMPLES / "websocket" / "backend.toml").read_text(encoding="utf-8"))["dialect"]
LINES = [*(name for name in TABLE if name not in ("name", "kinds")), *(f"kinds.{name}" for name in TABLE["kinds"])]


def without(line: str) -> dict[str, Any]:
    """Return the table without one line."""
    if line.startswith("kinds."):
        kinds = {name: value for name, value in TABLE["kinds"].items() if f"kinds.{name}" != line}
        return TABLE | {"kinds": kinds}
    return {name: value for name, value in TABLE.items() if name != line}


def states(run: LiveRun) -> dict[str, tuple[State, str]]:
    return {answer.property: (answer.state, answer.reason) for answer in check_run(run).answers}


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"  # the servers of the examples run on it


@pytest.fixture(scope="module")
async def sound_run(anyio_backend: str) -> LiveRun:
    load = Load(users=2, threads=2, runs=2, settle_seconds=0.1)
    result = await check_backend(example_backend("websocket"), load, scenarios=("thinking", "calls", "cut"), seed=0)
    return result.run


@pytest.mark.slow
@pytest.mark.parametrize("line", LINES)
async def test_answers_only_become_unknown_and_name_the_line(line: str, sound_run: LiveRun) -> None:
    whole = states(sound_run)
    less = states(msgspec.structs.replace(sound_run, dialect=without(line)))
    assert {state for state, _ in whole.values()} <= {State.HOLDS, State.UNKNOWN}, whole
    for which, (state, reason) in less.items():
        before, _ = whole[which]
        assert state is not State.BROKEN, (which, reason)
        assert not (state is State.HOLDS and before is State.UNKNOWN), which
        if state is State.UNKNOWN and before is State.HOLDS:
            assert re.search(rf"\b{re.escape(line)}\b", reason), (which, reason)
