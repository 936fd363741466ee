"""The variants: each differs from sound only in what its name states."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from bridgekit.errors import UnknownName
from bridgekit_verify import as_committed
from bridgekit_verify.audited_routing import EmbeddedRunIds, OpaqueRunIds
from bridgekit_verify.measure.workload import seeded
from bridgekit_verify.variants import (
    AS_COMMITTED,
    BROKEN,
    FIXES,
    SOUND,
    VARIANTS,
    WITHOUT_HANDOVER,
    WITHOUT_ROUTING,
    Fix,
    Variant,
    resolver_as_committed,
    resolver_of_fix_2_as_written,
    resolver_of_fix_2_with_its_method,
    resolver_of_fix_3,
    resolver_of_fixes_2_and_3,
    variant,
)

LINK_9_AS_REPORTED = {
    "run_ids": OpaqueRunIds,
    "resolver": resolver_as_committed,
    "self_checks": WITHOUT_ROUTING,
}
EMBEDDED = {"run_ids": EmbeddedRunIds}
WITH_ITS_METHOD = {"resolver": resolver_of_fix_2_with_its_method, "mapping": as_committed.DictMapping}
CANNOT_FAIL = (as_committed.self_check_that_cannot_fail,)

CHOICES: dict[str, dict[str, object]] = {
    "sound": {},
    "as reported": LINK_9_AS_REPORTED,
    "fix 1": LINK_9_AS_REPORTED | EMBEDDED,
    "fix 2 as written": LINK_9_AS_REPORTED | {"resolver": resolver_of_fix_2_as_written},
    "fix 2 with its method": LINK_9_AS_REPORTED | WITH_ITS_METHOD,
    "fix 3": LINK_9_AS_REPORTED | {"resolver": resolver_of_fix_3, "mapping": as_committed.DictMapping},
    "fixes 1 and 2 as written": LINK_9_AS_REPORTED | EMBEDDED | {"resolver": resolver_of_fix_2_as_written},
    "fixes 1 and 2 with the method": LINK_9_AS_REPORTED | EMBEDDED | WITH_ITS_METHOD,
    "fixes 1, 2 and 3": LINK_9_AS_REPORTED
    | EMBEDDED
    | {"resolver": resolver_of_fixes_2_and_3, "mapping": as_committed.DictMapping},
    "as committed": {
        "run_ids": OpaqueRunIds,
        "resolver": resolver_as_committed,
        "hub": as_committed.HubAsCommitted,
        "registry": as_committed.RegistryThatBindsAtStartup,
        "core": as_committed.CoreThatSharesAgents,
        "adapter": as_committed.AdapterThatPassesMetadata,
        "self_checks": CANNOT_FAIL,
    },
    "link 1 broken": {"hub": as_committed.HubWithoutThreads, "self_checks": CANNOT_FAIL},
    "link 2 broken": {
        "supervisor": as_committed.SupervisorWithItsOwnBridge,
        "self_checks": WITHOUT_HANDOVER,
    },
    "link 3 broken": {"registry": as_committed.RegistryThatBindsAtStartup},
    "link 4 broken": {"engine": as_committed.EngineWithItsOwnBridge, "self_checks": WITHOUT_HANDOVER},
    "link 5 broken": {"core": as_committed.CoreThatSharesAgents},
    "link 6 broken": {"agent": as_committed.AgentThatKeepsTheBridge},
    "link 7 broken": {"adapter": as_committed.AdapterThatForgetsTheRun},
    "link 8 broken": {"adapter": as_committed.AdapterThatPassesMetadata},
    "link 9 broken": LINK_9_AS_REPORTED,
}


def chosen(row: Variant) -> dict[str, object]:
    """Return the fields in which a variant differs from sound."""
    return {
        field.name: getattr(row, field.name)
        for field in fields(Variant)
        if field.name not in ("name", "summary") and getattr(row, field.name) != getattr(SOUND, field.name)
    }


@pytest.mark.parametrize("name", CHOICES)
def test_variant_differs_from_sound_only_as_listed(name: str) -> None:
    assert chosen(variant(name)) == CHOICES[name]


def test_every_variant_is_found_by_its_name() -> None:
    rows = [*VARIANTS.values(), *BROKEN.values()]
    assert {row.name for row in rows} == CHOICES.keys()
    assert all(variant(row.name) is row for row in rows)
    assert all(row.summary for row in rows)


def test_each_link_is_broken_alone_and_once() -> None:
    assert {number: row.name for number, row in BROKEN.items()} == {
        number: f"link {number} broken" for number in range(1, 10)
    }


def test_variants_start_with_the_audits_before_and_after() -> None:
    assert list(VARIANTS) == ["as reported", *FIXES, "sound", "as committed"]
    assert list(FIXES) == [
        "fix 1",
        "fix 2 as written",
        "fix 2 with its method",
        "fix 3",
        "fixes 1 and 2 as written",
        "fixes 1 and 2 with the method",
        "fixes 1, 2 and 3",
    ]


@pytest.mark.parametrize("fix", FIXES.values(), ids=lambda fix: fix.name)
@pytest.mark.parametrize("base", [AS_COMMITTED, BROKEN[5], SOUND], ids=lambda base: base.name)
def test_fix_replaces_its_own_parts_of_any_chain_and_no_others(base: Variant, fix: Fix) -> None:
    fixed = fix.applied_to(base)
    assert fixed.name == f"{base.name} with {fix.name}"
    for field in fields(Variant):
        if field.name not in ("name", "summary"):
            assert getattr(fixed, field.name) == fix.parts.get(field.name, getattr(base, field.name))


@pytest.mark.parametrize("name", [None, 3, ["sound"]])
def test_a_variants_name_is_a_text(name: Any) -> None:
    with pytest.raises(UnknownName, match="as committed"):
        variant(name)


def test_unknown_variant_raises_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(UnknownName, match="no variant is called 'perfect'; known: 'as reported', ") as refused:
        variant("perfect")
    assert set(refused.value.known) == CHOICES.keys()


@pytest.mark.parametrize("name", CHOICES)
def test_config_has_the_parts_of_its_variant(name: str) -> None:
    row = variant(name)
    config = row.config({}, hex_source=seeded(1))
    for field in ("mapping", "resolver", "hub", "supervisor", "registry", "engine", "core", "adapter"):
        assert getattr(config, field) == getattr(row, field)
    assert config.self_checks == row.self_checks
    assert type(config.run_ids) is type(row.run_ids(seeded(1)))
