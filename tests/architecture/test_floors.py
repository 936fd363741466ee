"""A module imports from its own floor and those below; the lowest does no I/O; the package does without the suite."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.architecture.floors import (
    PACKAGE,
    PACKAGES,
    SUITE,
    backward_links,
    cycles,
    floor_of,
    imports_between,
    modules_without_a_floor,
    outside_imports,
    read_sources,
    upward_imports,
)
from tests.tree import ROOT

SOURCES = read_sources(ROOT)
IMPORTS = imports_between(SOURCES)

THINKING = [
    *(f"{PACKAGE}.invariants.{name}" for name in ("recorded", "reports", "rules")),
    *(f"{SUITE}.measure.{name}" for name in ("checker", "history", "ledger", "statistics")),
]
WORDS = [module for module in SOURCES if floor_of(module) == 0]
DOING = {"anyio", "asyncio", "matplotlib", "pandas", "socket", "starlette", "trio", "uvicorn", "websockets"}
SERVERS = {"asyncio", "hypercorn", "socket", "starlette", "trio", "uvicorn", "websockets"}
HEAVY = {
    "IPython",
    "jupyter_client",
    "jupyterlab",
    "matplotlib",
    "nbclient",
    "nbconvert",
    "nbformat",
    "pandas",
}


def test_every_module_stands_on_a_floor() -> None:
    for package in PACKAGES:
        assert sum(module.startswith(f"{package}.") for module in IMPORTS) > 50
    assert modules_without_a_floor(IMPORTS) == []


def test_no_module_imports_from_a_higher_floor() -> None:
    assert any(IMPORTS.values())
    assert upward_imports(IMPORTS) == []


EVERY_MODULE = """
import sys
from importlib import import_module
from pkgutil import walk_packages
sys.modules["bridgekit_verify"] = None
import bridgekit
names = [each.name for each in walk_packages(bridgekit.__path__, "bridgekit.")]
for name in names:
    import_module(name)
print(len(names))
"""


def test_the_package_can_be_imported_whole_where_there_is_no_suite() -> None:
    run = subprocess.run([sys.executable, "-c", EVERY_MODULE], capture_output=True, text=True, check=True, cwd=ROOT)
    assert int(run.stdout) == sum(module.startswith(f"{PACKAGE}.") for module in SOURCES)


def test_a_link_imports_only_later_links() -> None:
    assert sum(".chain.link_" in module for module in IMPORTS) >= 8  # links 7 and 8 share one module
    assert backward_links(IMPORTS) == []


def test_no_import_cycle() -> None:
    assert cycles(IMPORTS) == []


@pytest.mark.parametrize("module", [*WORDS, *THINKING])
def test_thinking_does_no_io(module: str) -> None:
    assert outside_imports(SOURCES[module]) & DOING == set()


# What a socket is owed, whatever carries its bytes: every edge stands on these.
ANY_EDGE = [
    f"{PACKAGE}.transport.{name}"
    for name in (
        "authorization",
        "coalescing",
        "connections",
        "hub",
        "log",
        "origins",
        "outbox",
        "pinned_lru",
        "tickets",
    )
]


@pytest.mark.parametrize("module", ANY_EDGE)
def test_what_every_edge_stands_on_knows_no_server(module: str) -> None:
    assert outside_imports(SOURCES[module]) & SERVERS == set()


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = f"import {PACKAGE}, sys; print(*sorted({HEAVY!r} & sys.modules.keys()))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert run.stdout.split() == []


def test_importing_the_plugin_loads_nothing_else() -> None:
    """pytest imports it wherever bridgekit is installed."""
    plugin = f"{PACKAGE}.pytest_plugin"
    code = f"import pytest, sys; known = set(sys.modules); import {plugin}; print(*sorted({{*sys.modules}} - known))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert run.stdout.split() == [PACKAGE, plugin]


# What the functions above must catch, planted in small houses of literal sources.


def test_planted_unknown_module_is_named() -> None:
    assert modules_without_a_floor({f"{PACKAGE}.ids": set(), f"{SUITE}.helpers": set()}) == [f"{SUITE}.helpers"]


def test_planted_import_of_the_suite_is_named() -> None:
    imports = imports_between(
        {"bridgekit.chain": "import bridgekit_verify", "bridgekit_verify": "import bridgekit.chain"}
    )
    assert upward_imports(imports) == ["bridgekit.chain (floor 3) imports bridgekit_verify (floor 6)"]


@pytest.mark.parametrize(
    "source",
    [
        "import bridgekit.chain",
        "from bridgekit.chain import LINKS",
        "from bridgekit import chain",
        "def late():\n    import bridgekit.chain",
    ],
)
def test_planted_upward_import_is_named(source: str) -> None:
    imports = imports_between({"bridgekit": "", "bridgekit.ids": source, "bridgekit.chain": ""})
    assert upward_imports(imports) == ["bridgekit.ids (floor 0) imports bridgekit.chain (floor 3)"]


def test_planted_backward_link_is_named() -> None:
    imports = {
        "bridgekit.chain.link_6_agent": {"bridgekit.chain.link_7_8_adapter"},
        "bridgekit.chain.link_7_8_adapter": {"bridgekit.chain.link_6_agent", "bridgekit.chain.link_9_bridge"},
        "bridgekit.chain.link_9_bridge": {"bridgekit_verify.as_committed"},
        "bridgekit_verify.as_committed": {"bridgekit.chain.link_6_agent"},
    }
    assert backward_links(imports) == [
        "bridgekit.chain.link_7_8_adapter imports bridgekit.chain.link_6_agent",
        "bridgekit.chain.link_9_bridge imports bridgekit_verify.as_committed",
    ]


def test_planted_cycle_is_named() -> None:
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == ["a", "b", "c"]


def test_planted_socket_is_named() -> None:
    assert outside_imports("def go():\n    from anyio.abc import Event\nimport json") == {"anyio", "json"}
