"""Mutation testing: check that the fast tests detect small mistakes in the modules that decide what is reported.

The tested modules are measuring modules without I/O, invariants of streams, modules that compute the report's verdicts,
and the links of the chain.

A mutant that no test detects ("survivor") shows a gap in the tests, or has no observable effect.
`tools/mutants_explained.toml` explains mutants without an effect. The exit code is 1 if a survivor has no explanation,
or an explanation has no survivor. `tools/trials.py` runs the tests.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

# These packages are imported before any trial is forked, so that no trial has to import them. The mutated packages must
# not be imported here.
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
import starlette.applications
import starlette.websockets  # noqa: F401
import uvicorn.server  # noqa: F401
import websockets.asyncio.client  # noqa: F401

from tools.mutants import Mutant, mutants
from tools.trials import Target, TestsFail, surviving

ROOT: Final = Path(__file__).parents[1]
EXPLAINED: Final = ROOT / "tools" / "mutants_explained.toml"
RESULT: Final = ROOT / "docs" / "results" / "mutation.md"


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
    names = (*tests, "test_link_1_startup")
    return Target(f"bridgekit/chain/{module}.py", tuple(f"tests/chain/{name}.py" for name in dict.fromkeys(names)))


TARGETS: Final[Mapping[str, Target]] = {
    "statistics": _measuring("statistics", "test_statistics"),
    "history": _measuring("history", "test_ledger", "test_checker"),
    "attribution": _measuring("attribution", "test_attribution", "test_ledger"),
    "ledger": _measuring("ledger", "test_ledger", "test_checker", "test_attribution"),
    "checker": _measuring("checker", "test_checker", "test_ledger", "test_checker_properties", "test_identities"),
    "rules": _invariant("rules"),
    "reports": _invariant("reports"),
    "grouped_findings": _reporting(
        "grouped_findings", "test_grouped_findings", "test_data_contract", "test_first_screen"
    ),
    "result_files": _reporting("result_files", "test_result_files", "test_data_contract", "test_first_screen"),
    "drop_tables": _reporting("drop_tables", "test_summary", "test_data_contract", "test_first_screen"),
    "summary": _reporting("summary", "test_summary", "test_data_contract", "test_first_screen"),
    "drop_chart": _reporting("drop_chart", "test_summary", "test_data_contract", "test_first_screen"),
    "priorities": _reporting("priorities", "test_priorities", "test_summary"),
    # A cold trial runs the tests in this order. The tests of the first file need no server.
    "claims": _reporting("claims", "test_wording_of_claims", "test_claims"),
    "promised_effects": _reporting("promised_effects", "test_wording_of_promises", "test_promised_effects"),
    "link_1": _link("link_1_startup", "test_lifespan", "test_startup_choices", "test_owners", "test_closing"),
    "link_2": _link(
        "link_2_supervisor_agent",
        "test_supervisor_records",
        "test_link_2_supervisor_agent",
        "test_owners",
        "test_closing",
        "test_threads_of_runs",
    ),
    "link_3": _link("link_3_registry", "test_links_3_to_6", "test_startup_choices"),
    "link_4": _link("link_4_engine", "test_links_3_to_6", "test_startup_choices"),
    "link_5": _link("link_5_execution_core", "test_end_events", "test_links_3_to_6", "test_endings"),
    "link_6": _link("link_6_base_agent", "test_adapter_choices", "test_links_3_to_6", "test_endings"),
    "links_7_and_8": _link(
        "link_7_8_adapter", "test_adapter_choices", "test_links_7_to_9", "test_links_3_to_6", "test_endings"
    ),
    "link_9": _link(
        "link_9_bridge", "test_links_7_to_9", "test_bridge_choices", "test_startup_choices", "test_error_text"
    ),
}
"""The tested modules by short name."""


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
    try:
        counts_by_module = {module: _counts(module, chosen.jobs) for module in modules}
    except TestsFail as error:
        sys.exit(str(error))
    explained = read_explanations(EXPLAINED.read_text(encoding="utf-8"))
    problems = inconsistencies(counts_by_module, explained)
    print(*problems, sep="\n")
    total, cpu = sum(each.total for each in counts_by_module.values()), sum(os.times()[:4])
    print(f"{total} mutants in {time.monotonic() - started:.0f} s, with {cpu:.0f} s of processor time")
    if set(modules) == set(TARGETS):
        RESULT.write_text(result_page(counts_by_module, explained), encoding="utf-8")
    if problems:
        sys.exit(f"{len(problems)} inconsistencies: add a test, or correct the explanations")


def _counts(module: str, jobs: int) -> MutationCounts:
    started, target = time.monotonic(), TARGETS[module]
    all_of = list(mutants(target.file.read_text(encoding="utf-8")))
    survivors = surviving(target, all_of, jobs=jobs)
    seconds = time.monotonic() - started
    print(f"{module}: {len(all_of)} mutants, {len(survivors)} survived, {seconds:.0f} s", flush=True)
    for mutant in survivors:
        print(f"  {target.path}:{mutant.line}: {mutant.edit}", flush=True)
    return MutationCounts(len(all_of), tuple(survivors))


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
        "links of the chain. Modules that read frames, draw figures, test links or run studies are left out.",
        "",
        "| module | mutants | detected | survived, and explained | survived, not explained |",
        "|---|---|---|---|---|",
    ]
    rows = [(module, *_row(counts, explained.get(module, {}))) for module, counts in counts_by_module.items()]
    rows.append(("all", *(sum(column) for column in list(zip(*rows, strict=True))[1:])))
    lines += [f"| {' | '.join(map(str, row))} |" for row in rows]
    lines += [
        "",
        "An explained survivor has no effect that a test can observe. One that is not explained is a gap in the",
    ]
    lines += ["tests: `make mutation` then fails, as it does for an explanation without a survivor."]
    for module, counts in counts_by_module.items():
        reasons = explained.get(module, {})
        if counts.survivors:
            lines += ["", f"## {module}", ""]
        lines += [f"- `{each.edit}`  \n  {reasons.get(each.edit, 'Not explained.')}" for each in counts.survivors]
    return "\n".join(lines) + "\n"


def _row(counts: MutationCounts, reasons: Mapping[str, str]) -> tuple[int, int, int, int]:
    survived, known = len(counts.survivors), sum(each.edit in reasons for each in counts.survivors)
    return counts.total, counts.total - survived, known, survived - known


if __name__ == "__main__":
    main()
