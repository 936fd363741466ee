"""Observe calls between objects from outside: their arguments, results, log lines and caught exceptions.

An observed class is a subclass that passes every call on unchanged. An exception that a call catches is recorded if an
observed call inside that call raised it, or if the call logged a line while it handled the exception. An exception that
is raised again does not count as caught.
"""

from __future__ import annotations

import inspect
import logging
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache, partial, wraps
from types import MethodType
from typing import Any, Final

from bridgekit.events import Receipt
from bridgekit_verify.measure.history import BridgeBinding, EventKey

__all__ = [
    "PASSING_ON",
    "LinkCall",
    "Listener",
    "LogLine",
    "log_lines_recorded",
    "observe_instance",
    "observed",
    "watched",
]


@dataclass(frozen=True, slots=True, eq=False)
class LogLine:
    """A log record, and the exception that the code was handling when it logged the record."""

    record: logging.LogRecord
    error: BaseException | None

    def __str__(self) -> str:
        try:
            message = self.record.getMessage()
        except (TypeError, ValueError, KeyError):  # the log arguments do not fit the message format
            message = str(self.record.msg)
        return f"{self.record.levelname} {message}"


@dataclass(slots=True, eq=False)
class LinkCall:
    """One call of an observed method. The fields after `caller` are complete when the call has ended."""

    link: int
    """The number of the link that was called."""
    method: str
    part: Any
    """The object that was called, or None for a function."""
    given: dict[str, Any]
    """The arguments, by the parameter names of the sound link."""
    caller: LinkCall | None
    calls: list[LinkCall] = field(default_factory=list)
    """The observed calls that this call made."""
    result: Any = None
    error: BaseException | None = None
    entered: bool = True
    """False if the arguments did not match the parameters, so that the method did not start."""
    logged: list[LogLine] = field(default_factory=list)
    key: EventKey | None = None
    """The event that the call carries. Listeners set this field, `request` and `held`."""
    request: str | None = None
    """The request of the run that the call belongs to."""
    held: BridgeBinding | None = None
    """The adapter's binding when the agent asked the adapter to emit the event."""

    def caught(self, key: EventKey | None = None) -> list[BaseException]:
        """Return the exceptions that this call caught. With `key`, omit exceptions of calls for other events."""
        inside = [call.error for call in self.calls if key is None or call.key in (None, key)]
        raised = _chain(self.error)
        candidates = {id(error): error for error in (*inside, *(line.error for line in self.logged)) if error}
        return [error for error in candidates.values() if id(error) not in raised]


Listener = Callable[[LinkCall], None]
"""Called when a call begins, before the observed method runs."""

_current: ContextVar[LinkCall | None] = ContextVar("current_call", default=None)


def _chain(error: BaseException | None) -> set[int]:
    """Return the identities of an exception and of its causes and contexts."""
    found: set[int] = set()
    pending = [error]
    while pending:
        if (one := pending.pop()) is not None and id(one) not in found:
            found.add(id(one))
            pending += [one.__cause__, one.__context__]
    return found


def observed(base: Any, sound: type, methods: Mapping[str, int], listen: Listener) -> Any:
    """Return a subclass of `base` that reports the calls of its `methods`, a mapping from method name to link.

    `sound` names the parameters. The subclass keeps the name and the module of `base`, so that messages name `base`.
    """
    wrapped = {
        name: _passing_on(getattr(base, name), link, name, _parameters(getattr(sound, name)), listen)
        for name, link in methods.items()
    }
    names = {"__module__": base.__module__, "__qualname__": base.__qualname__}
    return type(base.__name__, (base,), names | wrapped)


def observe_instance(part: object, sound: type, methods: Mapping[str, int], listen: Listener) -> None:
    """Report later calls of an object's `methods` to `listen`. Methods that are already observed stay unchanged."""
    for name, link in methods.items():
        if name not in vars(part):
            method = getattr(type(part), name)
            wrapper = _passing_on(method, link, name, _parameters(getattr(sound, name)), listen)
            setattr(part, name, MethodType(wrapper, part))


def watched(function: Callable[..., Any], sound: Callable[..., Any], link: int, listen: Listener) -> Callable[..., Any]:
    """Return a wrapper that reports each call of `function` under the name and the parameter names of `sound`."""
    parameters = tuple(inspect.signature(sound).parameters)
    return partial(_passing_on(_without_part(function), link, sound.__name__, parameters, listen), None)


