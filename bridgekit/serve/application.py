"""What is to be served, found by its name and put together. Every worker does so for itself."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from typing import Any, Final

from starlette.applications import Starlette
from starlette.types import ASGIApp

from bridgekit.chain.link_1_startup import Parts, create_app
from bridgekit.errors import ServeError
from bridgekit.serve.keys import KEY_VARIABLE, keys_from
from bridgekit.stores import MEMORY, stores_from
from bridgekit.transport.tickets import Tickets

__all__ = ["NEEDED", "STORE_VARIABLE", "Served", "lacks_lifespan"]

NEEDED: Final = "your Parts, a function that returns them, or an ASGI application with bridgekit's lifespan"
STORE_VARIABLE: Final = "BRIDGEKIT_STORE"
SHARED: Final = ("redis:", "rediss:")
"""How the URL of a store begins that more than one worker can share."""


@dataclass(frozen=True, kw_only=True)
class Served:
    """By whom and how an application is served; made by a call. Can be sent to another process."""

    target: str
    """MODULE:ATTRIBUTE."""
    store: str | None = None
    """A URL; without one the application's own store."""
    key_file: Path | None = None
    origins: tuple[str, ...] = ()
    runs_seconds: float | None = None
    drain_seconds: float | None = None

    def __call__(self) -> ASGIApp:
        """The application. ServeError where there is none, or where it does not go with what was asked for."""
        return self._put_together(_found(self.target))

    def checked(self, workers: int) -> ASGIApp:
        """The same for so many workers: ServeError where they could not know of each other's sockets."""
        found = _found(self.target)
        # What is put together already is refused when its second worker starts.
        its_own = self.store is None and isinstance(found, Parts) and found.stores is MEMORY
        if workers > 1 and (its_own or (self.store is not None and not self._shares_store)):
            raise ServeError(
                self.target,
                f"its {self._store_name} store serves one worker, not {workers}: each would know only its own sockets;"
                " start one, or give --store redis://HOST:PORT",
            )
        return self._put_together(found)

    def _put_together(self, found: Parts | ASGIApp) -> ASGIApp:
        if isinstance(found, Parts):
            return create_app(self._chosen(found))
        if self._choices:
            raise ServeError(
                self.target, f"it is an application that was put together already; leave out {', '.join(self._choices)}"
            )
        return found

    @property
    def _shares_store(self) -> bool:
        return self.store is not None and self.store.startswith(SHARED)

    @property
    def _store_name(self) -> str:
        return "memory" if self.store is None else self.store.partition(":")[0]

    @property
    def _choices(self) -> list[str]:
        asked = {
            f"--store and {STORE_VARIABLE}": self.store,
            "--ticket-key-file": self.key_file,
            "--origin": self.origins,
            "--runs-seconds": self.runs_seconds,
            "--drain-seconds": self.drain_seconds,
        }
        return [option for option, value in asked.items() if value not in (None, ())]

    def _chosen(self, parts: Parts) -> Parts:
        keys = keys_from(self.key_file, os.environ)
        if keys and parts.admission is not Tickets:
            if self.key_file is not None:
                raise ServeError(self.target, "its Parts say who is let in; leave out --ticket-key-file")
            keys = ()
        if not keys and parts.admission is Tickets and self._shares_store:
            raise ServeError(
                self.target,
                "workers that share a store must share a key for tickets:"
                f" give --ticket-key-file FILE, or {KEY_VARIABLE} in the environment",
            )
        return replace(
            parts,
            stores=parts.stores if self.store is None else stores_from(self.store),
            admission=partial(Tickets, keys=keys) if keys else parts.admission,
            origins=(*parts.origins, *self.origins),
            runs_seconds=parts.runs_seconds if self.runs_seconds is None else self.runs_seconds,
            drain_seconds=parts.drain_seconds if self.drain_seconds is None else self.drain_seconds,
        )


def _found(target: str) -> Parts | ASGIApp:
    """Parts, or an ASGI application."""
    found: Any = _named(target)
    if callable(found) and _needs_nothing(found):
        found = found()
    if inspect.iscoroutine(found):
        found.close()
        raise ServeError(target, f"its function is asynchronous; needed is {NEEDED}")
    if not isinstance(found, Parts) and not callable(found):
        raise ServeError(target, f"it is of type {type(found).__name__}; needed is {NEEDED}")
    served: Parts | ASGIApp = found
    return served


def _named(target: str) -> object:
    module, _, attribute = target.partition(":")
    if not module or not attribute:
        raise ServeError(target, f"say MODULE:ATTRIBUTE, which names {NEEDED}")
    try:
        imported = import_module(module)
    except ModuleNotFoundError as error:
        if error.name and f"{module}.".startswith(f"{error.name}."):
            raise ServeError(target, f"there is no module {error.name!r}, seen from {Path.cwd()}") from error
        raise ServeError(target, f"it needs the module {error.name!r}, which is not installed") from error
    try:
        return attrgetter(attribute)(imported)
    except AttributeError as error:
        raise ServeError(target, f"{module!r} has no {attribute!r}") from error


def _needs_nothing(call: Callable[..., object]) -> bool:
    """Whether it can be called without anything, which an ASGI application cannot."""
    try:
        inspect.signature(call).bind()
    except (TypeError, ValueError):
        return False
    return True


def lacks_lifespan(app: ASGIApp) -> bool:
    """Whether an application has started without a bridge, as far as can be told."""
    return isinstance(app, Starlette) and "bridgekit" not in app.state
