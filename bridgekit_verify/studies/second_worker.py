"""Run the second process of an application: `python -m bridgekit_verify.studies.second_worker`.

The process serves Fix 3 and the sound chain on loopback ports, and writes `ServedUrls`. The process then answers each
`ProcessRequest` with a `ProcessAnswer`, and ends when its standard input closes.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Final, Literal

import anyio
import msgspec
from starlette.applications import Starlette

from bridgekit.chain.link_1_startup import Application, create_app
from bridgekit.errors import RunAlreadyMapped
from bridgekit.events import EventType, Outcome
from bridgekit.ids import RunId, ThreadId, UserId
from bridgekit.serve.in_process import serving
from bridgekit_verify.harness.child_side import read_requests, send
from bridgekit_verify.measure.history import EventKey
from bridgekit_verify.measure.workload import AGENT, seeded
from bridgekit_verify.probes.scenario_agents import thinking
from bridgekit_verify.variants import FIX_3, SOUND

__all__ = ["SERVED", "Action", "ProcessAnswer", "ProcessRequest", "ServedUrls", "event_key", "handle_request"]

Action = Literal["open thread", "register", "notify", "drain"]

SERVED: Final = {row.name: row for row in (FIX_3, SOUND)}


class ProcessRequest(msgspec.Struct, frozen=True, kw_only=True):
    """An action, and the chain in which to perform the action. Fields that an action does not need stay empty."""

    variant: str
    do: Action
    run_id: RunId = RunId("")
    thread_id: ThreadId | None = None
    """The thread of the action. For "notify", None means that the event does not carry its thread."""
    user_id: UserId = UserId("")
    request: str = ""


class ProcessAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The result of an action. For a notification, the fields are those of its Receipt."""

    outcome: Outcome = Outcome.SENT
    thread_id: ThreadId | None = None
    link: int | None = None
    reason: str = ""


class ServedUrls(msgspec.Struct, frozen=True):
    """Message that the process is ready, with the URL of each chain."""

    urls: dict[str, str]


async def handle_request(app: Starlette, message: ProcessRequest) -> ProcessAnswer:
    """Perform the requested action in the application `app`, and return its result."""
    application: Application = app.state.bridgekit
    match message.do:
        case "open thread":
            await application.open_thread(message.thread_id or ThreadId(""), message.user_id)
        case "register":
            return await _register(application, message)
        case "notify":
            return await _notify(application, message)
        case "drain":
            await app.state.bridgekit_connections.drain()
    return ProcessAnswer()


async def _register(application: Application, message: ProcessRequest) -> ProcessAnswer:
    try:
        await application.bridge.mapping.register_mapping(message.run_id, message.thread_id or ThreadId(""))
    except RunAlreadyMapped as refused:
        return ProcessAnswer(outcome=Outcome.REFUSED, reason=str(refused))
    return ProcessAnswer(thread_id=message.thread_id)


async def _notify(application: Application, message: ProcessRequest) -> ProcessAnswer:
    thought = f"{message.request}: emitted on request"
    receipt = await application.bridge.notify_agent_thinking(
        message.run_id, AGENT, thought, step_number=1, thread_id=message.thread_id
    )
    return ProcessAnswer(outcome=receipt.outcome, thread_id=receipt.thread_id, link=receipt.link, reason=receipt.reason)


def event_key(request: str) -> EventKey:
    """Return the key of the event that "notify" emits for this request."""
    return EventKey(request, EventType.AGENT_THINKING, 1)


async def main() -> None:
    """Serve both chains, and answer requests until standard input closes."""
    async with AsyncExitStack() as stack:
        apps, urls = {}, {}
        for name, row in SERVED.items():
            apps[name] = create_app(row.config({AGENT: thinking(row.agent)}, hex_source=seeded(0)))
            urls[name] = await stack.enter_async_context(serving(apps[name]))
        send(ServedUrls(urls))
        async for message in read_requests(ProcessRequest):
            send(await handle_request(apps[message.variant], message))


if __name__ == "__main__":
    anyio.run(main)