def _without_part(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda _, *given, **named: function(*given, **named)


@cache  # cached, because all measurements observe the same methods
def _parameters(function: Callable[..., Any]) -> tuple[str, ...]:
    return tuple(inspect.signature(function).parameters)[1:]


def _passing_on(
    method: Callable[..., Any], link: int, name: str, parameters: tuple[str, ...], listen: Listener
) -> Callable[..., Any]:
    @wraps(method)
    def pass_on(part: Any, *given: Any, **named: Any) -> Any:
        call = LinkCall(link, name, part, {**dict(zip(parameters, given, strict=False)), **named}, _current.get())
        if call.caller is not None:
            call.caller.calls.append(call)
        listen(call)
        token = _current.set(call)
        try:
            result = method(part, *given, **named)
        except BaseException as error:
            call.error = error
            call.entered = error.__traceback__ is None or error.__traceback__.tb_next is not None
            raise
        finally:
            _current.reset(token)
        if isinstance(result, Awaitable) and not isinstance(result, Receipt):
            return _await_within(call, result)
        call.result = result
        return result

    PASSING_ON.add(pass_on.__code__)  # type: ignore[attr-defined]  # `pass_on` is a function
    return pass_on


async def _await_within(call: LinkCall, awaitable: Awaitable[Any]) -> Any:
    token = _current.set(call)
    try:
        call.result = await awaitable
    except BaseException as error:
        call.error = error
        raise
    finally:
        _current.reset(token)
    return call.result


PASSING_ON: Final = {_await_within.__code__}
"""Code of the functions that pass calls on. Traceback frames with this code are neither a link's nor the harness's."""


class _CallLog(logging.Handler):
    """Logging handler that adds each record of a logger to the call in progress.

    The logger's other handlers still get only records at or above the logger's original level.
    """

    def __init__(self, logger: logging.Logger) -> None:
        super().__init__(logging.DEBUG)
        self.users = 0
        self._logger = logger
        self._before = logger.level, logger.propagate, logger.handlers
        self._enabled_from = logger.getEffectiveLevel()

    def install(self) -> None:
        self._logger.handlers, self._logger.propagate = [self], False
        self._logger.setLevel(logging.DEBUG)

    def remove(self) -> None:
        level, self._logger.propagate, handlers = self._before
        self._logger.handlers = [*handlers, *(each for each in self._logger.handlers if each is not self)]
        self._logger.setLevel(level)

    def emit(self, record: logging.LogRecord) -> None:
        if (call := _current.get()) is not None:
            error = record.exc_info[1] if record.exc_info else sys.exception()
            call.logged.append(LogLine(record, error if error is not None and _handled_within_call(error) else None))
        if record.levelno >= self._enabled_from:
            self._pass_on(record)

    def _pass_on(self, record: logging.LogRecord) -> None:
        _, propagate, handlers = self._before
        for handler in handlers:
            if record.levelno >= handler.level:
                handler.handle(record)
        parent = self._logger.parent
        # If the parents have no handlers, `callHandlers` would print the record with logging's last-resort handler.
        if propagate and parent is not None and (parent.hasHandlers() or not handlers):
            parent.callHandlers(record)


def _handled_within_call(error: BaseException) -> bool:
    """Return whether code within the recorded call in progress handles the error."""
    handler = None if error.__traceback__ is None else error.__traceback__.tb_frame
    frame = inspect.currentframe()
    while frame is not None and frame.f_code not in PASSING_ON:
        if frame is handler:
            return True
        frame = frame.f_back
    return False


@contextmanager
def log_lines_recorded(packages: Iterable[str]) -> Iterator[None]:
    """Context manager: records the log lines of these packages, at every level, in the calls that log them.

    The application's own handlers still receive the same records.
    """
    logs = []
    for name in sorted(set(packages)):
        logger = logging.getLogger(name)
        log = next((each for each in logger.handlers if isinstance(each, _CallLog)), None)
        if log is None:
            log = _CallLog(logger)
            log.install()
        log.users += 1
        logs.append(log)
    try:
        yield
    finally:
        for log in logs:
            log.users -= 1
            if not log.users:
                log.remove()
