"""Damaged files of live runs of the two example backends: the ledger finds each kind of damage under its name."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from bridgekit_verify.check.checking import check_recording
from bridgekit_verify.check.live.backend_check import check_backend
from bridgekit_verify.check.live.saved_run import LiveRun, dialect_of, write_run
from bridgekit_verify.check.live.scenarios import Load
from bridgekit_verify.check.property_answers import Property, State
from bridgekit_verify.check.recording_files import open_recording
from bridgekit_verify.studies.other_backends import broken_properties, example_backend, verdict_of_frames
from tests.verify.check.live.run_mutations import MUTATIONS

NAMES = ("websocket", "agui")
SCENARIOS = ("text", "thinking", "calls")
LOAD = Load(users=2, threads=2, runs=2, settle_seconds=0.1)
SEEDS = [
    pytest.param(range(2), id="few", marks=pytest.mark.slow),
    pytest.param(range(40), id="all", marks=pytest.mark.acceptance),
]
BY_POSITION = {
    "drop end": {Property.LOST},
    "add end": {Property.ORDER},
    "another run's end": {Property.LOST, Property.ORDER, Property.END_LAST},
}
"""Further consequences, because a client of the WebSocket has several runs, and numbers that include their ends."""


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"  # the servers of the examples run on it


@pytest.fixture(scope="module")
async def saved(anyio_backend: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One file for each backend, from a run without damage."""
    folder = tmp_path_factory.mktemp("saved")
    for name in NAMES:
        result = await check_backend(example_backend(name), LOAD, scenarios=SCENARIOS, seed=0)
        result.save(folder / f"{name}.jsonl")
    return {name: folder / f"{name}.jsonl" for name in NAMES}


def read_run(path: Path) -> LiveRun:
    with open_recording(str(path)) as recording:
        assert recording.header is not None
        return msgspec.structs.replace(recording.header, messages=list(recording.messages))


def damaged(run: LiveRun, mutation: str, seeds: range) -> Iterator[tuple[int, LiveRun]]:
    dialect = dialect_of(run.dialect, "")
    assert dialect is not None
    for seed in seeds:
        messages = MUTATIONS[mutation].mutate(list(run.messages), dialect, random.Random(seed))
        if messages is not None and messages != run.messages:
            yield seed, msgspec.structs.replace(run, messages=messages)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_saved_run_without_damage_has_no_violation(name: str, saved: dict[str, Path]) -> None:
    assert broken_properties(check_recording(str(saved[name]))) == set()


@pytest.mark.parametrize("seeds", SEEDS)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_damage_to_a_saved_run_is_found_under_its_name(
    mutation: str, name: str, seeds: range, saved: dict[str, Path], tmp_path: Path
) -> None:
    expected, applied = MUTATIONS[mutation], 0
    allowed = (
        expected.named | expected.consequences | (BY_POSITION.get(mutation, set()) if name == "websocket" else set())
    )
    for seed, run in damaged(read_run(saved[name]), mutation, seeds):
        applied += 1
        path = tmp_path / "run.jsonl"
        write_run(path, run)
        verdict = check_recording(str(path))
        found = broken_properties(verdict)
        hint = f"seed {seed}: " + "; ".join(
            f"{answer.property}: {answer.violations[0].message}" for answer in verdict.answers if answer.violations
        )
        assert found & expected.named, hint
        assert found <= allowed, hint
        alone = {answer.property: answer.state for answer in verdict_of_frames(run).answers}
        assert {alone[which] for which in expected.named} != {State.HOLDS}, f"seed {seed}, without the ledger"
    assert applied > len(seeds) // 2
