"""Draw the path of an event from agent to client, for docs/architecture.md, as `docs/event_path.png`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import matplotlib

matplotlib.use("Agg")

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

FIGURE: Final = Path(__file__).parents[1] / "docs" / "event_path.png"
TITLE: Final = "One event's path, from the agent to the client"

TEXT_COLOUR: Final = "#1f2933"
CODE_COLOUR: Final = "#52606d"
STOP_COLOUR: Final = "#b3261e"
FAMILY: Final = "DejaVu Sans"
CODE_FAMILY: Final = "DejaVu Sans Mono"

WIDTH_INCHES: Final = 11.6
HEIGHT_INCHES: Final = 12.2
DOTS_PER_INCH: Final = 110
ROW_HEIGHT: Final = 1.0
BOX_LEFT: Final = 0.55
BOX_WIDTH: Final = 1.75
BOX_HEIGHT: Final = 0.62
TEXT_LEFT: Final = 2.6
STOP_LEFT: Final = 7.55
RIGHT: Final = 11.5
TOP: Final = 10.0


@dataclass(frozen=True, slots=True)
class Step:
    """One box of the drawing."""

    name: str
    does: str
    """What the step does with the event, in a few words."""
    module: str
    """The module's path from the checkout's root."""
    calls: tuple[str, ...]
    """The module's methods or classes that the event passes through."""
    stops: tuple[str, ...] = ()
    """The ways in which an event can stop at this step, in at most two lines."""


@dataclass(frozen=True, slots=True)
class Part:
    """Consecutive steps that share a colour and a label."""

    label: str
    fill: str
    edge: str
    steps: tuple[Step, ...]


PARTS: Final = (
    Part(
        "chain",
        "#dbeafe",
        "#1d4ed8",
        (
            Step(
                "agent",
                "awaits an emit_* method in its execute method",
                "bridgekit/chain/link_6_base_agent.py",
                ("BaseAgent.emit",),
            ),
            Step(
                "adapter",
                "adds run id, thread id and agent name",
                "bridgekit/chain/link_7_8_adapter.py",
                ("WebSocketBridgeAdapter.emit",),
                ("no bridge was set: REFUSED, link 7",),
            ),
            Step(
                "bridge",
                "finds the thread, counts the receipt",
                "bridgekit/chain/link_9_bridge.py",
                ("AgentWebSocketBridge.notify",),
                ("unknown event type:", "raises UnknownEventType"),
            ),
            Step(
                "resolver",
                "returns the thread that the event carries",
                "bridgekit/thread_resolvers.py",
                ("Carried.resolve",),
                ("no thread is known:", "UNROUTABLE, link 9"),
            ),
        ),
    ),
    Part(
        "delivery",
        "#d1fae5",
        "#047857",
        (
            Step(
                "hub",
                "publishes to the log, then delivers to outboxes",
                "bridgekit/transport/hub.py",
                ("Hub.publish", "Hub.deliver"),
                ("an outbox is full: REFUSED, link 10;", "no subscriber: retained, not delivered"),
            ),
            Step(
                "log",
                "assigns seq, encodes once, retains the frame",
                "bridgekit/transport/log.py",
                ("MemoryEventLog.publish",),
                ("not JSON or too large: raises an error;", "store down: PENDING, then REFUSED"),
            ),
            Step(
                "outbox",
                "queues the frame for one subscriber",
                "bridgekit/transport/outbox.py",
                ("Subscriber.put",),
                ("full: superseded events are coalesced,", "or the socket is closed with 4008"),
            ),
            Step(
                "writer",
                "joins the frames of one event-loop iteration",
                "bridgekit/transport/writer.py",
                ("WriteScheduler", "NativeSubscriber.flush"),
                ("client reads too slowly:", "frames wait in the outbox"),
            ),
            Step(
                "socket",
                "writes to the transport, or calls ASGI send",
                "bridgekit/transport/native.py",
                ("serve_native", "adopt_connection"),
                ("connection lost: frames count as", "unwritten, the log retains them"),
            ),
        ),
    ),
    Part(
        "client",
        "#fef3c7",
        "#b45309",
        (
            Step(
                "client",
                "drops duplicates, resumes after a disconnect",
                "bridgekit/transport/resuming_client.py",
                ("ResumingClient",),
                ("offline longer than the log retains:", "gap with its reason"),
            ),
        ),
    ),
)
STEPS: Final = tuple(step for part in PARTS for step in part.steps)


