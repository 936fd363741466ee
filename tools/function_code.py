"""Compare the compiled code of two versions of a module, function by function. No I/O."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Hashable, Iterator
from types import CodeType

__all__ = ["changed_functions"]


def changed_functions(source: str, changed: str, path: str) -> list[tuple[CodeType, CodeType]] | None:
    """Return the code of each changed function before and after the change, or None if code outside functions changed.

    A nested function counts as code of the outer function, and default values and decorators as code outside functions.
    `changed` must have the format of `ast.unparse`, because the position of lines has a small effect on the code.
    """
    original = _compiled(source, path)
    plain, after = _compiled(ast.unparse(ast.parse(source)), path), _compiled(changed, path)
    if _content(plain, nested=False) != _content(after, nested=False):
        return None
    functions = zip(*map(_functions, (original, plain, after)), strict=True)
    return [(before, new) for before, old, new in functions if _content(old) != _content(new)]


def _compiled(source: str, path: str) -> CodeType:
    return compile(source, path, "exec", dont_inherit=True)


def _is_function(code: CodeType) -> bool:
    """Return whether the code is that of a function, and not that of a module or a class body."""
    return bool(code.co_flags & inspect.CO_OPTIMIZED)


def _functions(code: CodeType) -> Iterator[CodeType]:
    """Yield the functions that are defined in a module, outside other functions."""
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            if _is_function(constant):
                yield constant
            else:
                yield from _functions(constant)


def _content(code: CodeType, *, nested: bool = True) -> Hashable:
    """Return the parts of the code that decide what it does, without line numbers. Nested functions are included only
    if `nested` is true."""
    constants = tuple(
        _constant(each, nested=nested)
        for each in code.co_consts
        if nested or not (isinstance(each, CodeType) and _is_function(each))
    )
    names = code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars
    return code.co_name, code.co_flags, code.co_code, names, constants


def _constant(value: object, *, nested: bool) -> Hashable:
    if isinstance(value, CodeType):
        return _content(value, nested=nested)
    return type(value).__name__, repr(value)
