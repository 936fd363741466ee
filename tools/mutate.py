"""Mutation testing: check that the fast tests detect small mistakes in the modules that decide what is reported.

The modules are the pure measuring modules, the modules that compute the report's verdicts, and the links of the chain.

Each mutant is written to a copy of the package, and the fast tests of its module run. A mutant that survives shows a
gap in the tests, or has no observable effect. `tools/mutants_explained.toml` explains mutants without an effect. The
exit code is 1 if a survivor has no explanation, or an explanation has no survivor.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing as mp
import os
import shutil
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Final

# Imported before the trials are forked, so that no trial has to import them. The package itself must not be imported.
import anyio  # noqa: F401
import bs4  # noqa: F401
import hypothesis.strategies  # noqa: F401
import jinja2  # noqa: F401
import matplotlib.figure  # noqa: F401
import mistune  # noqa: F401
import msgspec  # noqa: F401
import nbconvert.filters.highlight  # noqa: F401
import nbformat  # noqa: F401
import pandas as pd  # noqa: F401
import prometheus_client  # noqa: F401
import pytest
import starlette.applications
import starlette.websockets  # noqa: F401
import uvicorn.server  # noqa: F401
import websockets.asyncio.client  # noqa: F401

from tools.mutants import Mutant, mutants

ROOT: Final = Path(__file__).parents[1]
EXPLAINED: Final = ROOT / "tools" / "mutants_explained.toml"
RESULT: Final = ROOT / "docs" / "results" / "mutation.md"
COPIED: Final = ("bridgekit", "bridgekit_verify", "tests", "pyproject.toml")

TRIAL_SECONDS: Final = 60.0
"""A trial that takes longer counts as an infinite loop, so its mutant counts as detected."""

PLUGINS: Final = [
    argument
    for name in (
        "anyio.pytest_plugin",
        "_hypothesis_pytestplugin",
        "no:cacheprovider",
        "no:unraisableexception",  # this plugin's garbage collection takes longer than most trials
    )
    for argument in ("-p", name)
]


@dataclass(frozen=True, slots=True)
class Target:
    """A module to mutate and its fast tests, fastest first, as paths relative to the checkout."""

    path: str
    tests: tuple[str, ...]


def _measuring(module: str, *tests: str) -> Target:
    return Target(f"bridgekit_verify/measure/{module}.py", tuple(f"tests/verify/measure/{name}.py" for name in tests))


def _invariant(module: str) -> Target:
    names = (
        "invariants/test_invariants",
        "invariants/test_invariants_of_streams",
        "invariants/test_invariants_edge_cases",
    )
    return Target(
        f"bridgekit/invariants/{module}.py",
        tuple(f"tests/{name}.py" for name in (*names, "invariants/test_invariants_properties")),
    )


def _reporting(module: str, *tests: str) -> Target:
    return Target(f"bridgekit_verify/report/{module}.py", tuple(f"tests/verify/report/{name}.py" for name in tests))


def _link(module: str, *tests: str) -> Target:
    return Target(f"bridgekit/chain/{module}.py", tuple(f"tests/chain/{name}.py" for name in tests))


TARGETS: Final[Mapping[str, Target]] = {
    "statistics": _measuring("statistics", "test_statistics"),
    "history": _measuring("history", "test_ledger", "test_checker"),
    "attribution": _measuring("attribution", "test_attribution", "test_ledger"),
    "ledger": _measuring("ledger", "test_ledger", "test_checker", "test_attribution"),
    "checker": _measuring("checker", "test_checker", "test_ledger", "test_checker_properties"),
    "rules": _invariant("rules"),
    "reports": _invariant("reports"),
    "judging": _reporting("judging", "test_judging", "test_first_screen"),
    "results": _reporting("results", "test_results", "test_first_screen"),
    "drop_rates": _reporting("drop_rates", "test_summary", "test_first_screen"),
    "summary": _reporting("summary", "test_summary", "test_first_screen"),
    "chart": _reporting("chart", "test_summary", "test_first_screen"),
    "priorities": _reporting("priorities", "test_summary"),
    "claims": _reporting("claims", "test_claims"),
    "promised_effects": _reporting("promised_effects", "test_promised_effects"),
    "link_1": _link("link_1_startup", "test_link_1_startup", "test_owners", "test_closing"),
    "link_2": _link("link_2_supervisor_agent", "test_link_2_supervisor_agent", "test_owners", "test_closing"),
    "link_3": _link("link_3_registry", "test_links_3_to_6"),
    "link_4": _link("link_4_engine", "test_links_3_to_6"),
    "link_5": _link("link_5_execution_core", "test_links_3_to_6"),
    "link_6": _link("link_6_base_agent", "test_links_3_to_6"),
    "links_7_and_8": _link("link_7_8_adapter", "test_links_7_to_9", "test_links_3_to_6"),
    "link_9": _link("link_9_bridge", "test_links_7_to_9"),
}
"""The modules by short name."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A mutant of a module. The mutant is None to check that the tests pass without one."""

    module: str
    mutant: Mutant | None