def draw() -> Figure:
    """Draw one row per step: what the step does, where its code is, and how an event can stop there."""
    figure = Figure(figsize=(WIDTH_INCHES, HEIGHT_INCHES), facecolor="white")
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_xlim(-0.1, RIGHT + 0.1)
    axes.set_ylim(-0.15, TOP + 1.55)
    axes.axis("off")
    _draw_heads(axes)
    row = 0
    for part in PARTS:
        _draw_part(axes, part, row)
        row += len(part.steps)
    for number in range(len(STEPS) - 1):
        _draw_arrow(axes, number)
    return figure


def _centre(row: int) -> float:
    return TOP - ROW_HEIGHT * (row + 0.5)


def _draw_heads(axes: Axes) -> None:
    axes.text(0.2, TOP + 1.05, TITLE, family=FAMILY, fontsize=21, weight="bold", color=TEXT_COLOUR, va="center")
    heads = ((BOX_LEFT, "step", TEXT_COLOUR), (TEXT_LEFT, "what it does, and where", TEXT_COLOUR))
    for left, text, colour in (*heads, (STOP_LEFT + 0.3, "where an event can stop", STOP_COLOUR)):
        axes.text(left, TOP + 0.32, text, family=FAMILY, fontsize=14.5, weight="bold", color=colour, va="center")
    axes.plot([0.2, RIGHT - 0.1], [TOP + 0.06, TOP + 0.06], color="#cbd2d9", linewidth=1.2)


def _draw_part(axes: Axes, part: Part, first: int) -> None:
    top, bottom = _centre(first) + BOX_HEIGHT / 2, _centre(first + len(part.steps) - 1) - BOX_HEIGHT / 2
    axes.plot([0.33, 0.33], [bottom, top], color=part.edge, linewidth=4, solid_capstyle="butt")
    axes.text(
        0.17, (top + bottom) / 2, part.label, family=FAMILY, fontsize=13, color=part.edge, rotation=90,
        ha="center", va="center", weight="bold",
    )  # fmt: skip
    for offset, step in enumerate(part.steps):
        _draw_step(axes, part, step, first + offset)


def _draw_step(axes: Axes, part: Part, step: Step, row: int) -> None:
    y = _centre(row)
    axes.add_patch(
        FancyBboxPatch(
            (BOX_LEFT, y - BOX_HEIGHT / 2), BOX_WIDTH, BOX_HEIGHT, boxstyle="round,pad=0,rounding_size=0.1",
            facecolor=part.fill, edgecolor=part.edge, linewidth=1.6,
        )
    )  # fmt: skip
    axes.text(
        BOX_LEFT + BOX_WIDTH / 2, y, step.name, family=FAMILY, fontsize=16, weight="bold", color=TEXT_COLOUR,
        ha="center", va="center",
    )  # fmt: skip
    where = step.module.removeprefix("bridgekit/")
    axes.text(TEXT_LEFT, y + 0.27, step.does, family=FAMILY, fontsize=13.5, color=TEXT_COLOUR, va="center")
    axes.text(TEXT_LEFT, y, where, family=CODE_FAMILY, fontsize=11.5, color=CODE_COLOUR, va="center")
    calls = ", ".join(step.calls)
    axes.text(TEXT_LEFT, y - 0.25, calls, family=CODE_FAMILY, fontsize=11.5, color=part.edge, va="center")
    if step.stops:
        axes.plot([STOP_LEFT + 0.05], [y], marker="X", markersize=11, color=STOP_COLOUR, linestyle="none")
        axes.text(
            STOP_LEFT + 0.3, y, "\n".join(step.stops), family=FAMILY, fontsize=12.5, color=STOP_COLOUR, va="center",
            linespacing=1.35,
        )  # fmt: skip


def _draw_arrow(axes: Axes, row: int) -> None:
    x = BOX_LEFT + BOX_WIDTH / 2
    start, end = _centre(row) - BOX_HEIGHT / 2, _centre(row + 1) + BOX_HEIGHT / 2
    axes.add_patch(
        FancyArrowPatch(
            (x, start), (x, end), arrowstyle="-|>", mutation_scale=17, color=CODE_COLOUR, linewidth=1.6,
            shrinkA=1, shrinkB=1,
        )
    )  # fmt: skip


def main() -> None:
    draw().savefig(FIGURE, dpi=DOTS_PER_INCH)
    print(f"wrote {FIGURE}")


if __name__ == "__main__":
    main()
