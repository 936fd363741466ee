"""Loads the application to serve, and applies the command line's options to it.

Each worker gets the options as an `AppSpec`, from which it creates its own application.
"""

from __future__ import annotations

import inspect
import os
import stat
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from typing import Any, Final

from starlette.types import ASGIApp

from bridgekit.chain.link_1_startup import BridgeConfig, create_app
from bridgekit.errors import ServeError
from bridgekit.stores import MEMORY, dropped_settings, stores_from
from bridgekit.transport.tickets import KEY_BYTES, Tickets

__all__ = ["EXPECTED", "KEY_VARIABLE", "STORE_VARIABLE", "AppSpec", "check_private", "read_ticket_keys"]

EXPECTED: Final = "a BridgeConfig, a function that returns one, or an ASGI application with bridgekit's lifespan"
STORE_VARIABLE: Final = "BRIDGEKIT_STORE"
KEY_VARIABLE: Final = "BRIDGEKIT_TICKET_KEY"
SHARED_STORES: Final = ("redis:", "rediss:")
"""URL schemes of the stores that several workers can share."""


@dataclass(frozen=True, kw_only=True)
class AppSpec:
    """An application, and the options of the command line that apply to it.

    An AppSpec can be pickled, so that another process can load the application.
    """

    target: str
    """The application, as MODULE:ATTRIBUTE."""
    store: str | None = None
    """The URL of a store, or None for the application's own store. If the application chooses no store, STORE_VARIABLE
    may name one."""
    key_file: Path | None = None
    origins: Sequence[str] = ()
    runs_seconds: float | None = None
    drain_seconds: float | None = None

    def load(self, workers: int = 1) -> ASGIApp:
        """Return the application.

        Raises ServeError if the application cannot be loaded, if it does not support the options or the number of
        workers, or if the ticket keys are missing or not valid.
        """
        found = _find(self.target)
        if not isinstance(found, BridgeConfig):
            # The target is a complete application. If its store serves one worker, a second worker does not start.
            if given := self._options_given():
                raise ServeError(
                    self.target,
                    f"it is a complete application, to which options do not apply; leave out {', '.join(given)}",
                )
            return found
        store = self._store_of(found)
        single_worker = found.stores is MEMORY if store is None else not store.startswith(SHARED_STORES)
        if workers > 1 and single_worker:
            name = "memory" if store is None else store.partition(":")[0]
            raise ServeError(
                self.target,
                f"its {name} store serves one worker, not {workers}: each would know only its own sockets;"
                " use --workers 1, or give --store redis://HOST:PORT",
            )
        return create_app(self._with_options(found, store))

    def _options_given(self) -> list[str]:
        values = {
            "--store": self.store,
            "--ticket-key-file": self.key_file,
            "--origin": self.origins,
            "--runs-seconds": self.runs_seconds,
            "--drain-seconds": self.drain_seconds,
        }
        return [option for option, value in values.items() if value]

    def _store_of(self, config: BridgeConfig) -> str | None:
        """Return the URL of the store that replaces the application's own.

        Raises ServeError if the option would drop settings that the application chose for its store.
        """
        if self.store is None:
            return os.environ.get(STORE_VARIABLE) or None if config.stores is MEMORY else None
        if dropped := dropped_settings(config.stores, stores_from(self.store)):
            raise ServeError(
                self.target,
                f"--store would drop the {' and '.join(dropped)} of its BridgeConfig's stores; leave out --store, and"
                f" create the stores from the URL in {STORE_VARIABLE}, for example",
            )
        return self.store

    def _with_options(self, config: BridgeConfig, store: str | None) -> BridgeConfig:
        keys = read_ticket_keys(self.key_file, os.environ)
        if config.authorizer is not Tickets:
            if self.key_file is not None:
                raise ServeError(self.target, "its BridgeConfig has its own authorizer; leave out --ticket-key-file")
        elif keys:
            config = replace(config, authorizer=partial(Tickets, keys=keys))
        elif store is not None and store.startswith(SHARED_STORES):
            raise ServeError(
                self.target,
                "workers that share a store must also share a ticket key:"
                f" give --ticket-key-file FILE, or {KEY_VARIABLE} in the environment",
            )
        return replace(
            config,
            stores=config.stores if store is None else stores_from(store),
            origins=(*config.origins, *self.origins),
            runs_seconds=config.runs_seconds if self.runs_seconds is None else self.runs_seconds,
            drain_seconds=config.drain_seconds if self.drain_seconds is None else self.drain_seconds,
        )


