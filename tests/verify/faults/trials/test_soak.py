"""Many rounds added up, and each that broke a promise named with its seed."""

from __future__ import annotations

import pytest

from bridgekit_verify.faults.trials.acts import ACTS
from bridgekit_verify.faults.trials.deployment import AT_MOST_ONCE, RESUME
from bridgekit_verify.faults.trials.matrix import FaultMatrix, Soak, drawn_plan, soak
from tests.verify.faults.trials.trials import trial
from tools.soak import page


def test_counts_of_the_rounds_are_added_up() -> None:
    found = Soak()
    for seed in (1, 2):
        found.add(seed, FaultMatrix({("down", RESUME.name): trial(RESUME, lost=[2], told=[2])}))
    [row] = found.table().to_dict("records")
    assert (row["expected"], row["delivered"], row["lost signalled"], found.rounds) == (8, 6, 2, 2)
    assert (found.silent.k, found.silent.n, found.broken) == (0, 8, [])


@pytest.mark.parametrize(
    "broken",
    [trial(RESUME, lost=[2]), trial(RESUME, strays=[3]), trial(AT_MOST_ONCE, strays=[3]), trial(RESUME, settled=False)],
    ids=["silent", "stray", "stray where nothing is promised", "not settled"],
)
def test_planted_breach_is_named_with_its_seed(broken: object) -> None:
    found = Soak()
    assert isinstance(broken, type(trial(RESUME)))
    found.add(41, FaultMatrix({("down", broken.delivery.name): broken}))
    assert len(found.broken) == 1
    assert found.broken[0].startswith("seed 41: down, ")


def test_loss_where_nothing_is_promised_is_no_breach() -> None:
    found = Soak()
    found.add(1, FaultMatrix({("down", AT_MOST_ONCE.name): trial(AT_MOST_ONCE, lost=[1, 2])}))
    assert found.broken == []


def test_seed_draws_the_same_plan_again_and_another_seed_another() -> None:
    assert drawn_plan(3) == drawn_plan(3) != drawn_plan(4)


@pytest.mark.slow
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_one_round_at_least_is_run_and_told() -> None:
    lines = list[str]()
    found = await soak(minutes=0, users=1, acts=[ACTS["down"]], deliveries=[RESUME], print_line=lines.append)
    assert (found.rounds, len(lines), found.broken) == (1, 1, [])
    assert "| down | resume |" in page(found)
