"""The hierarchy of bridgekit's errors. Errors carry their data as attributes. Most messages say what to do."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

__all__ = [
    "AgentExited",
    "AsyncioRequired",
    "BridgekitError",
    "DeterministicStartupError",
    "Disconnected",
    "FrameTooLarge",
    "InvalidId",
    "MalformedFrame",
    "MappingFull",
    "NotInstalled",
    "PayloadError",
    "RunAlreadyMapped",
    "ServeError",
    "ShuttingDown",
    "StoreInUse",
    "StoreUnavailable",
    "StoreUnusable",
    "SubscriptionRefused",
    "SuiteNotInstalled",
    "ThreadNotOwned",
    "UnknownAgent",
    "UnknownEventType",
    "UnknownName",
    "WorkerLost",
    "WrongEventLoop",
    "text_for_users",
    "unwrap_single_error",
]

_WORD: Final = re.compile(r"\(?([^\W\d_]{1,20}(?:['’][a-z]{1,2})?)[).,;!?]{0,3}")
_SECRET: Final = re.compile(r"(?i)auth|bearer|cookie|cred|key|login|otp|pass|pin\b|pwd|secret|sign|token")
"""A message that contains one of these words may contain a secret."""
SHOWN_CHARACTERS: Final = 200
"""Longest form of an unknown name in a message."""
_MESSAGE_CHARACTERS: Final = 4_096
"""A longer message is cut before it is checked, because checking megabytes would stop the event loop for seconds."""


def text_for_users(error: BaseException) -> str:
    """Return the type of the error, and its message if the message cannot contain a secret.

    A message cannot contain a secret if it has only ordinary words, without values, and mentions no secret. An error
    whose class has `for_users = True` always shows its message. The caller logs the whole error.
    """
    name = type(error).__name__
    try:
        message = str.__getitem__(str(error), slice(_MESSAGE_CHARACTERS))
    except BaseException:  # noqa: BLE001  # the error's own `__str__` may fail, and the run must still end
        return f"{name}: its message could not be formatted"
    if getattr(type(error), "for_users", False) is True or _has_only_words(message):
        return f"{name}: {message}" if message else name
    return f"{name} (the server's log has the message)"


def _has_only_words(message: str) -> bool:
    found = [_WORD.fullmatch(word) for word in message.split()]
    words = [each[1] for each in found if each]
    ordinary = all(word in (word.lower(), word.capitalize(), word[:6].upper()) for word in words)
    return len(words) == len(found) and ordinary and not _SECRET.search(message)


class BridgekitError(Exception):
    """Base class of every error that bridgekit raises deliberately."""

    status_code = 500
    """The status of an HTTP response that reports the error."""
    for_users = False
    """True if the message contains no secret, so that the users of an application may read it."""


class InvalidId(BridgekitError, ValueError):
    """A value from a caller or client is not a valid id, cursor, request or key. `field` names the argument."""

    status_code = 422

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


class UnknownName(BridgekitError, LookupError):
    """The name is not that of a registered agent, tool, variant or other object."""

    for_users = True

    def __init__(self, kind: str, name: object, known: tuple[str, ...]) -> None:
        choices = ", ".join(repr(str(choice)) for choice in known) or "none"
        super().__init__(f"no {kind} is called {_shortened(name)}; known: {choices}")
        self.kind = kind
        self.name = name
        self.known = known


def _shortened(name: object) -> str:
    """Return a printable form of at most about SHOWN_CHARACTERS characters."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = SHOWN_CHARACTERS
    try:
        return short.repr(name)
    except ValueError:
        return type(name).__name__  # Python does not convert an integer of thousands of digits to text


class UnknownAgent(UnknownName):
    """The application has no agent of this name."""

    status_code = 404


class UnknownEventType(UnknownName, ValueError):
    """Neither bridgekit nor the application defines this event type."""


class PayloadError(BridgekitError, ValueError):
    """JSON cannot represent the payload unchanged, so the event is not sent."""

    for_users = True

    def __init__(self, event_type: str, problem: str) -> None:
        super().__init__(f"payload of {event_type}: {problem}")
        self.event_type = event_type
        self.problem = problem


class FrameTooLarge(BridgekitError, ValueError):
    """A frame exceeds the size limit. Send a reference to the large value, or raise the limit."""

    for_users = True

    def __init__(self, what: str, size_bytes: int, limit_bytes: int) -> None:
        super().__init__(
            f"{what}: {size_bytes:,} bytes exceed the limit of {limit_bytes:,}; send a reference to the value instead"
        )
        self.what = what
        self.size_bytes = size_bytes
        self.limit_bytes = limit_bytes


