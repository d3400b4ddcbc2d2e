"""A fault in the text of a module: a few words of it are others, and whoever calls its functions meets them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from types import CodeType, ModuleType
from typing import Any, NamedTuple

import pytest

from fastconv import candidates, lowering, lowering_costs, phases_at_once, plan, pool_calls, weight_gradient
from fastconv.kept import Kept


class Fault(NamedTuple):
    name: str
    module: ModuleType
    right: str  # stands there exactly once
    wrong: str


def plant(patch: pytest.MonkeyPatch, fault: Fault) -> None:
    """Give the function, or method, in which the text stands the code of the text with the fault, until `patch` is undone. It
    stays the same object, so that it is wrong for all that imported it.

    Raises:
        AssertionError: the text stands there no longer, or not in a function.
    """
    source = inspect.getsource(fault.module)
    assert source.count(fault.right) == 1, "the source has changed: plant it elsewhere"
    changed = 0
    before = dict(_functions(compile(source, fault.module.__name__, "exec")))
    for name, code in _functions(compile(source.replace(fault.right, fault.wrong), fault.module.__name__, "exec")):
        if code != before[name]:
            patch.setattr(_plain(functools.reduce(getattr, name.split("."), fault.module)), "__code__", code)
            changed += 1
    assert changed == 1, "a fault is in one function"
    patch.setattr(pool_calls, "_memo", Kept(1 << 20))
    forget()


def forget() -> None:
    """What was made of problems before is made again."""
    for module in (candidates, lowering, lowering_costs, phases_at_once, plan, weight_gradient):
        for value in vars(module).values():
            if hasattr(value, "cache_clear"):
                value.cache_clear()


def _functions(code: CodeType, path: str = "") -> Iterator[tuple[str, CodeType]]:
    """(qualified name, code) of a module's functions and of its classes' methods; what is inside of these is their constant."""
    for each in code.co_consts:
        if isinstance(each, CodeType):
            name = path + each.co_name
            if each.co_flags & inspect.CO_OPTIMIZED:
                yield name, each
            else:
                yield from _functions(each, f"{name}.")


def _plain(found: Any) -> Callable[..., Any]:
    """The function itself, without a cache, a context or a property around it."""
    return inspect.unwrap(found.fget if isinstance(found, property) else found)