def _find(target: str) -> BridgeConfig | ASGIApp:
    found: Any = _import(target)
    if callable(found) and _needs_no_arguments(found):
        with _named(target, "it"):
            found = found()
    if inspect.iscoroutine(found):
        found.close()
        raise ServeError(target, f"it is an asynchronous function; expected {EXPECTED}")
    if not isinstance(found, BridgeConfig) and not callable(found):
        raise ServeError(target, f"it is of type {type(found).__name__}; expected {EXPECTED}")
    application: BridgeConfig | ASGIApp = found
    return application


def _import(target: str) -> object:
    module, _, attribute = target.partition(":")
    if not module or not attribute or module.startswith("."):
        raise ServeError(target, f"give MODULE:ATTRIBUTE, which names {EXPECTED}")
    try:
        with _named(target, "its import"):
            imported = import_module(module)
    except ModuleNotFoundError as error:
        if error.name and f"{module}.".startswith(f"{error.name}."):
            raise ServeError(target, f"there is no module {error.name!r} in {Path.cwd()} or on the path") from error
        raise ServeError(target, f"it needs the module {error.name!r}, which is not installed; install it") from error
    try:
        return attrgetter(attribute)(imported)
    except AttributeError as error:
        raise ServeError(target, f"{module!r} has no {attribute!r}") from error


@contextmanager
def _named(target: str, what: str) -> Iterator[None]:
    """Convert an error of the application's code to a ServeError with file and line. Pass on a ModuleNotFoundError."""
    try:
        yield
    except ModuleNotFoundError:
        raise
    except (Exception, SystemExit) as error:
        file, line, *_ = traceback.extract_tb(error.__traceback__)[-1]
        at = "" if isinstance(error, SyntaxError) else f" ({file}, line {line})"
        raise ServeError(target, f"{what} raised {type(error).__name__}: {error}{at}") from error


def _needs_no_arguments(call: Callable[..., object]) -> bool:
    """Return whether the object can be called without arguments. An ASGI application cannot."""
    try:
        inspect.signature(call).bind()
    except (TypeError, ValueError):
        return False
    return True


def read_ticket_keys(file: Path | None, environment: Mapping[str, str]) -> tuple[bytes, ...]:
    """Read the ticket keys, one per line. The first key signs tickets, and all keys verify them, so that keys can be
    rotated.

    Return an empty tuple if neither the file nor the environment variable is given. Raises ServeError if the file or
    variable contains no key, if a key is too short, or if other users can read or change the file.
    """
    if file is None:
        text = environment.get(KEY_VARIABLE)
        return () if text is None else _parse_keys(os.fsencode(text), KEY_VARIABLE)
    with file.open("rb") as opened:
        # Check the open file, because the path may name another file by now.
        check_private(file, os.fstat(opened.fileno()))
        return _parse_keys(opened.read(), str(file))


def _parse_keys(text: bytes, source: str) -> tuple[bytes, ...]:
    keys = tuple(line.strip() for line in text.splitlines() if line.strip())
    if not keys:
        raise ServeError(source, "it contains no ticket key; generate one with `openssl rand -hex 32`")
    if (shortest := min(map(len, keys))) < KEY_BYTES:
        raise ServeError(
            source,
            f"a key must have {KEY_BYTES} characters or more, not {shortest}; generate one with `openssl rand -hex 32`",
        )
    return keys


def check_private(file: Path, status: os.stat_result) -> None:
    """On a POSIX system, raise ServeError if users other than the process's user and root can access the file.

    The group may read a file that root owns, because Kubernetes mounts secrets as such files.
    """
    if os.name != "posix":
        return
    if status.st_uid not in (0, os.geteuid()):
        raise ServeError(str(file), "the key file belongs to another user; copy it to a file that you own")
    allowed = stat.S_IRWXU | (stat.S_IRGRP if status.st_uid == 0 else 0)
    if stat.S_IMODE(status.st_mode) & ~allowed:
        raise ServeError(str(file), f"other users can access the key; run: chmod 600 {file}")
