"""By which edge an application's sockets are served: the fast one, unless the application has something in between."""

from __future__ import annotations

from typing import Any, Final

from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.types import ASGIApp

from bridgekit.errors import NotServable
from bridgekit.transport.upgrades import bridge_paths

__all__ = ["ASGI", "NATIVE", "edge_for"]

ASGI: Final = "asgi"
NATIVE: Final = "native"
LETS_SOCKETS_BY: Final = (BaseHTTPMiddleware, CORSMiddleware, GZipMiddleware)
"""Middleware that does nothing for a socket but hand it on."""


def edge_for(target: str, app: ASGIApp, asked: str | None) -> str:
    """The edge that was asked for, or else the native one where nobody can tell the difference.

    NotServable where the native edge is asked for and cannot be had.
    """
    if not isinstance(app, Starlette):
        if asked == NATIVE:
            raise NotServable(
                target,
                f"it is of type {type(app).__name__}, and the native edge serves Starlette and FastAPI applications;"
                " say --edge asgi",
            )
        return ASGI
    if asked is None:
        return NATIVE if bridge_paths(app) and not _in_between(app) else ASGI
    return asked


def _in_between(app: Starlette) -> bool:
    """Whether middleware of the application's may want to see a socket."""
    kinds: list[Any] = [middleware.cls for middleware in app.user_middleware]
    return not all(isinstance(kind, type) and _lets_sockets_by(kind) for kind in kinds)


def _lets_sockets_by(kind: Any) -> bool:
    # By what is called: one that is derived from these may do more than they.
    return any(kind.__call__ is known.__call__ for known in LETS_SOCKETS_BY)
