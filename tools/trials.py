"""Run a module's tests on each of its mutants, in forked processes.

A *warm* trial forks a process that has collected the tests, and puts the mutant's code into the functions of the new
process. The tests that execute the changed line run first, the fastest ones first, up to the first failure. A *cold*
trial imports everything after the change. Cold trials test the mutants of code that is executed during the import.
They also test each mutant that survives a warm trial, because a value that was computed during the import may hide it.
"""

from __future__ import annotations

import gc
import importlib.util
import math
import multiprocessing as mp
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, SourceFileLoader
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import Any, Final

import pytest

from tools.function_code import changed_functions
from tools.mutants import Mutant

__all__ = ["Target", "TestsFail", "surviving"]

ROOT: Final = Path(__file__).parents[1]
LIMIT_SECONDS: Final = 180.0
"""A cold trial that takes longer than 180 s counts as an infinite loop, so its mutant counts as detected."""
MEASURED_ONCE: Final = "tests.verify.report.measured_once"
"""The module whose measurements are made once, before warm trials fork. A mutant that changes a measurement needs a
cold trial."""
TEST_LIMIT_SECONDS: Final = 5.0
"""A test of a warm trial may take this number of seconds plus ten times its duration without a mutant."""

PLUGINS: Final = [
    argument
    for name in (
        "anyio.pytest_plugin",
        "_hypothesis_pytestplugin",
        "no:cacheprovider",
        "no:unraisableexception",  # this pytest plugin's garbage collection takes longer than most trials
    )
    for argument in ("-p", name)
]


class TestsFail(Exception):
    """The tests of a module fail without a mutant."""

    __test__ = False


@dataclass(frozen=True, slots=True)
class Target:
    """A module to mutate and its fast tests, as paths relative to the checkout."""

    path: str
    tests: tuple[str, ...]

    @property
    def file(self) -> Path:
        return ROOT / self.path

    @property
    def name(self) -> str:
        return self.path.removesuffix(".py").replace("/", ".")


def surviving(target: Target, all_of: Sequence[Mutant], *, jobs: int) -> list[Mutant]:
    """Return the mutants that no test of the module detects. Raises TestsFail if a test fails without a mutant."""
    with tempfile.TemporaryDirectory() as scratch:
        receiving, sending = mp.Pipe(duplex=False)
        worker = mp.get_context("fork").Process(target=_try_warm, args=(target, all_of, jobs, scratch, sending))
        worker.start()
        sending.close()
        try:
            undecided: list[int] = receiving.recv()
        except EOFError:
            raise TestsFail(f"{target.path}: its tests fail without a mutant; fix them first") from None
        finally:
            worker.join()
        trials = [lambda source=all_of[index].source: _try_cold(target, source, scratch) for index in undecided]
        passed = dict(_in_forks(trials, jobs, LIMIT_SECONDS))
        return [all_of[index] for place, index in enumerate(undecided) if passed[place]]


def _in_forks(calls: Sequence[Callable[[], bool]], jobs: int, seconds: float) -> Iterator[tuple[int, bool]]:
    """Call each function in a separate process, and yield the function's index and whether it returned True in time."""
    context, left = mp.get_context("fork"), list(reversed(list(enumerate(calls))))
    running: dict[int, tuple[ForkProcess, int, float]] = {}
    while left or running:
        while left and len(running) < jobs:
            index, call = left.pop()
            process = context.Process(target=_exit_with, args=(call,))
            process.start()
            running[process.sentinel] = process, index, time.monotonic() + seconds
        wait(list(running), timeout=1)
        for sentinel, (process, index, deadline) in list(running.items()):
            if process.is_alive() and time.monotonic() < deadline:
                continue
            process.kill()
            process.join()
            del running[sentinel]
            yield index, process.exitcode == 0
            process.close()


def _exit_with(call: Callable[[], bool]) -> None:
    code = 1
    try:
        code = 0 if call() else 1
    finally:
        os._exit(code)


def _run_pytest(tests: Sequence[str], scratch: str, *plugins: object) -> bool:
    """Run pytest on these tests without output, and return whether they passed."""
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 1)
    os.dup2(sink, 2)
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = f"{scratch}/hypothesis"
    _use_own_temporary_directory(scratch)
    # Output is captured per process, because all forks would share the file that captures descriptors.
    arguments = ["-x", "-q", "--capture=sys", "--hypothesis-seed=0", *PLUGINS, *tests]
    return pytest.main(arguments, plugins=list(plugins)) == pytest.ExitCode.OK


def _use_own_temporary_directory(scratch: str) -> None:
    os.environ["PYTEST_DEBUG_TEMPROOT"] = tempfile.mkdtemp(dir=scratch)


class _MutantLoader(SourceFileLoader):
    """Finds and loads one module, with a mutant's source."""

    def __init__(self, target: Target, source: str) -> None:
        super().__init__(target.name, str(target.file))
        self._source = source

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        return importlib.util.spec_from_file_location(name, self.path, loader=self) if name == self.name else None

    def get_code(self, fullname: str) -> CodeType:
        return compile(self._source, self.path, "exec", dont_inherit=True)


def _try_cold(target: Target, source: str, scratch: str) -> bool:
    """Run the tests in a process that has not imported the package, and return whether they passed."""
    sys.meta_path.insert(0, _MutantLoader(target, source))
    passed = _run_pytest(target.tests, scratch)
    return passed and _is_from_checkout(target)


def _is_from_checkout(target: Target) -> bool:
    """Return whether the tests imported the module of this checkout and not an installed one."""
    return Path(str(sys.modules[target.name].__file__)) == target.file


