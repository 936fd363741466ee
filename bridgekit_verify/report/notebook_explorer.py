"""The explorer of notebook 00: choose a chain and thread ids, run them, and see one event's trace and the drop rates.

In a live JupyterLab session, the explorer has controls. Anywhere else, such as in nbmake, the explorer shows one table.
"""

from __future__ import annotations

import asyncio
import io
import os
from base64 import b64encode
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from importlib.util import find_spec
from typing import Any, Final

import pandas as pd

from bridgekit.errors import BridgekitError, InvalidId
from bridgekit.events import CRITICAL
from bridgekit.ids import ID_BYTES
from bridgekit_verify.measure.drops import count_drops
from bridgekit_verify.measure.experiment import Measurement, measure
from bridgekit_verify.measure.thread_id_families import own_threads
from bridgekit_verify.measure.trace_figure import trace_alt_text, trace_figure
from bridgekit_verify.measure.tracing import Trace, trace_workload
from bridgekit_verify.measure.workload import Workload
from bridgekit_verify.report.notebook_outputs import show_table
from bridgekit_verify.variants import AS_COMMITTED, BROKEN, SOUND, VARIANTS, variant

__all__ = ["CHAINS", "Exploration", "controls", "drop_table", "explore", "explore_once", "is_live"]

CHAINS: Final = (*VARIANTS, *(row.name for row in BROKEN.values()))
THOUGHT: Final = "agent_thinking"
THREADS: Final = "thread_123, thread_alice_smith"
RUNS_LIMIT: Final = 32
THREADS_LIMIT: Final = 16
FIGURE_DOTS_PER_INCH: Final = 144
ALLOWED: Final = (
    f"Allowed: 1 to {THREADS_LIMIT} different thread ids, separated by commas, each of 1 to {ID_BYTES:,} bytes,"
    f" not blank and without control characters; 1 to {RUNS_LIMIT} runs at once."
)


STYLE: Final = (
    "<style>.bridgekit-explorer table { border-collapse: collapse; margin: 0.5rem 0 1rem }"
    " .bridgekit-explorer td, .bridgekit-explorer th { padding: 0.2rem 0.6rem; text-align: left;"
    " border-bottom: 1px solid #BBBBBB } .bridgekit-explorer p { line-height: 1.4; max-width: 46rem }"
    " .bridgekit-explorer img { display: block; width: 100%; max-width: 46rem; height: auto }</style>"
)


def is_live() -> bool:
    """Return whether a reader's Jupyter session started this kernel and `ipywidgets` is installed."""
    return bool(os.environ.get("JPY_SESSION_NAME")) and find_spec("ipywidgets") is not None


@dataclass(frozen=True)
class Exploration:
    """The result of one choice: the traces of the chosen chain and the sound chain, and the drop rates."""

    traces: tuple[Trace, ...]
    request: str
    """The text of the request that started the traced run."""
    event: str
    rates: pd.DataFrame

    @property
    def sentence(self) -> str:
        return self.traces[0].sentence(self.request, self.event)

    def html(self) -> str:
        """Return HTML with a sentence about the chosen chain, the table of drop rates, and the figure of the traces."""
        drawn = io.BytesIO()
        figure = trace_figure(self.traces, self.request, self.event)
        figure.savefig(drawn, format="png", dpi=FIGURE_DOTS_PER_INCH)
        alt = escape(trace_alt_text(self.traces, self.request, self.event), quote=True)
        image = b64encode(drawn.getvalue()).decode()
        return (
            f'{STYLE}<p role="status"><strong>{escape(self.sentence)}</strong></p>'
            f'{self.rates.to_html(index=False, border=0)}<img alt="{alt}" src="data:image/png;base64,{image}">'
        )


async def explore_once(
    chain: str,
    threads: Sequence[str],
    *,
    runs_at_once: int,
    event: str = THOUGHT,
    outside_core: bool = False,
    seed: int = 7,
) -> Exploration:
    """Trace the chosen and the sound chain, and measure the drop rates of both and of the code as committed.

    The first run with a leaked event is shown. Without a leak, the first run with a lost event is shown, or else the
    first run.
    `outside_core` lets the registry bind the agents, as in a `Workload`. Raises InvalidId, InvalidParameter or
    UnknownName, which name the allowed values.
    """
    workload = _workload(threads, runs_at_once, outside_core=outside_core)
    chosen = variant(chain)
    traces = [await trace_workload(row, workload, seed=seed) for row in dict.fromkeys((chosen.name, SOUND.name))]
    measured = {trace.name: trace.measurement for trace in traces}
    if AS_COMMITTED.name not in measured:
        measured = {AS_COMMITTED.name: await measure(AS_COMMITTED, workload, seed=seed), **measured}
    return Exploration(tuple(traces), _most_telling(traces[0], event), event, drop_table(measured.values()))


