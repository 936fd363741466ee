"""Mutation testing: are the tests of the measuring's thinking parts strict enough to notice a small mistake in them?

One mistake at a time is put into a copy of the package, and the module's own fast tests are run. A mutant that they
let live is a gap in the tests, or changes nothing that can be seen; the latter are explained in
`tools/mutants_explained.toml`. Exit 1 where a survivor is not explained, or an explanation has no survivor any more.
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

# Imported before the trials fork from this process, so that no trial waits for it. Never the package itself.
import anyio  # noqa: F401
import hypothesis.strategies  # noqa: F401
import msgspec  # noqa: F401
import prometheus_client  # noqa: F401
import pytest
import starlette.applications
import starlette.websockets  # noqa: F401
import uvicorn.server  # noqa: F401
import websockets.asyncio.client  # noqa: F401

from tools.mutants import Mutant, mutants

ROOT: Final = Path(__file__).parents[1]
EXPLAINED: Final = ROOT / "tools" / "mutants_explained.toml"
RESULT: Final = ROOT / "docs" / "mutation.md"
COPIED: Final = ("bridgekit", "bridgekit_verify", "tests", "pyproject.toml")

TRIAL_SECONDS: Final = 60.0
"""A trial that takes longer has been made to run for ever: its mutant is noticed."""

PLUGINS: Final = [
    argument
    for name in (
        "anyio.pytest_plugin",
        "_hypothesis_pytestplugin",
        "no:cacheprovider",
        "no:unraisableexception",  # it collects garbage, which takes longer than most trials
    )
    for argument in ("-p", name)
]


@dataclass(frozen=True, slots=True)
class Target:
    """A module that is mutated, and its fast tests, quickest first; both as paths from the checkout's root."""

    path: str
    tests: tuple[str, ...]


def _measuring(module: str, *tests: str) -> Target:
    return Target(f"bridgekit_verify/measure/{module}.py", tuple(f"tests/verify/measure/{name}.py" for name in tests))


def _invariant(module: str) -> Target:
    names = (
        "invariants/test_invariants",
        "invariants/test_invariants_of_streams",
        "verify/measure/test_small_mistakes",
    )
    return Target(
        f"bridgekit/invariants/{module}.py",
        tuple(f"tests/{name}.py" for name in (*names, "invariants/test_invariants_properties")),
    )


TARGETS: Final[Mapping[str, Target]] = {
    "statistics": _measuring("statistics", "test_statistics"),
    "history": _measuring("history", "test_ledger", "test_checker"),
    "attribution": _measuring("attribution", "test_attribution", "test_ledger"),
    "ledger": _measuring("ledger", "test_ledger", "test_checker", "test_attribution"),
    "checker": _measuring("checker", "test_checker", "test_ledger", "test_checker_properties"),
    "rules": _invariant("rules"),
    "reports": _invariant("reports"),
}
"""The modules that only think, by a short name."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A mutant of a module, or none, to see that the tests pass without."""

    module: str
    mutant: Mutant | None


@dataclass(frozen=True, slots=True)
class DeliveryCounters:
    """What became of one module's mutants."""

    planted: int
    survivors: tuple[Mutant, ...]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("modules", nargs="*", help=f"of {', '.join(TARGETS)}; all of them without")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    chosen = parser.parse_args()
    modules: list[str] = chosen.modules or list(TARGETS)
    started = time.monotonic()
    gc.freeze()
    with tempfile.TemporaryDirectory() as scratch:
        copies = [_copied(Path(scratch) / f"{number}") for number in range(chosen.jobs)]
        for module in modules:
            if not _passes(copies[0], module):
                sys.exit(f"{module}: its tests fail without a mutant")
        tallies = _tallied(modules, list(_survivors(copies, list(_trials(modules)))))
    explained = read_explanations(EXPLAINED.read_text(encoding="utf-8"))
    open_ends = unsettled(tallies, explained)
    print(*open_ends, sep="\n")
    print(f"{sum(t.planted for t in tallies.values())} mutants in {time.monotonic() - started:.0f} s")
    if open_ends:
        sys.exit(f"{len(open_ends)} to be explained, or tested")
    if set(modules) == set(TARGETS):
        RESULT.write_text(told(tallies, explained), encoding="utf-8")


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
    """Try them all, as many at a time as there are copies, and give those whose tests passed all the same."""
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
                yield trial


