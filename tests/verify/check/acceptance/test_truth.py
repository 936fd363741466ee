"""The findings about the example backends equal their truth files: none is missed, and none is invented."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest

from bridgekit_verify.check.live.backend_check import check_backend
from bridgekit_verify.check.live.scenarios import Load
from bridgekit_verify.check.property_answers import Property
from bridgekit_verify.studies.other_backends import EXAMPLES, broken_properties, example_backend, read_truth
from tests.verify.check.acceptance.running_once import running_once

SMALL = Load(users=2, threads=2, runs=2, quiet_seconds=0.5, unfinished_seconds=0.5, settle_seconds=0.1)
MIDDLE = msgspec.structs.replace(SMALL, users=3)
LARGE = msgspec.structs.replace(SMALL, users=3, threads=3, runs=3)
SEEDS = range(10)
DEFECTS = [(name, defect) for name in ("websocket", "agui") for defect in read_truth(name)]
A_FEW = {
    "drops deltas",
    "loses while offline",
    "shared agent",
    "ends unknown run",
    "shared context",
    "merges arguments",
}
"""Defects of both backends that `make test` tries: one for each source of evidence."""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # the servers of the examples run on it


def cases() -> list[Any]:
    """Return each defect with each load and all seeds, and a few of them with one seed."""
    return [
        *(
            pytest.param(*which, SMALL, range(1), id=f"{'-'.join(which)}-short", marks=pytest.mark.slow)
            for which in DEFECTS
            if which[1] in A_FEW
        ),
        *(
            pytest.param(*which, load, SEEDS, id=f"{'-'.join(which)}-{name}", marks=pytest.mark.acceptance)
            for which in DEFECTS
            for name, load in (("small", SMALL), ("middle", MIDDLE), ("large", LARGE))
        ),
    ]


@pytest.mark.parametrize(("name", "defect", "load", "seeds"), cases())
async def test_broken_properties_are_those_of_the_truth_file(name: str, defect: str, load: Load, seeds: range) -> None:
    truth = read_truth(name)[defect]
    async with running_once(example_backend(name, defect)) as (backend, model):
        for seed in seeds:
            result = await check_backend(backend, load, scenarios=truth.scenarios, seed=seed, model=model)
            found = broken_properties(result.verdict)
            assert found == truth.broken, (seed, sorted(found), result.problems)


@pytest.mark.parametrize("name", ["websocket", "agui"])
def test_truth_file_names_every_defect(name: str) -> None:
    code = (EXAMPLES / name / "defects.py").read_text(encoding="utf-8")
    assert set(read_truth(name)) == set(re.findall(r'^    "(.+)": \w+,$', code, re.MULTILINE))


def test_truth_files_break_every_property_at_least_once() -> None:
    broken = {which for name in ("websocket", "agui") for truth in read_truth(name).values() for which in truth.broken}
    assert set(Property) - broken == set()


@pytest.mark.parametrize("name", ["websocket", "agui"])
def test_another_users_text_in_the_request_breaks_nothing_but_the_context(name: str) -> None:
    assert read_truth(name)["shared context"].broken == {Property.CONTEXT}
