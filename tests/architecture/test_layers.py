"""Layers: a module imports only from its own or a lower layer, and the lowest layer does no I/O."""

from __future__ import annotations

import subprocess
import sys
from functools import cache

import pytest

from tests.architecture.layers import (
    LAYERS,
    PACKAGE,
    PACKAGES,
    VERIFY,
    backward_links,
    cycles,
    imports_between,
    layer_of,
    modules_without_a_layer,
    outside_imports,
    read_sources,
    upward_imports,
)
from tests.tree import ROOT

SOURCES = read_sources(ROOT)


@cache
def all_imports() -> dict[str, set[str]]:
    """Parse the packages when a test first needs their imports: every test process imports this module."""
    return imports_between(SOURCES)


PURE_MODULES = [
    *(f"{PACKAGE}.invariants.{name}" for name in ("frame_parsing", "reports", "rules")),
    *(
        f"{VERIFY}.check.{name}"
        for name in (
            "verdict",
            "frames",
            "judge",
            "output",
            "id_owners",
            "numbering",
            "property_answers",
            "dialects",
            "rules",
            "client_state",
        )
    ),
    *(
        f"{VERIFY}.check.live.{name}"
        for name in (
            "verdict",
            "delivery",
            "evidence",
            "model_ledger",
            "markers",
            "model_answers",
            "model_requests",
            "ledger_rules",
            "model_scripts",
            "observed_clients",
            "scenarios",
        )
    ),
    *(f"{VERIFY}.measure.{name}" for name in ("checker", "history", "ledger", "numbering", "statistics")),
]
LOWEST_LAYER = [module for module in SOURCES if layer_of(module) == 0]
IO_MODULES = {"anyio", "asyncio", "matplotlib", "pandas", "socket", "starlette", "trio", "uvicorn", "websockets"}
SERVER_MODULES = {"asyncio", "hypercorn", "socket", "starlette", "trio", "uvicorn", "websockets"}
HEAVY_MODULES = {
    "IPython",
    "jupyter_client",
    "jupyterlab",
    "matplotlib",
    "nbclient",
    "nbconvert",
    "nbformat",
    "pandas",
}


@pytest.mark.slow
def test_every_module_has_a_layer() -> None:
    for package in PACKAGES:
        assert sum(module.startswith(f"{package}.") for module in all_imports()) > 50
    assert modules_without_a_layer(all_imports()) == []


def test_every_name_in_the_table_of_layers_is_a_module() -> None:
    named = {f"{package}.{name}".removesuffix(".") for package, names in LAYERS.items() for name in names}
    assert named - SOURCES.keys() == set()


def test_no_module_imports_from_a_higher_layer() -> None:
    assert any(all_imports().values())
    assert upward_imports(all_imports()) == []


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


@pytest.mark.slow
def test_every_module_of_bridgekit_can_be_imported_without_bridgekit_verify() -> None:
    run = subprocess.run([sys.executable, "-c", EVERY_MODULE], capture_output=True, text=True, check=True, cwd=ROOT)
    assert int(run.stdout) == sum(module.startswith(f"{PACKAGE}.") for module in SOURCES)


def test_link_imports_only_later_links() -> None:
    assert sum(".chain.link_" in module for module in all_imports()) >= 8  # links 7 and 8 share one module
    assert backward_links(all_imports()) == []


def test_no_import_cycle() -> None:
    assert cycles(all_imports()) == []


def test_pure_modules_import_nothing_that_does_io() -> None:
    assert forbidden_imports([*LOWEST_LAYER, *PURE_MODULES], IO_MODULES) == {}


def test_judging_imports_nothing_that_drives_a_backend() -> None:
    live = f"{VERIFY}.check.live"
    reached, waiting = set[str](), [f"{VERIFY}.check.checking", f"{live}.verdict"]
    while waiting:
        module = waiting.pop()
        if module not in reached:
            reached.add(module)
            waiting += all_imports()[module]
    assert f"{live}.delivery" in reached
    driving = ("backend_check", "drivers", "load_session", "model_server", "starting")
    assert reached & {f"{live}.{name}" for name in driving} == set()


# Both edges, ASGI and native, use these.
USED_BY_BOTH_EDGES = [
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


def test_modules_that_both_edges_use_import_no_server() -> None:
    assert forbidden_imports(USED_BY_BOTH_EDGES, SERVER_MODULES) == {}


def forbidden_imports(modules: list[str], forbidden: set[str]) -> dict[str, set[str]]:
    imported = {module: outside_imports(SOURCES[module]) & forbidden for module in modules}
    return {module: names for module, names in imported.items() if names}


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = f"import {PACKAGE}, sys; print(*sorted({HEAVY_MODULES!r} & sys.modules.keys()))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert run.stdout.split() == []


def test_importing_the_plugin_loads_nothing_else() -> None:
    """pytest imports it wherever bridgekit is installed."""
    plugin = f"{PACKAGE}.pytest_plugin"
    code = f"import pytest, sys; known = set(sys.modules); import {plugin}; print(*sorted({{*sys.modules}} - known))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert run.stdout.split() == [PACKAGE, plugin]


# Violations that the functions above must find.


def test_module_without_a_layer_is_found() -> None:
    assert modules_without_a_layer({f"{PACKAGE}.ids": set(), f"{VERIFY}.helpers": set()}) == [f"{VERIFY}.helpers"]


def test_import_of_bridgekit_verify_by_bridgekit_is_found() -> None:
    imports = imports_between(
        {"bridgekit.chain": "import bridgekit_verify", "bridgekit_verify": "import bridgekit.chain"}
    )
    assert upward_imports(imports) == ["bridgekit.chain (layer 3) imports bridgekit_verify (layer 6)"]


@pytest.mark.parametrize(
    "source",
    [
        "import bridgekit.chain",
        "from bridgekit.chain import LINKS",
        "from bridgekit import chain",
        "def late():\n    import bridgekit.chain",
    ],
)
def test_upward_import_is_found(source: str) -> None:
    imports = imports_between({"bridgekit": "", "bridgekit.ids": source, "bridgekit.chain": ""})
    assert upward_imports(imports) == ["bridgekit.ids (layer 0) imports bridgekit.chain (layer 3)"]


def test_import_of_an_earlier_link_is_found() -> None:
    imports = {
        "bridgekit.chain.link_6_base_agent": {"bridgekit.chain.link_7_8_adapter"},
        "bridgekit.chain.link_7_8_adapter": {"bridgekit.chain.link_6_base_agent", "bridgekit.chain.link_9_bridge"},
        "bridgekit.chain.link_9_bridge": {"bridgekit_verify.as_committed"},
        "bridgekit_verify.as_committed": {"bridgekit.chain.link_6_base_agent"},
    }
    assert backward_links(imports) == [
        "bridgekit.chain.link_7_8_adapter imports bridgekit.chain.link_6_base_agent",
        "bridgekit.chain.link_9_bridge imports bridgekit_verify.as_committed",
    ]


def test_import_cycle_is_found() -> None:
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == ["a", "b", "c"]


def test_imports_within_functions_are_found() -> None:
    assert outside_imports("def go():\n    from anyio.abc import Event\nimport json") == {"anyio", "json"}
