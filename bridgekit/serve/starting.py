"""An application whose refusal to start is told in one line: a server would print the whole way to it."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bridgekit.errors import BridgekitError, NotServable
from bridgekit.serve.application import Served, lacks_lifespan

__all__ = ["MadeHere", "Starting"]

FAILED = "lifespan.startup.failed"


class Starting:
    """The application itself, but for what it says of its start."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.failure: Exception | None = None
        """Why it did not start, or ended."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusals: list[Message] = []

        async def told(message: Message) -> None:
            if message["type"] == FAILED:
                refusals.append(message)  # the error itself comes next, and says it shorter
                return
            if message["type"] == "lifespan.startup.complete" and lacks_lifespan(self._app):
                raise NotServable("the application", "its lifespan is to be bridgekit's: lifespan=lifespan(parts)")
            await send(message)

        try:
            await self._app(scope, receive, told)
        except Exception as failure:
            self.failure = failure
            if isinstance(failure, BridgekitError):
                refusals = [{"type": FAILED, "message": f"bridgekit: {failure}"} for _ in refusals]
            raise
        finally:
            for refusal in refusals:
                await send(refusal)


class MadeHere:
    """Makes the application in a worker."""

    def __init__(self, served: Served) -> None:
        self._served = served

    def __call__(self) -> ASGIApp:
        return Starting(self._served())
