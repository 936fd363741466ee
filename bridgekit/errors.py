"""One tree of errors. Each carries what it is about as data and says in its text what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = [
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
    "UnknownEventType",
    "UnknownName",
    "unwrap_single_error",
]


class BridgekitError(Exception):
    """Root of every error that bridgekit raises on purpose."""


class InvalidId(BridgekitError, ValueError):
    """An id that came from outside and is refused at the border."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


class UnknownName(BridgekitError, LookupError):
    """A name (of an agent, a tool, a variant, …) that nothing is registered under."""

    def __init__(self, kind: str, name: object, known: tuple[str, ...]) -> None:
        choices = ", ".join(repr(choice) for choice in known) or "none"
        super().__init__(f"no {kind} is called {name!r}; known: {choices}")
        self.kind = kind
        self.name = name
        self.known = known


class UnknownEventType(UnknownName, ValueError):
    """An event type that the wire format does not have."""


class PayloadError(BridgekitError, ValueError):
    """A payload that JSON cannot carry unchanged."""

    def __init__(self, event_type: str, problem: str) -> None:
        super().__init__(f"payload of {event_type}: {problem}")
        self.event_type = event_type
        self.problem = problem


class FrameTooLarge(BridgekitError, ValueError):
    """A frame over the limit. Send a reference to the large thing, or raise the limit."""

    def __init__(self, what: str, size_bytes: int, limit_bytes: int) -> None:
        super().__init__(f"{what}: {size_bytes:,} bytes, the limit is {limit_bytes:,}; send a reference instead")
        self.what = what
        self.size_bytes = size_bytes
        self.limit_bytes = limit_bytes


class MalformedFrame(BridgekitError, ValueError):
    """A frame that came from outside and is not an event of the wire format."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"not an event frame: {problem}")
        self.problem = problem


class RunAlreadyMapped(BridgekitError):
    """A run may not move to another thread: its events would reach somebody else."""

    def __init__(self, run_id: str, thread_id: str, requested: str) -> None:
        super().__init__(f"run {run_id!r} belongs to thread {thread_id!r}; it cannot be moved to {requested!r}")
        self.run_id = run_id
        self.thread_id = thread_id
        self.requested = requested


class MappingFull(BridgekitError):
    """No room for another live run's route, and a live one is never evicted. Close runs, or allow for more."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"{limit:,} runs are live, which is the limit: call cleanup_mapping for those that have ended")
        self.limit = limit


class StoreUnavailable(BridgekitError):
    """The store did not answer in time. Nothing is known of what it was asked; try again."""

    def __init__(self, store: str, problem: str) -> None:
        super().__init__(f"the {store} store does not answer: {problem}")
        self.store = store
        self.problem = problem


class StoreInUse(BridgekitError):
    """Another process has the store, and this kind is for one. Use the Redis store for more than one worker."""

    def __init__(self, store: str, holder: str) -> None:
        super().__init__(
            f"the {store} store serves one process, and {holder}; each would know only its own sockets."
            " For more than one worker use the Redis store"
        )
        self.store = store
        self.holder = holder


class StoreUnusable(BridgekitError):
    """A store cannot be kept there: something else is there, or nothing can be. What is there was not changed."""

    def __init__(self, store: str, place: str, problem: str) -> None:
        super().__init__(f"the {store} store cannot be kept in {place}: {problem}")
        self.store = store
        self.place = place
        self.problem = problem


class AsyncioRequired(BridgekitError):
    """A part that needs asyncio was used on another event loop."""

    def __init__(self, part: str) -> None:
        super().__init__(f"{part} needs asyncio: run the application on asyncio, or choose the memory or SQLite store")
        self.part = part


class ShuttingDown(BridgekitError):
    """The application is being stopped and takes no new run. Another worker, or this one in a moment, will."""

    def __init__(self) -> None:
        super().__init__("the application is shutting down and takes no new run; try again in a moment")


class ThreadNotOwned(BridgekitError):
    """A user asked for a thread that belongs to another user."""

    def __init__(self, thread_id: str, user_id: str) -> None:
        super().__init__(f"thread {thread_id!r} does not belong to user {user_id!r}")
        self.thread_id = thread_id
        self.user_id = user_id


class SubscriptionRefused(BridgekitError):
    """A socket that may not have the thread it asks for. `code` is a WebSocket close code, 4500 to 4999."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"subscription refused ({code}): {reason}")
        self.code = code
        self.reason = reason


class Disconnected(BridgekitError):
    """The socket was closed. Codes 4000 to 4499 ask the client to connect again."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"disconnected ({code}): {reason or 'no reason given'}")
        self.code = code
        self.reason = reason


class DeterministicStartupError(BridgekitError):
    """The application did not start, and nothing of it is left running. Names the link (1 to 10) that failed."""

    def __init__(self, link: int, reason: str) -> None:
        super().__init__(f"link {link}: {reason}")
        self.link = link
        self.reason = reason

    @classmethod
    @contextmanager
    def at(cls, link: int, part: str) -> Iterator[None]:
        """Charge whatever goes wrong inside the block to that link; the innermost block has the say."""
        try:
            yield
        except cls:
            raise
        except Exception as error:
            raise cls(link, f"{part} could not be made: {type(error).__name__}: {error}") from error


class NotInstalled(BridgekitError, ImportError):
    """A package that most uses do without, and this one needs. `requirement` is what to give to pip."""

    def __init__(self, use: str, requirement: str) -> None:
        super().__init__(f"{use} needs a package that is not installed: pip install {requirement!r}")
        self.use = use
        self.requirement = requirement


class SuiteNotInstalled(BridgekitError, ImportError):
    """A command of the verification suite without the suite, or without the packages that it needs."""

    def __init__(self, package: str) -> None:
        super().__init__(
            f"this command needs {package}, which is not installed: pip install '.[notebooks]' in a checkout of"
            " bridgekit, or the same with the path of its wheel in place of the dot"
        )
        self.package = package


class ServeError(BridgekitError):
    """A server cannot do what was requested. `what` is the application, edge, file or variable concerned."""

    def __init__(self, what: str, problem: str) -> None:
        super().__init__(f"{what}: {problem}")
        self.what = what
        self.problem = problem


@contextmanager
def unwrap_single_error() -> Iterator[None]:
    """Raise the first error of an exception group alone, as the caller of a task group's owner expects it.

    A notebook shows no error for a group, and `except InvalidId` does not see into one.
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
            # Inside a `with` that is being left by the group, the group becomes the context all the same; a
            # notebook would then show nothing.
            leaf.__context__ = None
