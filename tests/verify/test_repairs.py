"""The repairs of the code as committed, and the count of the lines that each one changes."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from bridgekit_verify.as_committed import HubWithoutThreads
from bridgekit_verify.repairs import REPAIRS, LineChange, changed_lines, repaired, subsets
from bridgekit_verify.variants import AS_COMMITTED, SOUND, Fix, Variant

# The parts that a repair of delivery must make sound. The others, such as receipts and run ids, do not affect it.
DELIVERY = ("supervisor", "registry", "engine", "core", "agent", "adapter")


def changed(chain: Variant) -> set[str]:
    return {each.name for each in fields(Variant) if getattr(chain, each.name) != getattr(AS_COMMITTED, each.name)}


@pytest.mark.parametrize("repair", REPAIRS, ids=lambda repair: repair.name)
def test_repair_changes_its_own_parts_and_no_others(repair: Fix) -> None:
    chain = repaired([repair])
    assert changed(chain) - {"name", "summary"} == repair.parts.keys()
    assert all(getattr(chain, part) is sound for part, sound in repair.parts.items())


def test_all_repairs_make_every_part_that_delivers_sound() -> None:
    chain = repaired(REPAIRS)
    assert [getattr(chain, part) for part in DELIVERY] == [getattr(SOUND, part) for part in DELIVERY]
    assert not issubclass(chain.hub, HubWithoutThreads)  # type: ignore[arg-type]


def test_no_two_repairs_change_the_same_part() -> None:
    parts = [part for repair in REPAIRS for part in repair.parts]
    assert len(parts) == len(set(parts))


def test_subsets_are_every_combination_once() -> None:
    found = [frozenset(repair.name for repair in chosen) for chosen in subsets()]
    assert len(found) == len(set(found)) == 2 ** len(REPAIRS)
    assert (found[0], found[-1]) == (frozenset(), frozenset(repair.name for repair in REPAIRS))


class Sound:
    """The sound form of a part."""

    def route(self, run: str) -> str:
        """Documented."""
        found = run.upper()  # with a comment
        return f"{found}!"

    def other(self) -> None:
        return None


class SameInOtherWords(Sound):
    def route(self, run: str) -> str:
        # Only comments, docstrings and the layout differ.
        found = (
            run
            .upper()
        )  # fmt: skip
        return f"{found}!"


class OneLineChanged(Sound):
    def route(self, run: str) -> str:
        found = run.lower()
        return f"{found}!"


class OneLineMore(Sound):
    def route(self, run: str) -> str:
        assert run
        return super().route(run)


class BranchAndCall(Sound):
    def route(self, run: str) -> str:
        if run:
            return super().route(run)
        return "nothing"


class TwoMethods(OneLineChanged):
    def other(self) -> None:
        self.done = True


class Mixed(OneLineChanged, OneLineMore):
    pass


class NotInTheSoundForm(Sound):
    def added(self) -> int:
        return 1


def looked_up(mapping: object) -> str:
    return "orchestrator"


def carried(mapping: object) -> str:
    """Documented."""
    return "carried"


class Needed:
    """A class that the repair adds."""

    def resolve(self) -> str:
        """Documented."""
        return "thread"


@pytest.mark.parametrize(
    ("committed", "sound", "adds", "expected"),
    [
        (Sound, Sound, (), (0, 0)),
        (SameInOtherWords, Sound, (), (0, 0)),
        (OneLineChanged, Sound, (), (1, 1)),
        (OneLineMore, Sound, (), (1, 0)),
        (BranchAndCall, Sound, (), (2, 0)),
        (TwoMethods, Sound, (), (2, 2)),
        (TwoMethods, OneLineChanged, (), (1, 1)),
        (Mixed, OneLineMore, (), (1, 2)),
        (NotInTheSoundForm, Sound, (), (1, 0)),
        (looked_up, carried, (), (1, 1)),
        (looked_up, carried, (Needed,), (1, 4)),
    ],
)
def test_changed_lines_are_those_of_a_diff(
    committed: Any, sound: Any, adds: tuple[type, ...], expected: tuple[int, int]
) -> None:
    base = Variant(name="base", summary="a base", hub=committed)
    assert changed_lines(Fix("r", "a repair", {"hub": sound}), base, adds=adds) == LineChange(*expected)


@pytest.mark.parametrize("repair", REPAIRS, ids=lambda repair: repair.name)
def test_every_repair_changes_lines_of_the_rebuilt_chain(repair: Fix) -> None:
    unchanged = Fix(repair.name, "nothing", {part: getattr(AS_COMMITTED, part) for part in repair.parts})
    assert changed_lines(repair).removed > 0
    assert changed_lines(unchanged) == LineChange(0, 0)


def test_binding_a_connection_changes_one_line() -> None:
    [repair] = [repair for repair in REPAIRS if repair.name == "connection bound"]
    assert str(changed_lines(repair)) == "-1 +1"
