"""Starts one backend, applies a load to it, and judges what its clients received."""

from __future__ import annotations

import inspect
import os
import sys
import traceback
from collections.abc import AsyncIterator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import anyio
import msgspec

from bridgekit.errors import unwrap_single_error
from bridgekit_verify.check.baseline import Baseline
from bridgekit_verify.check.live.backend_file import Backend, load_backend
from bridgekit_verify.check.live.clients import BackendDriver
from bridgekit_verify.check.live.drivers import Requests, TomlDriver, http_client
from bridgekit_verify.check.live.load_session import LoadSession
from bridgekit_verify.check.live.model_ledger import ModelLedger
from bridgekit_verify.check.live.model_server import ModelServer
from bridgekit_verify.check.live.saved_run import LiveRun, write_run
from bridgekit_verify.check.live.scenarios import LOADS, Load, default_scenarios
from bridgekit_verify.check.live.starting import RunningBackend, environment, running_backend, served_application
from bridgekit_verify.check.live.verdict import LiveVerdict, Subject, check_run
from bridgekit_verify.check.output import format_text
from bridgekit_verify.errors import InvalidParameter, UnusableBackend, UnusableRecording

__all__ = ["BackendCheck", "DrivenRun", "check_app", "check_backend", "drive_backend", "load_backend"]


@dataclass
class DrivenRun:
    """The recording of one load, and the problems that occurred."""

    path: str
    run: LiveRun
    problems: tuple[str, ...]
    """Requests that failed, connections that the backend ended, and runs without an end."""

    def save(self, path: str | Path) -> None:
        """Save the run in the format that `bridgekit check FILE` reads."""
        write_run(path, self.run)

    def judge(self) -> BackendCheck:
        """Judge the run. Raises UnusableBackend if the TOML file states no dialect and none is recognized."""
        try:
            verdict = check_run(self.run, path=self.path)
        except UnusableRecording as error:
            problem = error.problem.partition(". Draft")[0]
            advice = "save the run with --out FILE, and add the table that `bridgekit learn FILE` drafts"
            raise UnusableBackend(self.path, f"{problem}; {advice}") from error
        return BackendCheck(self.path, self.run, self.problems, verdict)


@dataclass
class BackendCheck(DrivenRun):
    """The result of one live check."""

    verdict: LiveVerdict

    @property
    def passed(self) -> bool:
        """True if the backend was judged and no property is broken."""
        return not self.verdict.broken and self.verdict.subject is Subject.JUDGED

    @property
    def text(self) -> str:
        """The answers and the problems of the load, as `bridgekit check` prints them."""
        return "\n".join([format_text(self.verdict, Baseline("")), *self.problems])


async def check_backend(backend: Backend, load: Load | None = None, **options: Any) -> BackendCheck:
    """Apply a load to the backend and judge what its clients received. The options are those of `drive_backend`."""
    return (await drive_backend(backend, load, **options)).judge()


async def drive_backend(
    backend: Backend,
    load: Load | None = None,
    *,
    scenarios: tuple[str, ...] = (),
    seed: int = 0,
    max_seconds: float | None = None,
    max_frames: int | None = None,
    app: Any = None,
    model: ModelServer | None = None,
) -> DrivenRun:
    """Start the backend with the scripted model, and apply the scenarios, by default those of `default_scenarios`.

    `app` is an ASGI application, a function that makes one, or the name of either as `module:name`. This process serves
    the application, so `[start]` is not needed. `model` is a running scripted model that the backend at `[start] url`
    uses. Several checks may use the same model, one after the other. Needs asyncio. Raises UnusableBackend if the
    backend or its file is unusable, and InvalidParameter if a scenario is unknown.
    """
    load = load or Load(users=min(2, len(backend.users) or 2))
    names = scenarios or default_scenarios(backend)
    for name in names:
        if name not in LOADS:
            raise InvalidParameter("scenario", name, f"one of {', '.join(LOADS)}")
    ledger = ModelLedger()
    with unwrap_single_error(), _model_server(ledger, backend.start.model_port, app, model) as serving_model:
        address = serving_model.address
        serving = running_backend(backend, address) if app is None else _in_process(backend, address, app)
        async with serving as running, http_client() as http:
            driver = _custom_driver(backend) if backend.driver else TomlDriver(backend, http, running.url)
            session = LoadSession(
                backend,
                driver,
                Requests(backend, http),
                ledger,
                load,
                running.url,
                model=address,
                seed=seed,
                max_frames=max_frames,
            )
            with anyio.move_on_after(max_seconds) as limit:
                with _own_driver(backend):
                    await _apply(session, names, running)
    stopped = f"--max-seconds {max_seconds:g}" if limit.cancelled_caught else session.limit
    about = {
        "backend": backend.path, "scenarios": names, "load": msgspec.to_builtins(load), "seed": seed,
        "problems": session.problems,
    }  # fmt: skip
    run = LiveRun(ledger, session.recorder.messages, _stated_dialect(backend), about, stopped)
    return DrivenRun(backend.path, run, tuple(session.problems))


