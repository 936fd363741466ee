"""Counters that see what the interpreter does: nothing stands in an event's way, and no clock is asked.

Each count is exact: the same code gives the same number, however busy the machine is. That holds of calls on one
thread, which is all that these see. What is done inside one call of a builtin they do not see either: a search through
a list is one call, however long the list.
"""

from __future__ import annotations

import gc
import json
import os
import socket
import sys
from collections import Counter
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FrameType
from typing import Any, Final

import msgspec

import benchmarks
import bridgekit
import bridgekit_verify
import tests

__all__ = ["Calls"]

OURS: Final = tuple(f"{path}{os.sep}" for package in (bridgekit, bridgekit_verify) for path in package.__path__)
THEIRS: Final = tuple(f"{path}{os.sep}" for package in (benchmarks, tests) for path in package.__path__)
"""Who watches is not counted."""

WRITES: Final = frozenset({"send", "sendall", "sendmsg", "sendto"})
"""Methods of a socket that are a system call each."""
PLAIN_WRITES: Final = (os.write, os.writev)
ENCODERS: Final = (msgspec.json.Encoder, msgspec.msgpack.Encoder)
ENCODES: Final = frozenset({"encode", "encode_into", "encode_lines"})
PLAIN_ENCODES: Final = (msgspec.json.encode, msgspec.msgpack.encode)
JSON_ENCODE: Final = json.JSONEncoder.iterencode.__code__
"""Whichever way into the library was taken, but for a lone text."""


class Calls:
    """Counts what this thread calls in a block. Without the garbage collector, which comes when it likes."""

    def __init__(self) -> None:
        self.all: Counter[str] = Counter()
        """Functions of Python, of the interpreter and of extensions, by module and name, as far as Python calls them.
        A coroutine that goes on counts as called again."""
        self.ours: Counter[str] = Counter()
        """Of those, bridgekit's functions and what they call of the interpreter's."""
        self.own: Counter[str] = Counter()
        """Of those, bridgekit's own functions alone, by file and name."""
        self.lines: Counter[str] = Counter()
        """Lines of bridgekit's functions that were run, by function: they tell of loops that call nothing."""
        self.encodings = 0
        """Texts made of objects, by msgspec or json."""
        self.writes: Counter[int] = Counter()
        """System calls that send or write, by file descriptor."""
        self._collects = False
        self._traced_by: Any = None  # a trace function of somebody else

    def __enter__(self) -> Calls:
        self._collects = gc.isenabled()
        gc.disable()
        self._traced_by = sys.gettrace()
        sys.settrace(self._trace)
        sys.setprofile(self._see)
        return self

    def __exit__(self, *raised: object) -> None:
        sys.setprofile(None)
        sys.settrace(self._traced_by)
        if self._collects:
            gc.enable()

    def _see(self, frame: FrameType, what: str, argument: object) -> None:
        code = frame.f_code
        file = code.co_filename
        if file.startswith(THEIRS):
            return
        if what == "call":
            name = _named(code)
            self.own[f"{file}:{name}"] += file.startswith(OURS)
            self.encodings += code is JSON_ENCODE
        elif what == "c_call" and isinstance(argument, BuiltinFunctionType):
            name = argument.__qualname__
            self._look_at(argument)
        else:
            return
        self.all[name] += 1
        if file.startswith(OURS):
            self.ours[name] += 1

    def _trace(self, frame: FrameType, what: str, argument: object) -> Any:
        code = frame.f_code
        if not code.co_filename.startswith(OURS):
            return None
        if what == "line":
            self.lines[_named(code)] += 1
        return self._trace

    def _look_at(self, function: BuiltinFunctionType) -> None:
        of, name = function.__self__, function.__name__
        self.encodings += function in PLAIN_ENCODES or (name in ENCODES and isinstance(of, ENCODERS))
        if name in WRITES and isinstance(of, socket.socket):
            self.writes[of.fileno()] += 1
        elif function in PLAIN_WRITES:
            self.writes[-1] += 1


def _named(code: CodeType) -> str:
    return f"{Path(code.co_filename).stem}.{code.co_qualname}"
