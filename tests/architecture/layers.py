"""The layers of the packages, and the imports that break them: pure functions from source to violation."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

PACKAGE = "bridgekit"
VERIFY = "bridgekit_verify"
PACKAGES = (PACKAGE, VERIFY)

# By package, the name that follows it. A module imports from its own layer or a lower one. bridgekit imports nothing
# from bridgekit_verify.
LAYERS = {
    PACKAGE: {
        "ids": 0, "payload_encoding": 0, "event_types": 0, "events": 0, "errors": 0, "counters": 0,
        "cursors_and_gaps": 0,
        "mapping": 1, "thread_resolvers": 1,
        "transport": 2, "stores": 2,
        "chain": 3,
        "invariants": 4,
        "": 5, "__main__": 5, "serve": 5, "pytest_plugin": 5, "testing": 5,
    },
    VERIFY: {
        "": 6, "errors": 6,
        "as_committed": 7, "audited_routing": 7, "links": 7, "variants": 7, "repairs": 7, "harness": 7,
        "measure": 8,
        "faults": 9, "probes": 9, "validation": 9,
        "capacity": 10, "check": 10, "studies": 10,
        "report": 11,
        "commands": 12,
    },
}  # fmt: skip

LINK = re.compile(rf"{PACKAGE}\.chain\.link_(\d)(?:_(\d))?_")
DEFECTS = f"{VERIFY}.as_committed"

Imports = Mapping[str, set[str]]


def read_sources(root: Path) -> dict[str, str]:
    """Return the source of each module by name. The name of a package stands for its `__init__`."""
    found = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts).removesuffix(".__init__")] = path.read_text(encoding="utf-8")
    return found


def imports_between(sources: Mapping[str, str]) -> dict[str, set[str]]:
    """Return by module which modules of the two packages it imports, in functions as well."""
    return {name: own_imports(source, set(sources)) - {name} for name, source in sources.items()}


def own_imports(source: str, modules: set[str]) -> set[str]:
    named = set(imported_names(source))
    # `from bridgekit.ids import RunId` names bridgekit.ids.RunId. That is not a module, so its parent is imported.
    parents = {name.rpartition(".")[0] for name in named - modules}
    return (named | parents) & modules


def imported_names(source: str) -> Iterator[str]:
    """Yield each import as `module` or `module.name`. Lint forbids relative imports."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def outside_imports(source: str) -> set[str]:
    """Return the top-level names of all imports: `anyio`, `collections`, `bridgekit`."""
    return {name.split(".")[0] for name in imported_names(source)}


def layer_of(module: str) -> int | None:
    package, _, inside = module.partition(".")
    return LAYERS[package].get(inside.partition(".")[0])


def modules_without_a_layer(imports: Imports) -> list[str]:
    return [module for module in imports if layer_of(module) is None]


def upward_imports(imports: Imports) -> list[str]:
    return [
        f"{module} (layer {layer_of(module)}) imports {other} (layer {layer_of(other)})"
        for module, others in sorted(imports.items())
        for other in sorted(others)
        if (layer_of(other) or 0) > (layer_of(module) or 0)
    ]


def backward_links(imports: Imports) -> list[str]:
    """Return imports of an earlier link, or of the module with the defects, by a link."""
    return [
        f"{module} imports {other}"
        for module, others in sorted(imports.items())
        if (own := links_in(module))
        for other in sorted(others)
        if other == DEFECTS or ((theirs := links_in(other)) and min(theirs) <= max(own))
    ]


def links_in(module: str) -> list[int]:
    match = LINK.match(module)
    return [int(digit) for digit in match.groups() if digit] if match else []


def cycles(imports: Imports) -> list[str]:
    """Return the modules that are part of an import cycle, or that import one that is."""
    left = {module: set(others) for module, others in imports.items()}
    while leaves := {module for module, others in left.items() if not others & left.keys()}:
        left = {module: others for module, others in left.items() if module not in leaves}
    return sorted(left)
