"""Which edge serves an application that says nothing about it, and which can serve one that does."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.httpsredirect import HTTPSRedirectMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from bridgekit.chain.link_1_startup import Parts, create_app
from bridgekit.errors import NotServable
from bridgekit.serve.edges import edge_for
from bridgekit.transport.asgi import routes


class Mine(BaseHTTPMiddleware):
    """Sees no sockets, as all of its kind."""


class MoreThanCORS(CORSMiddleware):
    """Turns sockets away."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket":
            await super().__call__(scope, receive, send)


def behind(*kinds: Callable[[ASGIApp], ASGIApp]) -> Starlette:
    return FastAPI(routes=routes(), middleware=[Middleware(kind) for kind in kinds])


def wrapped() -> ASGIApp:
    return CORSMiddleware(behind())


@pytest.mark.parametrize(
    ("app", "edge"),
    [
        (create_app(Parts(agents={})), "native"),
        (behind(), "native"),
        (behind(CORSMiddleware, Mine), "native"),
        (behind(CORSMiddleware, HTTPSRedirectMiddleware), "asgi"),
        (behind(TrustedHostMiddleware), "asgi"),
        (behind(MoreThanCORS), "asgi"),
        (Starlette(), "asgi"),
        (wrapped(), "asgi"),
    ],
    ids=["parts", "alone", "lets by", "one of two", "trusted hosts", "derived", "no routes", "wrapped"],
)
def test_native_edge_serves_unless_somebody_could_tell_the_difference(app: ASGIApp, edge: str) -> None:
    assert edge_for("here:app", app, None) == edge
    assert edge_for("here:app", app, "asgi") == "asgi"


def test_native_edge_that_is_asked_for_passes_by_what_is_in_between() -> None:
    assert edge_for("here:app", behind(HTTPSRedirectMiddleware), "native") == "native"


def test_native_edge_for_what_is_no_starlette_is_refused() -> None:
    with pytest.raises(NotServable, match=r"^here:app: it is of type CORSMiddleware, .*; say --edge asgi$"):
        edge_for("here:app", wrapped(), "native")
