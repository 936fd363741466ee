"""`bridgekit report`: execute the notebooks and write the report."""

from __future__ import annotations

import argparse
import signal
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Final

import msgspec

from bridgekit_verify.commands.options import add_json, at_least_1, whole

if TYPE_CHECKING:
    from bridgekit_verify.report.building import BuiltReport

__all__ = ["add_arguments", "run", "stopped_by_signals"]

INCOMPLETE = 1
STOPPING_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
CLEAN_UP_SECONDS: Final = 15.0
"""How long further signals are ignored: longer than kernels take to end."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Execute every notebook with real sockets and write the results to one HTML file. Exit with 1 if a notebook"
        " failed, with 2 if no report could be written, and with 130 if a signal stopped the command."
    )
    add_json(parser)
    parser.add_argument(
        "--notebooks", type=Path, default=Path("notebooks"), help="folder with the notebooks (default notebooks)"
    )
    parser.add_argument("--out", type=_folder, default=Path("report"), help="folder to write to (default report)")
    parser.add_argument(
        "--jobs", type=at_least_1, default=3, help="number of notebooks that run at the same time (default 3)"
    )
    parser.add_argument("--seed", type=whole, help="value of SEED in the notebooks (default: as in the notebooks)")
    parser.add_argument(
        "--threads", type=at_least_1, help="value of THREADS in the notebooks (default: as in the notebooks)"
    )
    parser.add_argument("--runs", type=at_least_1, help="value of RUNS in the notebooks (default: as in the notebooks)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="set any other parameter of the notebooks"
    )
    parser.add_argument(
        "--from-executed", type=Path, metavar="DIR", help="build the report from notebooks that were already executed"
    )


def _folder(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("must name a folder, and is empty")
    return Path(text)


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Raise KeyboardInterrupt in the block on a signal to stop, and ignore further ones for CLEAN_UP_SECONDS.

    Without a handler, SIGTERM would leave the kernels and the temporary folders behind.
    """
    before = {each: signal.getsignal(each) for each in STOPPING_SIGNALS}
    handled = [each for each in STOPPING_SIGNALS if before[each] != signal.SIG_IGN]

    ignored_until = 0.0

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal ignored_until
        if (now := time.monotonic()) >= ignored_until:
            ignored_until = now + CLEAN_UP_SECONDS
            # The error may be raised after Jupyter has created a coroutine, and before Jupyter awaits it.
            warnings.filterwarnings("ignore", r"coroutine '.*' was never awaited", RuntimeWarning)
            raise KeyboardInterrupt

    try:
        for each in handled:
            signal.signal(each, stop)
        yield
    finally:
        for each in handled:
            signal.signal(each, before[each])


def run(options: argparse.Namespace) -> int:
    with stopped_by_signals():
        return _run(options)


def _run(options: argparse.Namespace) -> int:
    # nbformat imports jsonschema, which imports rfc3987-syntax if it is installed (JupyterLab requires it). That takes
    # a second, in which no notebook runs. It checks a format that no notebook has. With None, its import fails.
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
    from bridgekit_verify.report.building import build_from_executed, build_report  # here: it loads Jupyter
    from bridgekit_verify.report.parameters import parse_settings

    if options.from_executed:
        _refuse_parameters(options)
        built = build_from_executed(options.from_executed, options.out)
    else:
        names = {"SEED": options.seed, "THREADS": options.threads, "RUNS": options.runs}
        given = [f"{name}={value}" for name, value in names.items() if value is not None]
        built = build_report(
            options.notebooks,
            options.out,
            jobs=options.jobs,
            parameters=parse_settings([*given, *options.set]),
            log=lambda line: print(line, file=sys.stderr if options.json else sys.stdout, flush=True),
        )
    print(_as_json(built) if options.json else _as_text(built))
    return 0 if built.complete else INCOMPLETE


def _refuse_parameters(options: argparse.Namespace) -> None:
    """Raise ParameterError if a parameter is set, because notebooks that were already executed cannot change."""
    from bridgekit_verify.report.parameters import ParameterError

    given = [f"--{name}" for name in ("seed", "threads", "runs", "set") if getattr(options, name) not in (None, [])]
    if given:
        verb = "has" if len(given) == 1 else "have"
        raise ParameterError(
            f"{', '.join(given)} {verb} no effect on notebooks that were already executed: leave out --from-executed,"
            " or execute the notebooks with other parameters first"
        )


def _as_json(built: BuiltReport) -> str:
    return msgspec.json.encode(
        {
            "complete": built.complete,
            "page": str(built.page),
            "csv": str(built.csv),
            "json": str(built.json),
            "headline": built.headline,
            "failures": built.failures,
        }
    ).decode()


def _as_text(built: BuiltReport) -> str:
    files = "\n".join(f"  {path}" for path in (built.page, built.csv, built.json))
    failures = "".join(f"\nfailed: {failure}" for failure in built.failures)
    return "\n".join(("", *built.headline, "", "report:", files)) + failures