def _model_server(
    ledger: ModelLedger, port: int, app: Any, running: ModelServer | None
) -> AbstractContextManager[ModelServer]:
    """Return the scripted model.

    An imported application may keep the model's address from the first check, so later checks use the same port.
    """
    if running is not None:
        running.use(ledger)
        return nullcontext(running)
    if app is None or port:
        return ModelServer(ledger, port)
    try:
        model = ModelServer(ledger, _earlier_ports[0] if _earlier_ports else 0)
    except OSError:  # another check in this process uses the port
        return ModelServer(ledger)
    _earlier_ports[:] = [urlsplit(model.address).port or 0]
    return model


_earlier_ports: Final[list[int]] = []
"""The port of the scripted model in this process's latest check of an application, or an empty list before it."""


async def _apply(session: LoadSession, scenarios: tuple[str, ...], running: RunningBackend) -> None:
    """Apply the scenarios. If the backend ends under load, the check judges the messages that had arrived.

    Raises UnusableBackend for a failed scenario if the backend still runs, or if no message arrived.
    """
    failure: UnusableBackend | None = None
    try:
        with unwrap_single_error():
            await session.run(scenarios)
    except UnusableBackend as error:
        failure = error
    ended = await running.find_problem() if failure or session.problems else None
    if ended is not None:
        session.problems.append(ended)
    if failure is not None and (ended is None or not session.recorder.messages):
        raise failure


def check_app(backend: str | Path | Backend, app: Any = None, **options: Any) -> BackendCheck:
    """Check a backend in a new thread, because the caller may run an event loop. Options: see `check_backend`."""
    described = backend if isinstance(backend, Backend) else load_backend(backend)
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(anyio.run, partial(check_backend, described, app=app, **options)).result()


@asynccontextmanager
async def _in_process(backend: Backend, model: str, app: Any) -> AsyncIterator[RunningBackend]:
    values = {"model": model, "python": sys.executable, "port": "0"}
    with _variables(environment(backend, values)):
        made = _import(backend, app, "app") if isinstance(app, str) else app
        if not inspect.signature(made).parameters:
            made = made()
        async with served_application(backend, made) as running:
            yield running


@contextmanager
def _variables(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables during the `with` block, because a new application reads the model's address from
    them."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _custom_driver(backend: Backend) -> BackendDriver:
    assert backend.driver is not None
    made = _import(backend, backend.driver.cls, "[driver] class")
    try:
        with _own_driver(backend):
            driver: BackendDriver = made()
    except TypeError as error:
        problem = f"[driver] class {backend.driver.cls!r} must be a class that needs no arguments: {error}"
        raise UnusableBackend(backend.path, problem) from error
    for name in ("listen", "start"):
        if not callable(getattr(driver, name, None)):
            raise UnusableBackend(backend.path, f"[driver] class {backend.driver.cls!r} has no method {name!r}")
    return driver


@contextmanager
def _own_driver(backend: Backend) -> Iterator[None]:
    """Name the line of the backend's own driver that raised an error, or called what raised it.

    An error that did not come through the driver is raised unchanged.
    """
    try:
        yield
    except Exception as error:
        if backend.driver is None or isinstance(error, UnusableBackend):
            raise
        file = getattr(sys.modules[backend.driver.cls.partition(":")[0]], "__file__", None)
        lines = [line for line in traceback.extract_tb(error.__traceback__) if line.filename == file]
        if not lines:
            raise
        line = lines[-1]
        text = f"[driver] class {backend.driver.cls!r} raised {error!r}: {Path(line.filename).name}, line {line.lineno}"
        raise UnusableBackend(backend.path, text) from error


def _import(backend: Backend, name: str, what: str) -> Any:
    """Return the object `module:name`. Add the command's folder and the TOML file's folder to the import path."""
    module, _, attribute = name.partition(":")
    for folder in (backend.folder, Path(backend.path).parent):
        if str(folder.resolve()) not in sys.path:
            sys.path.insert(0, str(folder.resolve()))
    try:
        found = import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise UnusableBackend(backend.path, f"{what} {name!r} cannot be imported: {error}") from error
    return found


def _stated_dialect(backend: Backend) -> str | dict[str, Any] | None:
    if backend.dialect is not None:
        return {"name": Path(backend.path).stem, **backend.dialect}
    stated = backend.stream_dialect()
    return stated.name if stated is not None else None
