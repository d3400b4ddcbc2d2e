# mypy: disable-error-code="import-untyped"
"""From the Python of a stage to LLVM's language, by Numba; nothing is optimised here (see `compile`).

Numba would optimise a function on its own, once more in each of its callers and again for its C wrapper: two thirds of the
time that a first call took. And it writes the type of an argument into every name, which for a record of 150 fields is 9 KB:
contexts have a type of their own here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import FunctionType
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.core.ccallback import CFunc
from numba.core.compiler_lock import global_compiler_lock
from numba.core.datamodel import models
from numba.core.imputils import lower_getattr_generic
from numba.core.typing.templates import AttributeTemplate
from numba.extending import infer_getattr, register_model

from . import (
    broadcast_stages,
    broadcast_tiles,
    depthwise_stages,
    fft_spoiled,
    fft_stages,
    kernels,
    pool_stages,
    transforms,
    vectors,
    winograd_stages,
)
from .contexts import CONTEXT, POOL_CONTEXT
from .pipeline import Pipeline, as_written, jit

# name: the function and how many int64 it takes besides the context
STAGES: dict[str, tuple[Any, int]] = {
    "fill": (kernels.fill_stage, 7),
    "gemm": (kernels.gemm_stage, 8),
    "direct": (kernels.direct_stage, 8),
    "broadcast": (broadcast_stages.broadcast_stage, 8),
    "spread": (broadcast_stages.spread_stage, 7),
    "depthwise": (depthwise_stages.depthwise_stage, 1),
    "finish": (kernels.finish_stage, 7),
    "convolve": (kernels.convolve_stage, 1),
    "pack": (kernels.pack_stage, 1),
    **{name: (function, 1) for name, function in pool_stages.STAGES.items()},
    **winograd_stages.STAGES,
    **fft_stages.STAGES,
    **fft_spoiled.STAGES,
}
# what is vector code and nothing else, made to order: "pixels 12 2" or "out 4 3", by the first word, of a scalar's type and the
# numbers; and how many int64 it takes
VECTOR_CODE: dict[str, tuple[Any, int]] = {
    "pixels": (vectors.pixels_tiles, 8),
    "channels": (vectors.channels_tiles, 13),
    "vectors": (broadcast_tiles.broadcast_tiles, 11),
    "each": (functools.partial(broadcast_tiles.broadcast_tiles, each=True), 11),
    **{kind: (functools.partial(transforms.columns, kind), 9) for kind in ("weights", "in", "out", "last")},
}


class Context(types.Type):
    """The address of a context; its fields are attributes."""

    def __init__(self, kind: str, record: np.dtype[Any]) -> None:
        self.record = record
        super().__init__(name=kind)


@register_model(Context)
class _Address(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, ir.IntType(64))


@infer_getattr
class _Fields(AttributeTemplate):
    key = Context

    def generic_resolve(self, kind: Any, name: str) -> Any:
        return numba.from_dtype(kind.record.fields[name][0]) if name in kind.record.fields else None


@lower_getattr_generic(Context)
def _field(context: Any, builder: Any, kind: Any, value: Any, name: str) -> Any:
    of, offset = kind.record.fields[name][:2]
    element = context.get_value_type(numba.from_dtype(of))
    place = builder.inttoptr(builder.add(value, ir.IntType(64)(offset)), element.as_pointer())
    return builder.load(place)


_CONTEXTS = {kind: Context(kind, record) for kind, record in (("context", CONTEXT), ("pool", POOL_CONTEXT))}


@global_compiler_lock
def written(name: str, dtype: str) -> tuple[str, str, int]:
    """LLVM's text of a stage, or activation, which function of it is called, and how many arguments that has."""
    kind, *numbers = name.split()
    if kind in VECTOR_CODE and numbers:
        emitted, arguments = VECTOR_CODE[kind]
        return _emitted(emitted(numba.from_dtype(np.dtype(dtype)), *map(int, numbers)), arguments)
    function, arguments = STAGES.get(name) or _made_to_order(name)
    context = _CONTEXTS["pool" if name in pool_stages.STAGES else "context"]
    options = {"nopython": True, "error_model": "numpy", "boundscheck": False}
    signature = (context, *[types.int64] * arguments), types.void
    with as_written():
        made = CFunc(_entry(function, arguments, dtype), signature, locals={}, options=options,
                     pipeline_class=Pipeline)._compile_uncached()
        made.library.finalize()
    return str(made.library._final_module), made.fndesc.llvm_cfunc_wrapper_name, 1 + arguments


def _made_to_order(name: str) -> tuple[Any, int]:
    """An activation, or a tile of depthwise, "tile 3 1 8" of a kernel, a stride and a number of rows."""
    kind, *lengths = name.split()
    if kind == "tile":
        return depthwise_stages.tile_stage(*map(int, lengths)), 9
    return kernels.activation_stage(name), 2


def _emitted(emit: Callable[[Any, Any], None], arguments: int) -> tuple[str, str, int]:
    """Vector code, which needs none of Numba's passes."""
    module = ir.Module()
    function = vectors._function(module, "stage", arguments, emit)
    function.linkage = "external"
    return str(module), function.name, arguments


def _entry(function: Callable[..., None], arguments: int, dtype: str) -> FunctionType:
    """The stage with a scalar of this dtype and its size as last arguments: ``body(context, a, b, like, size)``."""
    kind = np.dtype(dtype)
    names = {"__name__": __name__, "body": jit(function), "like": kind.type(0), "size": kind.itemsize}
    letters = ", ".join("abcdefghi"[:arguments])
    exec(f"def entry(context, {letters}):\n    body(context, {letters}, like, size)", names)
    made = names["entry"]
    assert isinstance(made, FunctionType)
    return made