def _try(copy: Path, trial: Trial) -> None:
    """In a process of its own: exit 0 where the module's tests pass in that copy, with the mutant put in."""
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 1)
    os.dup2(sink, 2)
    path, original = _path(copy, trial.module), _path(ROOT, trial.module).read_text(encoding="utf-8")
    path.write_text(trial.mutant.source if trial.mutant else original, encoding="utf-8")
    # Only what was never mutated is compiled to a file, in the first trials, which have no mutant.
    sys.dont_write_bytecode = trial.mutant is not None
    os.chdir(copy)
    sys.path.insert(0, str(copy))
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    passed = pytest.main(["-x", "-q", "--hypothesis-seed=0", *PLUGINS, *TARGETS[trial.module].tests])
    inside = _imported_from(copy, TARGETS[trial.module].path)
    path.write_text(original, encoding="utf-8")
    os._exit(0 if passed == pytest.ExitCode.OK and inside else 1)


def _imported_from(copy: Path, path: str) -> bool:
    """Whether the tests ran that copy of the module, and no other that is installed."""
    name = path.removesuffix(".py").replace("/", ".")
    return str(sys.modules[name].__file__).startswith(str(copy))


def _tallied(modules: Sequence[str], survived: Sequence[Trial]) -> dict[str, DeliveryCounters]:
    planted = [trial.module for trial in _trials(modules)]
    return {
        module: DeliveryCounters(
            planted.count(module),
            tuple(trial.mutant for trial in survived if trial.module == module and trial.mutant),
        )
        for module in modules
    }


def read_explanations(text: str) -> dict[str, dict[str, str]]:
    """Why an edit changes nothing that can be seen: by module and edit."""
    return {
        module: {entry["edit"]: " ".join(entry["why"].split()) for entry in entries}
        for module, entries in tomllib.loads(text).items()
    }


def unsettled(tallies: Mapping[str, DeliveryCounters], explained: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Survivors without an explanation, and explanations without a survivor."""
    found = []
    for module, counters in tallies.items():
        reasons = explained.get(module, {})
        edits = {mutant.edit for mutant in counters.survivors}
        found += [f"{module}.py:{m.line}: survived: {m.edit}" for m in counters.survivors if m.edit not in reasons]
        found += [f"{module}: explained, and no survivor: {edit}" for edit in reasons if edit not in edits]
    return found


def told(tallies: Mapping[str, DeliveryCounters], explained: Mapping[str, Mapping[str, str]]) -> str:
    lines = [
        "# Mutation: would the tests notice?",
        "",
        "Written by `make mutation`, which puts one small mistake at a time into those modules of",
        "`bridgekit/invariants/` and `bridgekit_verify/measure/` that only think (a comparison turned, a number off by",
        "one, `and` for `or`, a `not` or a statement dropped, a",
        "constant changed) and runs each module's fast tests. A mutant *survives* when they all pass.",
        "The modules are those on which a verdict rests: from history to checker, and the invariants of streams. What",
        "reads frames, draws, tries links or runs studies is left out, so that a run takes minutes.",
        "",
        "| module | mutants | noticed | survived, and explained below |",
        "|---|---|---|---|",
    ]
    rows = [(module, t.planted, t.planted - len(t.survivors), len(t.survivors)) for module, t in tallies.items()]
    rows.append(("all", *(sum(column) for column in list(zip(*rows, strict=True))[1:])))
    lines += [f"| {module} | {planted} | {noticed} | {lived} |" for module, planted, noticed, lived in rows]
    lines += ["", "No survivor is unexplained: `make mutation` fails where one is, and where an explanation is stale."]
    for module, reasons in explained.items():
        lines += ["", f"## {module}", ""]
        lines += [f"- `{edit}`  \n  {reason}" for edit, reason in reasons.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
