"""The application that is served: where it is found, and what the command line changes in it.

The arguments travel to each worker as one `AppSpec`, and every worker makes its own application from it.
"""

from __future__ import annotations

import inspect
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from typing import Any, Final

from starlette.types import ASGIApp

from bridgekit.chain.link_1_startup import BridgeConfig, create_app
from bridgekit.errors import ServeError
from bridgekit.stores import MEMORY, stores_from
from bridgekit.transport.tickets import KEY_BYTES, Tickets

__all__ = ["EXPECTED", "KEY_VARIABLE", "STORE_VARIABLE", "AppSpec", "check_private", "read_ticket_keys"]

EXPECTED: Final = "your BridgeConfig, a function that returns them, or an ASGI application with bridgekit's lifespan"
STORE_VARIABLE: Final = "BRIDGEKIT_STORE"
KEY_VARIABLE: Final = "BRIDGEKIT_TICKET_KEY"
SHARED_STORES: Final = ("redis:", "rediss:")
"""The first characters of the URL of a store that several workers can share."""


@dataclass(frozen=True, kw_only=True)
class AppSpec:
    """An application and the options of the command line that change it. It can be pickled for another process."""

    target: str
    """MODULE:ATTRIBUTE."""
    store: str | None = None
    """A URL; None for the application's own store."""
    key_file: Path | None = None
    origins: tuple[str, ...] = ()
    runs_seconds: float | None = None
    drain_seconds: float | None = None

    def load(self, workers: int = 1) -> ASGIApp:
        """Return the application; ServeError if there is none, or it does not go with these options and workers."""
        found = _find(self.target)
        if not isinstance(found, BridgeConfig):
            # It was put together before. If its store serves one worker, the second one does not start.
            if given := self._options_given():
                raise ServeError(self.target, f"it is already an application; leave out {', '.join(given)}")
            return found
        single_worker = found.stores is MEMORY if self.store is None else not self.store.startswith(SHARED_STORES)
        if workers > 1 and single_worker:
            name = "memory" if self.store is None else self.store.partition(":")[0]
            raise ServeError(
                self.target,
                f"its {name} store serves one worker, not {workers}: each would know only its own sockets;"
                " start one, or give --store redis://HOST:PORT",
            )
        return create_app(self._with_options(found))

    def _options_given(self) -> list[str]:
        values = {
            f"--store and {STORE_VARIABLE}": self.store,
            "--ticket-key-file": self.key_file,
            "--origin": self.origins,
            "--runs-seconds": self.runs_seconds,
            "--drain-seconds": self.drain_seconds,
        }
        return [option for option, value in values.items() if value not in (None, ())]

    def _with_options(self, config: BridgeConfig) -> BridgeConfig:
        keys = read_ticket_keys(self.key_file, os.environ)
        if config.authorizer is not Tickets:
            if self.key_file is not None:
                raise ServeError(
                    self.target, "its BridgeConfig have an authorizer of their own; leave out --ticket-key-file"
                )
        elif keys:
            config = replace(config, authorizer=partial(Tickets, keys=keys))
        elif self.store is not None and self.store.startswith(SHARED_STORES):
            raise ServeError(
                self.target,
                "workers that share a store must share a key for tickets:"
                f" give --ticket-key-file FILE, or {KEY_VARIABLE} in the environment",
            )
        return replace(
            config,
            stores=config.stores if self.store is None else stores_from(self.store),
            origins=(*config.origins, *self.origins),
            runs_seconds=config.runs_seconds if self.runs_seconds is None else self.runs_seconds,
            drain_seconds=config.drain_seconds if self.drain_seconds is None else self.drain_seconds,
        )


def _find(target: str) -> BridgeConfig | ASGIApp:
    found: Any = _import(target)
    if callable(found) and _needs_no_arguments(found):
        found = found()
    if inspect.iscoroutine(found):
        found.close()
        raise ServeError(target, f"its function is asynchronous; expected {EXPECTED}")
    if not isinstance(found, BridgeConfig) and not callable(found):
        raise ServeError(target, f"it is of type {type(found).__name__}; expected {EXPECTED}")
    application: BridgeConfig | ASGIApp = found
    return application


def _import(target: str) -> object:
    module, _, attribute = target.partition(":")
    if not module or not attribute:
        raise ServeError(target, f"give MODULE:ATTRIBUTE, which names {EXPECTED}")
    try:
        imported = import_module(module)
    except ModuleNotFoundError as error:
        if error.name and f"{module}.".startswith(f"{error.name}."):
            raise ServeError(target, f"there is no module {error.name!r} in {Path.cwd()} or on the path") from error
        raise ServeError(target, f"it needs the module {error.name!r}, which is not installed") from error
    try:
        return attrgetter(attribute)(imported)
    except AttributeError as error:
        raise ServeError(target, f"{module!r} has no {attribute!r}") from error


def _needs_no_arguments(call: Callable[..., object]) -> bool:
    """Return whether it can be called without arguments. An ASGI application cannot."""
    try:
        inspect.signature(call).bind()
    except (TypeError, ValueError):
        return False
    return True


def read_ticket_keys(file: Path | None, environment: Mapping[str, str]) -> tuple[bytes, ...]:
    """Return the keys for tickets, one per line: the first signs, all are accepted, so that keys can be rotated.

    Empty if there is neither a file nor the variable. ServeError if a key is too short, or if other users may read or
    change the file.
    """
    if file is None:
        text = environment.get(KEY_VARIABLE)
        return () if text is None else _parse_keys(text.encode(), KEY_VARIABLE)
    with file.open("rb") as opened:
        # The status of the open file: the name may refer to another one by now.
        check_private(file, os.fstat(opened.fileno()))
        return _parse_keys(opened.read(), str(file))


def _parse_keys(text: bytes, source: str) -> tuple[bytes, ...]:
    keys = tuple(line.strip() for line in text.splitlines() if line.strip())
    if not keys:
        raise ServeError(source, "it holds no key for tickets; `openssl rand -hex 32` makes one")
    if (shortest := min(map(len, keys))) < KEY_BYTES:
        raise ServeError(
            source, f"a key must have {KEY_BYTES} characters or more, not {shortest}; `openssl rand -hex 32` makes one"
        )
    return keys


def check_private(file: Path, status: os.stat_result) -> None:
    """Raise ServeError unless only this user can access the file; root's may be readable by the group.

    Kubernetes mounts secrets as files of root that the group can read.
    """
    if os.name != "posix":
        return
    if status.st_uid not in (0, os.geteuid()):
        raise ServeError(str(file), "the key file belongs to another user; make a copy of your own")
    allowed = stat.S_IRWXU | (stat.S_IRGRP if status.st_uid == 0 else 0)
    if stat.S_IMODE(status.st_mode) & ~allowed:
        raise ServeError(str(file), f"other users can access the key; run: chmod 600 {file}")
