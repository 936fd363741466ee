"""Executes copies of the notebooks, each in a new kernel of the current interpreter."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from zmq import ZMQError

import bridgekit_verify
from bridgekit.errors import unwrap_single_error
from bridgekit_verify.harness.processes import DISCARD
from bridgekit_verify.report.allowed_parameters import check_parameters
from bridgekit_verify.report.failures import failure_of, runs
from bridgekit_verify.report.notebook_files import error_output, read_notebook, write_notebook
from bridgekit_verify.report.parameters import PARAMETERS_TAG, read_parameters, replace_parameters, require_known

JOBS = 3
CELL_SECONDS = 600
CLOSING_SECONDS = 10


class _RunningInterpreter(KernelSpecManager):
    """Maps every kernel name to this interpreter, because an installed `python3` kernel may use another interpreter."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        """Return a kernel spec that launches ipykernel with sys.executable."""
        command = [sys.executable, "-m", "ipykernel_launcher", "--log-level=ERROR", "-f", "{connection_file}"]
        return KernelSpec(argv=command, display_name=kernel_name, language="python")


def execute_folder(
    folder: Path,
    copies: Path,
    *,
    jobs: int = JOBS,
    parameters: Mapping[str, Any] | None = None,
    cell_seconds: int = CELL_SECONDS,
    log: Callable[[str], None] = print,
) -> tuple[str, ...]:
    """Execute copies of all notebooks of `folder`. Return one line for each failed notebook.

    The executed copies are written to the folder `copies`, and older notebooks there are deleted. At most `jobs`
    notebooks run at once. `parameters` replaces literals in cells tagged `parameters`. `log` receives one line for each
    notebook when it ends.

    Raises FileNotFoundError for a folder without notebooks, MalformedNotebook for a file that is not a notebook,
    ParameterError for a parameter that is unknown or has the wrong type, and InvalidParameter for a value that is not
    allowed.
    """
    notebooks = {path: read_notebook(path) for path in sorted(folder.glob("*.ipynb"))}
    if not notebooks:
        raise FileNotFoundError(f"{folder} contains no notebook: name a folder with .ipynb files")
    _set_parameters(list(notebooks.values()), parameters or {})
    copies.mkdir(parents=True, exist_ok=True)
    for stale in copies.glob("*.ipynb"):
        stale.unlink()
    failures: dict[str, str] = {}
    width = max(len(path.stem) for path in notebooks)

    async def execute_one(path: Path, limiter: anyio.CapacityLimiter) -> None:
        async with limiter:
            started = time.monotonic()
            failure = await _execute(notebooks[path], path.stem, copies, cell_seconds)
            seconds = time.monotonic() - started
        write_notebook(notebooks[path], copies / path.name)
        log(f"{path.stem:<{width}}  {seconds:6.1f} s  {'failed' if failure else 'ok'}")
        if failure:
            failures[path.stem] = failure

    async def execute_all() -> None:
        limiter = anyio.CapacityLimiter(jobs)
        try:
            async with anyio.create_task_group() as tasks:
                # The later notebooks take longest, so that they start first: no notebook runs alone for long.
                for path in reversed(notebooks):
                    tasks.start_soon(execute_one, path, limiter)
        except* KeyboardInterrupt:
            pass  # the event loop raises it too; a second one would be logged as unhandled

    with unwrap_single_error():
        anyio.run(execute_all, backend="asyncio")  # nbclient supports only asyncio
    return tuple(failures[name] for name in sorted(failures))


def _set_parameters(notebooks: list[NotebookNode], parameters: Mapping[str, Any]) -> None:
    cells = [cell for notebook in notebooks for cell in notebook.cells if _is_parameters(cell)]
    require_known(parameters, [name for cell in cells for name in read_parameters(cell.source)])
    check_parameters(parameters)
    for cell in cells:
        cell.source = replace_parameters(cell.source, parameters)


def _is_parameters(cell: NotebookNode) -> bool:
    return bool(cell.cell_type == "code" and PARAMETERS_TAG in cell.metadata.get("tags", []))


async def _execute(notebook: NotebookNode, name: str, folder: Path, cell_seconds: int) -> str | None:
    """Execute a notebook in place, up to the first failure. Return the failure as one line, or None."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    # The report would lack an output that arrives too late, so nbclient must raise an error.
    client = NotebookClient(
        notebook, timeout=cell_seconds, raise_on_iopub_timeout=True, iopub_timeout=30, log=_silent_log()
    )
    client.reset_execution_trackers()
    index = number = 0
    try:
        async with _kernel(client, folder):
            for index, cell in enumerate(notebook.cells):
                number += runs(cell)
                await client.async_execute_cell(cell, index, execution_count=number)
    except CellExecutionError:
        pass  # `failure_of` finds the error in the outputs
    except CellTimeoutError:
        _add_error(notebook, index, "CellTimeoutError", f"no end within {cell_seconds} s")
    except DeadKernelError:
        _add_error(notebook, index, "DeadKernelError", "the kernel died")
    except RuntimeError as error:
        _add_error(notebook, index, "RuntimeError", f"the kernel did not start: {error}")
    return failure_of(name, notebook.cells)


def _add_error(notebook: NotebookNode, index: int, name: str, value: str) -> None:
    """Append an error to the outputs of the cell that ran, or else of the first code cell."""
    cells = [cell for cell in (notebook.cells[index], *notebook.cells) if runs(cell)]
    if cells:
        cells[0].outputs.append(error_output(name, value))


def _silent_log() -> logging.Logger:
    """Return a logger without output for nbclient, whose errors are already in the notebook's failure."""
    log = logging.getLogger(f"{__name__}.nbclient")
    log.addHandler(logging.NullHandler())
    log.propagate = False
    return log


@asynccontextmanager
async def _kernel(client: NotebookClient, folder: Path) -> AsyncGenerator[None]:
    """Start a kernel for this client, and stop the kernel when the block ends.

    `NotebookClient.async_setup_kernel` would replace the process's signal handlers, so that Ctrl-C would end only the
    current notebook.
    """
    client.km = manager = AsyncKernelManager(kernel_spec_manager=_RunningInterpreter())
    try:
        # Discard stderr, because a kernel that is stopped in a cell writes tracebacks to it. The tracebacks of cells
        # are in the outputs.
        await client.async_start_new_kernel(cwd=str(folder), env=kernel_environment(), stderr=DISCARD)
        await client.async_start_new_kernel_client()
        yield
    finally:
        with anyio.move_on_after(CLOSING_SECONDS, shield=True):
            if client.kc is not None:
                client.kc.stop_channels()
            if manager.has_kernel:
                await _shut_down(manager)


async def _shut_down(manager: AsyncKernelManager) -> None:
    """Ask the kernel to end, or kill it if it cannot be asked, for example because it ended while it started."""
    try:
        await manager.shutdown_kernel()
    except ZMQError:
        await manager.shutdown_kernel(now=True)


def kernel_environment() -> dict[str, str]:
    """Return this process's environment, with the running package first on PYTHONPATH, so that kernels import it."""
    root = str(Path(bridgekit_verify.__file__).resolve().parents[1])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    # If a kernel had the name of a live Jupyter session, notebook 00 would show controls instead of a table.
    environment = {name: value for name, value in os.environ.items() if name != "JPY_SESSION_NAME"}
    return {**environment, "PYTHONPATH": os.pathsep.join(paths), "PYTHONHASHSEED": "0"}
