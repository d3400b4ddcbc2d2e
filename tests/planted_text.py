"""A fault in the text of a module: a few words of it are others, and whoever calls its functions meets them."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Iterator
from types import CodeType, ModuleType
from typing import NamedTuple

import pytest

from fastconv import candidates, lowering, lowering_costs, phases_at_once, plan, pool_calls, weight_gradient
from fastconv.kept import Kept


class Fault(NamedTuple):
    name: str
    module: ModuleType
    right: str  # stands there exactly once
    wrong: str


@contextlib.contextmanager
def planted(fault: Fault) -> Iterator[None]:
    """Inside, the function, or method, in which the text stands has the code of the text with the fault. It stays the same
    object, so that it is wrong for all that imported it.

    Raises:
        AssertionError: the text stands there no longer, or not in one function.
    """
    source = inspect.getsource(fault.module)
    assert source.count(fault.right) == 1, "the source has changed: plant it elsewhere"
    before = dict(_functions(compile(source, fault.module.__name__, "exec")))
    after = dict(_functions(compile(source.replace(fault.right, fault.wrong), fault.module.__name__, "exec")))
    (name,) = (name for name in after if after[name] != before[name])
    found = functools.reduce(getattr, name.split("."), fault.module)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(inspect.unwrap(found), "__code__", after[name])  # that of the function in its cache or context
            patch.setattr(pool_calls, "_memo", Kept(1 << 20))
            forget()
            yield
    finally:
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
