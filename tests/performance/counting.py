"""Counts function calls, executed lines, encodings and writes with the interpreter's hooks, independently of time.

The counts are exact: the same code gives the same number on any machine. They cover calls on one thread. Work within a
builtin is not visible: a search through a list is one call, independent of the length of the list.
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

PACKAGE_PATHS: Final = tuple(
    f"{path}{os.sep}" for package in (bridgekit, bridgekit_verify) for path in package.__path__
)
EXCLUDED_PATHS: Final = tuple(f"{path}{os.sep}" for package in (benchmarks, tests) for path in package.__path__)
"""Code of tests and benchmarks is not counted."""

WRITES: Final = frozenset({"send", "sendall", "sendmsg", "sendto"})
"""Socket methods that make one system call each."""
PLAIN_WRITES: Final = (os.write, os.writev)
ENCODERS: Final = (msgspec.json.Encoder, msgspec.msgpack.Encoder)
ENCODES: Final = frozenset({"encode", "encode_into", "encode_lines"})
PLAIN_ENCODES: Final = (msgspec.json.encode, msgspec.msgpack.encode)
JSON_ENCODE: Final = json.JSONEncoder.iterencode.__code__
"""Called by every encoding function of json, except for a plain string."""


class Calls:
    """Counts what this thread calls in a block, with the garbage collector off, whose timing is random."""

    def __init__(self) -> None:
        self.all: Counter[str] = Counter()
        """Calls from Python code to Python, builtin and extension functions, by module and name.
        Resuming a coroutine counts as a call."""
        self.ours: Counter[str] = Counter()
        """Calls of bridgekit's functions, and their calls of builtin functions."""
        self.own: Counter[str] = Counter()
        """Calls of bridgekit's own functions only, by file and name."""
        self.lines: Counter[str] = Counter()
        """Executed lines of bridgekit's functions, by function; they show loops that make no calls."""
        self.encodings = 0
        """Encodings of objects by msgspec or json."""
        self.writes: Counter[int] = Counter()
        """System calls that send or write, by file descriptor."""
        self._collects = False
        self._traced_by: Any = None  # the trace function to restore

    def __enter__(self) -> Calls:
        self._collects = gc.isenabled()
        gc.disable()
        self._traced_by = sys.gettrace()
        sys.settrace(self._trace)
        sys.setprofile(self._profile)
        return self

    def __exit__(self, *raised: object) -> None:
        sys.setprofile(None)
        sys.settrace(self._traced_by)
        if self._collects:
            gc.enable()

    def _profile(self, frame: FrameType, what: str, argument: object) -> None:
        code = frame.f_code
        file = code.co_filename
        if file.startswith(EXCLUDED_PATHS):
            return
        if what == "call":
            name = _function_name(code)
            self.own[f"{file}:{name}"] += file.startswith(PACKAGE_PATHS)
            self.encodings += code is JSON_ENCODE
        elif what == "c_call" and isinstance(argument, BuiltinFunctionType):
            name = argument.__qualname__
            self._count_builtin(argument)
        else:
            return
        self.all[name] += 1
        if file.startswith(PACKAGE_PATHS):
            self.ours[name] += 1

    def _trace(self, frame: FrameType, what: str, argument: object) -> Any:
        code = frame.f_code
        if not code.co_filename.startswith(PACKAGE_PATHS):
            return None
        if what == "line":
            self.lines[_function_name(code)] += 1
        return self._trace

    def _count_builtin(self, function: BuiltinFunctionType) -> None:
        of, name = function.__self__, function.__name__
        self.encodings += function in PLAIN_ENCODES or (name in ENCODES and isinstance(of, ENCODERS))
        if name in WRITES and isinstance(of, socket.socket):
            self.writes[of.fileno()] += 1
        elif function in PLAIN_WRITES:
            self.writes[-1] += 1


def _function_name(code: CodeType) -> str:
    return f"{Path(code.co_filename).stem}.{code.co_qualname}"