@dataclass(frozen=True, slots=True)
class MutationCounts:
    """The number of mutants of a module, and the mutants that survived."""

    total: int
    survivors: tuple[Mutant, ...]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("modules", nargs="*", help=f"modules to test, of {', '.join(TARGETS)} (default: all)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    chosen = parser.parse_args()
    modules: list[str] = chosen.modules or list(TARGETS)
    started = time.monotonic()
    gc.freeze()
    with tempfile.TemporaryDirectory() as scratch:
        copies = [_copied(Path(scratch) / f"{number}") for number in range(chosen.jobs)]
        for module in modules:
            if not _passes(copies[0], module):
                sys.exit(f"{module}: its tests fail without a mutant; fix them first")
        counts_by_module = _count_by_module(modules, list(_survivors(copies, list(_trials(modules)))))
    explained = read_explanations(EXPLAINED.read_text(encoding="utf-8"))
    problems = inconsistencies(counts_by_module, explained)
    print(*problems, sep="\n")
    print(f"{sum(t.total for t in counts_by_module.values())} mutants in {time.monotonic() - started:.0f} s")
    if problems:
        sys.exit(f"{len(problems)} inconsistencies: add a test, or correct the explanations")
    if set(modules) == set(TARGETS):
        RESULT.write_text(result_page(counts_by_module, explained), encoding="utf-8")


def _copied(where: Path) -> Path:
    where.mkdir()
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, where / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(ROOT / name, where / name)
    return where


def _path(root: Path, module: str) -> Path:
    return root / TARGETS[module].path


def _trials(modules: Sequence[str]) -> Iterator[Trial]:
    for module in modules:
        for mutant in mutants(_path(ROOT, module).read_text(encoding="utf-8")):
            yield Trial(module, mutant)


def _passes(copy: Path, module: str) -> bool:
    process = mp.get_context("fork").Process(target=_try, args=(copy, Trial(module, None)))
    process.start()
    process.join(TRIAL_SECONDS)
    return process.exitcode == 0


def _survivors(copies: Sequence[Path], trials: Sequence[Trial]) -> Iterator[Trial]:
    """Run all trials, one at a time for each copy, and yield those whose tests passed."""
    context, free, left = mp.get_context("fork"), list(copies), list(reversed(trials))
    running: dict[int, tuple[ForkProcess, Trial, Path, float]] = {}
    while left or running:
        while left and free:
            trial, copy = left.pop(), free.pop()
            process = context.Process(target=_try, args=(copy, trial))
            process.start()
            running[process.sentinel] = (process, trial, copy, time.monotonic() + TRIAL_SECONDS)
        wait(list(running), timeout=1)
        for sentinel, (process, trial, copy, deadline) in list(running.items()):
            if process.is_alive() and time.monotonic() < deadline:
                continue
            process.kill()
            process.join()
            free.append(copy)
            del running[sentinel]
            if process.exitcode == 0:
                print(f"{trial.module}: survived: {trial.mutant.edit if trial.mutant else 'no mutant'}", flush=True)
                yield trial


def _try(copy: Path, trial: Trial) -> None:
    """Run the tests of a module in a copy with the mutant, in a forked process. Exit 0 if they pass."""
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 1)
    os.dup2(sink, 2)
    path, original = _path(copy, trial.module), _path(ROOT, trial.module).read_text(encoding="utf-8")
    path.write_text(trial.mutant.source if trial.mutant else original, encoding="utf-8")
    # Bytecode is written only in the first trials, which have no mutant.
    sys.dont_write_bytecode = trial.mutant is not None
    os.chdir(copy)
    sys.path.insert(0, str(copy))
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    passed = pytest.main(["-x", "-q", "--hypothesis-seed=0", *PLUGINS, *TARGETS[trial.module].tests])
    inside = _imported_from(copy, TARGETS[trial.module].path)
    path.write_text(original, encoding="utf-8")
    os._exit(0 if passed == pytest.ExitCode.OK and inside else 1)


