"""The command line: `python -m benchmarks`, which `make bench` and `make bench-quick` call."""

from __future__ import annotations

import argparse
import asyncio
import sys
from dataclasses import replace
from pathlib import Path

from benchmarks import page
from benchmarks.plan_execution import run_plan
from benchmarks.plans import FULL, QUICK, Plan
from benchmarks.results import Results, read, target_table, throughput_table, write

RESULTS = Path(__file__).parent / "results.json"
FIGURES = Path("docs/results/bench")


def main() -> int:
    """Run the benchmarks. Return 1 if a stack delivered wrong events, else 0, even if targets are not met."""
    options = _parser().parse_args()
    found = read(options.from_results) if options.from_results else asyncio.run(run_plan(_plan(options)))
    if options.out and not options.from_results:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        write(found, options.out)
        print(f"{options.out} written\n")
    print(_format_results(found))
    if options.figures:
        from benchmarks.figures import draw  # imported here, because runs without figures do not need matplotlib

        for path in (*draw(found, options.figures), page.write(found, options.figures)):
            print(f"{path} written")
    return 1 if any(why.startswith("WrongAnswer") for why in found.missing.values()) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="run for about a minute, which checks every target")
    parser.add_argument("--rounds", type=int, help="number of rounds for each stack")
    parser.add_argument("--events", type=int, help="number of events over which memory must stay constant")
    parser.add_argument("--out", type=Path, help=f"write the results to this file, such as {RESULTS.name}")
    parser.add_argument("--figures", type=Path, help=f"folder for the figures and the page, such as {FIGURES}")
    parser.add_argument(
        "--from-results", type=Path, metavar="FILE", help="show the results in this file, without measuring"
    )
    return parser


def _plan(options: argparse.Namespace) -> Plan:
    plan = QUICK if options.quick else FULL
    if options.rounds:
        plan = replace(plan, rounds=options.rounds)
    if options.events:
        plan = replace(plan, flat_events=options.events)
    return plan


def _format_results(found: Results) -> str:
    where = ", ".join(f"{what} {value}" for what, value in found.machine.items())
    versions = ", ".join(f"{name} {version}" for name, version in found.versions.items())
    return "\n".join(
        (
            f"{where}\n{versions}\n{found.made:%Y-%m-%d %H:%M} UTC, plan {found.plan}, {found.minutes} minutes\n",
            throughput_table(found),
            "",
            target_table(found),
        )
    )


if __name__ == "__main__":
    sys.exit(main())