class MalformedFrame(BridgekitError, ValueError):
    """A received frame does not follow the wire format."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"not an event frame: {problem}")
        self.problem = problem


class RunAlreadyMapped(BridgekitError):
    """The run is already mapped to another thread. A run never changes its thread."""

    def __init__(self, run_id: str, thread_id: str, requested: str) -> None:
        super().__init__(f"run {run_id!r} belongs to thread {thread_id!r} and cannot be moved to {requested!r}")
        self.run_id = run_id
        self.thread_id = thread_id
        self.requested = requested


class MappingFull(BridgekitError):
    """The mapping is full of routes of active runs, which are never evicted.

    Close runs that have ended, or raise the limit.
    """

    status_code = 503

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"the mapping is full: it holds {limit:,} active runs; call cleanup_mapping for each run that has ended"
        )
        self.limit = limit


class StoreUnavailable(BridgekitError):
    """The store did not answer in time, but may have executed the operation. Try again."""

    status_code = 503

    def __init__(self, store: str, problem: str) -> None:
        super().__init__(f"the {store} store is unavailable: {problem}")
        self.store = store
        self.problem = problem


class StoreInUse(BridgekitError):
    """Another process has opened the store, and this kind of store serves a single process."""

    def __init__(self, store: str, holder: str) -> None:
        super().__init__(
            f"the {store} store serves a single process, and {holder}; two processes would not see each other's"
            " sockets. For more than one worker, use the Redis store"
        )
        self.store = store
        self.holder = holder


class StoreUnusable(BridgekitError):
    """A store cannot use its file, for example because the file is damaged or belongs to another program. Nothing was
    changed."""

    def __init__(self, store: str, path: str, problem: str) -> None:
        super().__init__(f"the {store} store cannot use {path}: {problem}")
        self.store = store
        self.path = path
        self.problem = problem


class AsyncioRequired(BridgekitError):
    """A feature that needs asyncio was used on another async backend."""

    def __init__(self, feature: str) -> None:
        super().__init__(
            f"{feature} needs asyncio: run the application on asyncio, or choose the memory or SQLite store"
        )
        self.feature = feature


class WrongEventLoop(BridgekitError):
    """A method was called outside the OS thread or the event loop on which the application runs."""

    for_users = True

    def __init__(self, call: str) -> None:
        super().__init__(
            f"{call} was called outside the application's event loop: in a thread that anyio started, such as a tool's,"
            " use anyio.from_thread.run, or run_sync for a plain function; in any other thread,"
            " asyncio.run_coroutine_threadsafe with the application's loop"
        )
        self.call = call


class ShuttingDown(BridgekitError):
    """The application is shutting down and accepts no new run.

    Try again on another worker, or on this worker after its restart.
    """

    status_code = 503

    def __init__(self) -> None:
        super().__init__("the application is shutting down and accepts no new run; try again in a moment")


class AgentExited(BridgekitError):
    """An agent or a tool raised SystemExit or KeyboardInterrupt. The error ends the run but not the server."""

    for_users = True

    def __init__(self, agent_name: str, error: BaseException) -> None:
        code = getattr(error, "code", None)
        shown = f"({code})" if type(code) is int else ""  # a text may contain a secret
        super().__init__(f"agent {agent_name!r} raised {type(error).__name__}{shown}; return from `execute` instead")
        self.agent_name = agent_name
        self.code = code


class WorkerLost(BridgekitError):
    """The worker that executed a run died, or was silent for so long that it counts as dead."""

    for_users = True

    def __init__(self) -> None:
        super().__init__("the worker that executed the run was lost; start it again")


class ThreadNotOwned(BridgekitError):
    """The thread belongs to another user."""

    status_code = 403

    def __init__(self, thread_id: str, user_id: str) -> None:
        super().__init__(f"thread {thread_id!r} does not belong to user {user_id!r}")
        self.thread_id = thread_id
        self.user_id = user_id


class SubscriptionRefused(BridgekitError):
    """The client may not subscribe to the thread. `code` is a WebSocket close code from 4500 to 4999."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"subscription refused ({code}): {reason}")
        self.code = code
        self.reason = reason


class Disconnected(BridgekitError):
    """The WebSocket was closed. Close codes from 4000 to 4499 ask the client to reconnect."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"disconnected ({code}): {reason or 'no reason given'}")
        self.code = code
        self.reason = reason


class DeterministicStartupError(BridgekitError):
    """The application did not start, and no part of it is left running. `link` (1 to 10) is the link that failed."""

    def __init__(self, link: int, reason: str) -> None:
        super().__init__(f"link {link}: {reason}")
        self.link = link
        self.reason = reason

    @classmethod
    @contextmanager
    def at(cls, link: int, component: str) -> Iterator[None]:
        """Raise any Exception inside the block as a DeterministicStartupError of the link. If blocks are nested, the
        innermost block names the link."""
        try:
            yield
        except cls:
            raise
        except Exception as error:
            raise cls(link, f"{component} could not be created: {type(error).__name__}: {error}") from error


class NotInstalled(BridgekitError, ImportError):
    """An optional package is missing. `requirement` is the argument for `pip install`."""

    def __init__(self, use: str, requirement: str) -> None:
        super().__init__(f"{use} needs a package that is not installed: pip install {requirement!r}")
        self.use = use
        self.requirement = requirement


class SuiteNotInstalled(BridgekitError, ImportError):
    """A command of the verification suite was run without the suite, or without a package that the suite needs."""

    def __init__(self, package: str) -> None:
        super().__init__(
            f"this command needs {package}, which is not installed: pip install '.[notebooks]' in a checkout of"
            " bridgekit, or replace the dot with the path of its wheel"
        )
        self.package = package


class ServeError(BridgekitError):
    """A server cannot do what was requested. `what` names the cause, such as an application, an edge, a store or a
    file."""

    def __init__(self, what: str, problem: str) -> None:
        super().__init__(f"{what}: {problem}")
        self.what = what
        self.problem = problem


@contextmanager
def unwrap_single_error() -> Iterator[None]:
    """Raise the first leaf error in place of an exception group, so that callers can catch the error by its type.

    A notebook does not display the errors inside a group, and `except InvalidId` does not match a group.
    """
    leaf: BaseException | None = None
    try:
        yield
    except BaseExceptionGroup as group:
        leaf = group
        while isinstance(leaf, BaseExceptionGroup):
            leaf = leaf.exceptions[0]
    if leaf is not None:
        try:
            raise leaf
        finally:
            # Python sets the group as the context of `leaf` if the group is leaving a `with` block. A notebook does not
            # display an error that has a group as its context.
            leaf.__context__ = None
