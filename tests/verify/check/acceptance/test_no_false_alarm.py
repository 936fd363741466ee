"""Backends without defects: no property is broken, in any scenario."""

from __future__ import annotations

import pytest

from bridgekit_verify.check.live.backend_check import check_backend
from bridgekit_verify.check.live.backend_file import Backend, load_backend
from bridgekit_verify.check.live.scenarios import Load
from bridgekit_verify.check.property_answers import Property, State
from bridgekit_verify.studies.other_backends import EXAMPLES, broken_properties, example_backend
from tests.verify.check.acceptance.running_once import running_once

SCENARIOS = ("text", "thinking", "calls", "burst", "slow", "cut", "retry", "dies")
LOAD = Load(users=2, threads=2, runs=2, settle_seconds=0.1)
REPEATS = range(3)


def on_bridgekit(edge: str) -> Backend:
    backend = load_backend(str(EXAMPLES / "websocket" / "on_bridgekit.toml"))
    return backend.with_command(f"{{python}} -m bridgekit serve on_bridgekit:app --port {{port}} --edge {edge}")


SUBJECTS = {
    "websocket": example_backend("websocket"),
    "agui": example_backend("agui"),
    "bridgekit native": on_bridgekit("native"),
    "bridgekit asgi": on_bridgekit("asgi"),
}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # the servers of the examples run on it


@pytest.mark.short_form(2)
@pytest.mark.slow
@pytest.mark.parametrize("subject", SUBJECTS)
async def test_sound_backend_is_clean(subject: str) -> None:
    result = await check_backend(SUBJECTS[subject], LOAD, scenarios=SCENARIOS, seed=0)
    assert broken_properties(result.verdict) == set()
    assert result.problems == ()
    states = {answer.property: answer.state for answer in result.verdict.answers}
    lost = State.HOLDS if SUBJECTS[subject].resume else State.UNKNOWN
    assert (states[Property.USER], states[Property.CONTEXT], states[Property.LOST]) == (State.HOLDS, State.HOLDS, lost)


@pytest.mark.acceptance
@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("subject", SUBJECTS)
async def test_sound_backend_is_clean_in_each_scenario(subject: str, scenario: str) -> None:
    async with running_once(SUBJECTS[subject]) as (backend, model):
        for seed in REPEATS:
            result = await check_backend(backend, LOAD, scenarios=(scenario,), seed=seed, model=model)
            assert broken_properties(result.verdict) == set(), (seed, result.verdict)
            assert result.problems == ()