def _workload(threads: Sequence[str], runs_at_once: int, *, outside_core: bool = False) -> Workload:
    if type(runs_at_once) is not int or not 1 <= runs_at_once <= RUNS_LIMIT:
        raise InvalidId("runs at once", f"must be a whole number from 1 to {RUNS_LIMIT}, not {runs_at_once!r}")
    owned = own_threads(threads)
    if len(owned) > THREADS_LIMIT:
        raise InvalidId("thread ids", f"at most {THREADS_LIMIT} are allowed, not {len(owned):,}")
    return Workload(
        threads=owned,
        runs_per_thread=-(-runs_at_once // len(owned)),
        at_once=runs_at_once,
        outside_core=outside_core,
    )


def _most_telling(trace: Trace, event: str) -> str:
    requests = list(trace.requests)
    lost = [request for request in requests if trace.ended_at(request, event) is not None]
    leaked = [request for request in lost if trace.read_by(request, event)]
    return (leaked or lost or requests)[0]


def drop_table(measurements: Iterable[Measurement]) -> pd.DataFrame:
    """Return one row per chain: expected, delivered, dropped and leaked events, and the links that dropped events."""
    return pd.DataFrame([_drop_row(each) for each in measurements])


def _drop_row(measurement: Measurement) -> dict[str, object]:
    counts = count_drops(measurement)
    dropped = counts.dropped
    return {
        "chain": measurement.variant.name,
        "events": counts.expected,
        "delivered": counts.delivered,
        "dropped": dropped,
        "dropped %": round(100 * dropped / counts.expected, 1) if counts.expected else None,
        "dropped and leaked": counts.dropped_and_leaked,
        "dropped at link": ", ".join(map(str, measurement.verdict.lost_at)) or "none",
    }


async def explore(*, seed: int = 7) -> None:
    """Show the controls in a live session, and otherwise a table of every chain with four runs at once."""
    if is_live():
        from IPython.display import display

        display(controls(seed))  # type: ignore[no-untyped-call]
        return
    workload = _workload([f"thread_{number}" for number in range(123, 127)], 4)
    measurements = [await measure(variant(name), workload, seed=seed) for name in CHAINS]
    show_table(
        drop_table(measurements), "Drop rates of each chain, with four threads and four runs at once", name="explorer"
    )


def controls(seed: int) -> Any:
    """Return a box of widgets. The last widget shows the result, which is updated whenever a control changes."""
    import ipywidgets as widgets  # an optional dependency, which only a live session needs

    wide: Any = {"layout": widgets.Layout(width="28rem"), "style": {"description_width": "8rem"}}
    late: Any = {"continuous_update": False, **wide}
    chain = widgets.Dropdown(options=CHAINS, value=AS_COMMITTED.name, description="chain", **wide)
    threads = widgets.Text(value=THREADS, description="thread ids", **late)
    at_once = widgets.IntText(value=2, description="runs at once", **late)
    event = widgets.Dropdown(options=[str(each) for each in CRITICAL], value=THOUGHT, description="event", **wide)
    run, result = widgets.Button(description="Run", button_style="primary"), widgets.HTML()

    async def show() -> None:
        ids = [part.strip() for part in threads.value.split(",")]
        found = await explore_once(chain.value, ids, runs_at_once=at_once.value, event=event.value, seed=seed)
        result.value = found.html()

    worker = _Worker(show, lambda html: setattr(result, "value", html))
    for control in (chain, threads, at_once, event):
        control.observe(lambda _: worker.start(), "value")
    run.on_click(lambda _: worker.start())
    box = widgets.VBox([chain, threads, at_once, event, run, result])
    box.add_class("bridgekit-explorer")
    worker.start()
    return box


class _Worker:
    """Runs the explorer's background task. If `start` is called while the task runs, the task runs again afterwards."""

    def __init__(self, work: Callable[[], Any], show: Callable[[str], None]) -> None:
        self._work = work
        self._show = show
        self._task: asyncio.Task[None] | None = None
        self._again = False

    def start(self) -> None:
        if self._task is not None:
            self._again = True
            return
        self._show("<p>Running …</p>")
        # A widget's callback cannot await, so the work runs in a task. `_done` shows the task's error.
        self._task = asyncio.get_running_loop().create_task(self._work())
        self._task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if not task.cancelled() and (error := task.exception()) is not None:
            text = str(error) if isinstance(error, BridgekitError) else f"{type(error).__name__}: {error}"
            self._show(f'<p role="alert"><strong>{escape(text)}</strong><br>{escape(ALLOWED)}</p>')
        if self._again:
            self._again = False
            self.start()