def _imported_from(copy: Path, path: str) -> bool:
    """Return whether the tests imported this copy of the module and not an installed one."""
    name = path.removesuffix(".py").replace("/", ".")
    return str(sys.modules[name].__file__).startswith(str(copy))


def _count_by_module(modules: Sequence[str], survived: Sequence[Trial]) -> dict[str, MutationCounts]:
    total = [trial.module for trial in _trials(modules)]
    return {
        module: MutationCounts(
            total.count(module),
            tuple(trial.mutant for trial in survived if trial.module == module and trial.mutant),
        )
        for module in modules
    }


def read_explanations(text: str) -> dict[str, dict[str, str]]:
    """Return the explanations of survivors by module and edit."""
    return {
        module: {entry["edit"]: " ".join(entry["why"].split()) for entry in entries}
        for module, entries in tomllib.loads(text).items()
    }


def inconsistencies(
    counts_by_module: Mapping[str, MutationCounts], explained: Mapping[str, Mapping[str, str]]
) -> list[str]:
    """Return survivors without an explanation and explanations without a survivor."""
    found = []
    for module, counters in counts_by_module.items():
        reasons = explained.get(module, {})
        edits = {mutant.edit for mutant in counters.survivors}
        found += [f"{module}.py:{m.line}: survived: {m.edit}" for m in counters.survivors if m.edit not in reasons]
        found += [f"{module}: explained, but no survivor: {edit}" for edit in reasons if edit not in edits]
    return found


def result_page(counts_by_module: Mapping[str, MutationCounts], explained: Mapping[str, Mapping[str, str]]) -> str:
    lines = [
        "# Mutation testing of what decides a verdict, and of the links",
        "",
        "Written by `make mutation`, which makes one small change at a time in a module (a comparison is changed, a",
        "number is off by one, `and` becomes `or`, a `not` or a statement is removed, a constant is changed) and runs",
        "the module's tests. A mutant *survives* if all tests pass. The modules are those that determine a verdict",
        "(from history to checker, the invariants of streams, and the report's claims, judgements and results) and the",
        "links of the chain. Modules that read frames, draw figures, test links or run studies are left out, so that a",
        "run takes less than 30 minutes.",
        "",
        "| module | mutants | detected | survived, and explained below |",
        "|---|---|---|---|",
    ]
    rows = [(module, t.total, t.total - len(t.survivors), len(t.survivors)) for module, t in counts_by_module.items()]
    rows.append(("all", *(sum(column) for column in list(zip(*rows, strict=True))[1:])))
    lines += [f"| {module} | {total} | {detected} | {survived} |" for module, total, detected, survived in rows]
    lines += ["", "Every survivor is explained: `make mutation` fails otherwise, and for a stale explanation."]
    for module, reasons in explained.items():
        lines += ["", f"## {module}", ""]
        lines += [f"- `{edit}`  \n  {reason}" for edit, reason in reasons.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
