"""The package is a house: a module leans on its own floor and those below; the ground floor does no I/O."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.architecture.floors import (
    PACKAGE,
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

SOURCES = read_sources(ROOT / PACKAGE)
IMPORTS = imports_between(SOURCES)

THINKING = [
    f"{PACKAGE}.measure.{name}"
    for name in (
        "checker",
        "history",
        "ledger",
        "statistics",
        "streams.invariants",
        "streams.recorded",
        "streams.rules",
    )
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
    assert len(IMPORTS) > 1
    assert modules_without_a_floor(IMPORTS) == []


def test_no_module_imports_from_a_higher_floor() -> None:
    assert any(IMPORTS.values())
    assert upward_imports(IMPORTS) == []


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
    for name in ("admission", "edge", "hub", "origins", "outbox", "ranges", "subscriber", "tickets")
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
    assert modules_without_a_floor({f"{PACKAGE}.ids": set(), f"{PACKAGE}.helpers": set()}) == [f"{PACKAGE}.helpers"]


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
        "bridgekit.chain.link_9_bridge": {"bridgekit.chain.as_audited"},
        "bridgekit.chain.as_audited": {"bridgekit.chain.link_6_agent"},
    }
    assert backward_links(imports) == [
        "bridgekit.chain.link_7_8_adapter imports bridgekit.chain.link_6_agent",
        "bridgekit.chain.link_9_bridge imports bridgekit.chain.as_audited",
    ]


def test_planted_cycle_is_named() -> None:
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == ["a", "b", "c"]


def test_planted_socket_is_named() -> None:
    assert outside_imports("def go():\n    from anyio.abc import Event\nimport json") == {"anyio", "json"}
