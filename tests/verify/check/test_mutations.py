"""Damaged recordings: the property that the damage concerns is broken or unknown, and never holds."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from bridgekit_verify.check.property_answers import State
from tests.verify.check.mutations import MUTATIONS, kind
from tests.verify.check.samples import DIALECTS, Line, recorded, recording, write
from tests.verify.check.test_check import check, states

ALL_SEEDS = range(40)
A_FEW_SEEDS = range(6)
WITH_REDUNDANCY = {"bridgekit", "chat"}
"""The dialects whose frames all have a position, a run and a thread."""
NOT_SHOWN = {("bridgekit", "truncate"), ("bridgekit", "merge calls")}
"""bridgekit repeats neither texts nor arguments."""


@pytest.mark.parametrize(
    "seeds", [A_FEW_SEEDS, pytest.param(ALL_SEEDS, marks=pytest.mark.acceptance)], ids=["few", "all"]
)
@pytest.mark.parametrize("dialect", [*DIALECTS, "recorded"])
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_damage_is_broken_or_unknown(mutation: str, dialect: str, seeds: range, tmp_path: Path) -> None:
    mutate, which = MUTATIONS[mutation]
    sound = recorded() if dialect == "recorded" else recording(dialect)
    assert State.BROKEN not in states(check(dialect, write(tmp_path / "sound.jsonl", sound))).values()
    for seed in seeds:
        lines = mutate(sound, random.Random(seed))
        if lines == sound:
            continue
        found = states(check(dialect, write(tmp_path / "mutated.jsonl", lines)))
        answers = {found[each] for each in which}
        hint = f"seed {seed}: {found}"
        assert answers != {State.HOLDS}, hint
        if dialect in WITH_REDUNDANCY and (dialect, mutation) not in NOT_SHOWN and is_complete(lines):
            assert State.BROKEN in answers, hint


def is_complete(lines: list[Line]) -> bool:
    """Whether each socket's first frame is the start: otherwise the recording may have begun later."""
    starts = (next(line for line in lines if line.socket == socket) for socket in ("s1", "s2", "s3"))
    return all(kind(line) in ("subscribed", "go") for line in starts)
