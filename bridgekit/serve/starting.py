"""An application whose refusal to start is told in one line: a server would print the whole way to it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, nullcontext
from typing import Any, Final

from starlette.applications import Starlette
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bridgekit.errors import BridgekitError, ServeError
from bridgekit.serve.application import Served, lacks_lifespan
from bridgekit.serve.native_handoff import native_handoff

__all__ = ["MadeHere", "Starting"]

STARTED: Final = "lifespan.startup.complete"
FAILED: Final = "lifespan.startup.failed"
STOPPED: Final = "lifespan.shutdown.complete"


class Starting:
    """The application itself, but for what it says of its start, and for sockets that are served `natively`."""

    def __init__(self, app: ASGIApp, *, natively: bool) -> None:
        self._app = app
        self._natively = natively
        self.failure: Exception | None = None
        """Why it did not start, or ended."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusals: list[Message] = []
        taken = AsyncExitStack()

        async def told(message: Message) -> None:
            if message["type"] == FAILED:
                refusals.append(message)  # the error itself comes next, and says it shorter
                return
            if message["type"] == STARTED:
                scope["state"].update(await taken.enter_async_context(self._taking()))
            if message["type"] == STOPPED:
                await taken.aclose()  # what is left when a server has heard this is cancelled
            await send(message)

        try:
            async with taken:
                await self._app(scope, receive, told)
        except Exception as failure:
            self.failure = failure
            refusals = [_shorter(refusal, failure) for refusal in refusals]
            raise
        finally:
            for refusal in refusals:
                await send(refusal)

    def _taking(self) -> AbstractAsyncContextManager[Mapping[str, Any]]:
        """What is taken from the server of an application that has started."""
        if lacks_lifespan(self._app):
            raise ServeError("the application", "its lifespan is to be bridgekit's: lifespan=lifespan(parts)")
        if self._natively and isinstance(self._app, Starlette):
            return native_handoff(self._app)
        return nullcontext({})


def _shorter(refusal: Message, failure: Exception) -> Message:
    return {"type": FAILED, "message": f"bridgekit: {failure}"} if isinstance(failure, BridgekitError) else refusal


class MadeHere:
    """Makes the application in a worker."""

    def __init__(self, served: Served, *, natively: bool) -> None:
        self._served = served
        self._natively = natively

    def __call__(self) -> ASGIApp:
        return Starting(self._served(), natively=self._natively)
