# mypy: disable-error-code="import-untyped"
"""What of Numba's compiler a stage goes through: bytecode, types, LLVM's language; half of what Numba would do.

Left out, as our language does without them: rewriting (of arrays' expressions, closures, tuples' constants), branches that a
constant decides, single assignment (LLVM makes it of variables in memory; so a variable has one type, the widest of all that
is assigned to it), after each of these the analysis of all variables' lives; the optimiser and machine code (see `compile`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numba
from numba.core import types
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase
from numba.core.compiler_machinery import PassManager
from numba.core.registry import cpu_target
from numba.core.typed_passes import NativeLowering, NoPythonBackend, NopythonTypeInference
from numba.core.untyped_passes import FixupArgs, IRProcessing, TranslateByteCode

_PASSES = (TranslateByteCode, FixupArgs, IRProcessing, NopythonTypeInference, NativeLowering, NoPythonBackend)
_signatures: dict[Any, Any] = {}  # of operators and intrinsics, by the types of their arguments
_sizes: dict[Any, int] = {}  # of LLVM's types, for which Numba asks LLVM


class Pipeline(CompilerBase):
    def define_pipelines(self) -> list[Any]:
        manager = PassManager("stage")
        for each in _PASSES:
            manager.add_pass(each, each.__name__)
        manager.finalize()
        return [manager]


def jit(function: Callable[..., Any]) -> Any:
    """A helper, without the wrappers that Python would call; once, not again for each constant that is an argument."""
    options = dict(error_model="numpy", boundscheck=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
    made = numba.njit(nogil=True, pipeline_class=Pipeline, **options)(function)
    template = made.get_call_template
    made.get_call_template = lambda arguments, named: template(tuple(map(types.unliteral, arguments)), named)
    return made


class _AsWritten(JITCodeLibrary):
    """Code that is neither optimised nor compiled."""

    def _optimize_functions(self, module: Any) -> None:
        module.data_layout = self._codegen._data_layout

    def _optimize_final_module(self) -> None:
        pass

    def _finalize_final_module(self) -> None:
        """It does not go to Numba's engine, which would make machine code of it."""
        self._finalized = True

    def get_pointer_to_function(self, name: str) -> int:
        return 0


def _resolved(function: Any, context: Any, arguments: Any, named: Any) -> Any:
    """A call's signature: Numba would try all that is known of an operator for each of its calls, twice."""
    if named:
        return types.BaseFunction.get_call_type(function, context, arguments, named)
    key = function, tuple(map(types.unliteral, arguments))
    if key not in _signatures:
        _signatures[key] = types.BaseFunction.get_call_type(function, context, key[1], named)
    return _signatures[key]


def _size(kind: Any) -> int:
    context = cpu_target.target_context
    if kind not in _sizes:
        _sizes[kind] = type(context).get_abi_sizeof(context, kind)
    return _sizes[kind]


@contextmanager
def as_written() -> Iterator[None]:
    target = cpu_target.target_context
    codegen = target.codegen()
    codegen._library_class, codegen.set_env = _AsWritten, lambda name, environment: None  # which Python objects would be in
    types.Function.get_call_type, target.get_abi_sizeof = _resolved, _size
    try:
        yield
    finally:
        del codegen._library_class, codegen.set_env, types.Function.get_call_type, target.get_abi_sizeof