def _try_warm(target: Target, all_of: Sequence[Mutant], jobs: int, scratch: str, undecided: Connection) -> None:
    """Send the indexes of the mutants that need a cold trial, or nothing if the tests fail without a mutant."""
    _run_pytest(target.tests, scratch, _WarmTrials(target, all_of, jobs, scratch, undecided))
    os._exit(0)


@dataclass(frozen=True, slots=True)
class _Execution:
    """How long a test took, and the lines of the module that it executed."""

    seconds: float
    lines: frozenset[int]


class _WarmTrials:
    """A pytest plugin that runs the collected tests once without a mutant, and then in a fork for each mutant.

    Mutants of code outside functions need cold trials.
    """

    def __init__(
        self, target: Target, all_of: Sequence[Mutant], jobs: int, scratch: str, undecided: Connection
    ) -> None:
        self._target = target
        self._mutants = all_of
        self._jobs = jobs
        self._scratch = scratch
        self._undecided = undecided
        self._failed = False

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._failed = self._failed or report.failed

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        if session.testsfailed or not _is_from_checkout(self._target):
            return True
        path, source = str(self._target.file), self._target.file.read_text(encoding="utf-8")
        gc.unfreeze()  # tests/conftest.py freezes the collected tests, and `get_objects` leaves out frozen objects
        # `isinstance` reads each object's `__class__`, and a test may define one that raises an error.
        functions = [
            each for each in gc.get_objects() if type(each) is FunctionType and each.__code__.co_filename == path
        ]
        if (measured_once := sys.modules.get(MEASURED_ONCE)) is not None:
            measured_once.measure_all()
        gc.collect()
        gc.freeze()
        known = self._executions(session.items)
        if not known:
            return True
        trials, indexes, undecided = list[Callable[[], bool]](), list[int](), list[int]()
        for index, mutant in enumerate(self._mutants):
            changes = _applicable(functions, changed_functions(source, mutant.source, path))
            if changes is None:
                undecided.append(index)
                continue
            indexes.append(index)
            trials.append(self._trial(session.items, known, mutant.line, changes))
        undecided += [indexes[place] for place, passed in _in_forks(trials, self._jobs, math.inf) if passed]
        self._undecided.send(sorted(undecided))
        return True

    def _trial(
        self,
        items: Sequence[pytest.Item],
        known: Sequence[_Execution],
        line: int,
        changes: Sequence[tuple[FunctionType, CodeType]],
    ) -> Callable[[], bool]:
        first = {function.__code__.co_firstlineno for function, _ in changes}

        def rank(index: int) -> tuple[bool, bool, float]:
            return line not in known[index].lines, not first & known[index].lines, known[index].seconds

        order = sorted(range(len(items)), key=rank)
        limits = [TEST_LIMIT_SECONDS + 10 * known[index].seconds for index in order]

        def run() -> bool:
            for function, code in changes:
                function.__code__ = code
            return self._passes([items[index] for index in order], limits)

        return run

    def _passes(self, items: Sequence[pytest.Item], limits: Sequence[float]) -> bool:
        """Run the tests up to the first failure. A test that exceeds its time limit ends this process."""
        _use_own_temporary_directory(self._scratch)
        for item, following, seconds in zip(items, [*items[1:], None], limits, strict=True):
            signal.setitimer(signal.ITIMER_REAL, seconds)
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if self._failed:
                return False
        return True

    def _executions(self, items: Sequence[pytest.Item]) -> list[_Execution]:
        """Run the tests in a fork, so that they change nothing in this process. Return an empty list if a test
        fails."""
        receiving, sending = mp.Pipe(duplex=False)

        def observe() -> bool:
            found = list[_Execution]()
            for item, following in zip(items, [*items[1:], None], strict=True):
                tracer, started = _Tracer(str(self._target.file)), time.perf_counter()
                with tracer:
                    item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
                found.append(_Execution(time.perf_counter() - started, frozenset(tracer.lines)))
            sending.send([] if self._failed else found)
            return True

        process = mp.get_context("fork").Process(target=_exit_with, args=(observe,))
        process.start()
        sending.close()
        try:
            known: list[_Execution] = receiving.recv()
        except EOFError:
            return []
        finally:
            process.join()
        return known


class _Tracer:
    """Context manager: records the executed lines of one file."""

    def __init__(self, path: str) -> None:
        self.lines = set[int]()
        self._path = path

    def __enter__(self) -> None:
        threading.settrace(self._on_call)
        sys.settrace(self._on_call)

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)
        threading.settrace(None)

    def _on_call(self, frame: FrameType, event: str, argument: Any) -> Any:
        if frame.f_code.co_filename != self._path:
            return None
        self.lines.add(frame.f_code.co_firstlineno)
        return self._on_line

    def _on_line(self, frame: FrameType, event: str, argument: Any) -> Any:
        self.lines.add(frame.f_lineno)
        return self._on_line


def _applicable(
    functions: Sequence[FunctionType], changed: Sequence[tuple[CodeType, CodeType]] | None
) -> list[tuple[FunctionType, CodeType]] | None:
    """Return the functions to change, with their new code, or None if a change of functions cannot make the mutant."""
    if not changed:
        return None
    found = list[tuple[FunctionType, CodeType]]()
    for before, after in changed:
        affected = [each for each in functions if each.__code__ == before]
        if not affected or before.co_freevars != after.co_freevars:
            return None
        found += [(each, after) for each in affected]
    return found
