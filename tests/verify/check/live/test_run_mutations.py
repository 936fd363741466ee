"""Damaged live runs: the ledger finds each kind of damage under its name, with nothing but its consequences."""

from __future__ import annotations

import random
from collections import Counter

import msgspec
import pytest

from bridgekit_verify.check.live.saved_run import dialect_of
from bridgekit_verify.check.live.verdict import LiveVerdict, check_run
from bridgekit_verify.check.property_answers import Property, State
from tests.verify.check.live.run_mutations import MUTATIONS, batched
from tests.verify.check.live.sound_backends import DIALECTS, sound

SEEDS = [range(4), pytest.param(range(40), marks=pytest.mark.acceptance)]
SCENARIOS = ("calls", "interleaved", "thinking")
NO_ARGUMENTS = {("bridgekit", "merge calls")}
"""bridgekit shows no arguments."""
EQUAL = {("Vercel UI stream", "another run's end"), ("bare", "another run's end")}
"""The ends of runs name no run there."""


def broken(verdict: LiveVerdict) -> set[str]:
    return {answer.property for answer in verdict.answers if answer.state is State.BROKEN}


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("size", [1, 4])
def test_sound_run_has_no_violation(dialect: str, scenario: str, size: int) -> None:
    verdict = check_run(batched(sound(dialect, scenario), size))
    assert broken(verdict) == set()
    assert sum(tally.delivered for tally in verdict.tallies) > 0


@pytest.mark.parametrize("size", [1, 50])
def test_piece_that_follows_the_end_is_found_within_a_batch(size: int) -> None:
    """Where the end names no run, so that only the order shows it."""
    run = sound("bare", "text")
    last = max(n for n, each in enumerate(run.messages) if each.client == "s1" and each.value["t"] == "say")
    end = next(each for each in run.messages if each.client == "s1" and each.value["t"] == "done")
    end.value, run.messages[last].value = run.messages[last].value, end.value
    assert Property.END_LAST in broken(check_run(batched(run, size)))


@pytest.mark.parametrize("seeds", SEEDS, ids=["few", "all"])
@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_damage_is_found_under_its_name(mutation: str, dialect: str, seeds: range) -> None:
    if (dialect, mutation) in NO_ARGUMENTS:
        return
    damage, applied = MUTATIONS[mutation], Counter[str]()
    for seed in seeds:
        for scenario in SCENARIOS:
            run = sound(dialect, scenario)
            named = dialect_of(run.dialect, "")
            assert named is not None
            messages = damage.mutate(list(run.messages), named, random.Random(seed))
            if messages is None or messages == run.messages:
                continue
            applied[scenario] += 1
            verdict = check_run(msgspec.structs.replace(run, messages=messages))
            found = broken(verdict)
            hint = f"seed {seed}, {scenario}: " + "; ".join(
                f"{answer.property}: {answer.violations[0].message}" for answer in verdict.answers if answer.violations
            )
            assert found & damage.named, hint
            assert found <= damage.named | damage.consequences, hint
    if (dialect, mutation) not in EQUAL:
        assert applied
