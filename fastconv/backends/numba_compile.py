"""Compilation of the stages of the Numba backend, once per dtype, and their cache on disk.

What a first call compiles, measured on one Zen 3 core (seconds of CPU, numba 0.68): fill 1.9 (0.9 of them Numba waking up),
gemm 1.2, finish 1.5, convolve 1.2, pack 0.45; direct 0.4 in place of gemm; an activation other than relu 0.2 to 0.3.
Together about 6, once per dtype and machine; from the cache 0.4, most of it the import of Numba.
"""

from __future__ import annotations

import functools
import hashlib
import os
import threading
from pathlib import Path
from types import FunctionType
from typing import Any

import numba
import numpy as np
from numba import types

from .. import activations, settings
from . import numba_kernels, numba_vectors
from .numba_kernels import CONTEXT

# name: the function and how many int64 it takes besides the context
STAGES = {
    "fill": (numba_kernels.fill_stage, 7),
    "gemm": (numba_kernels.gemm_stage, 5),
    "direct": (numba_kernels.direct_stage, 5),
    "finish": (numba_kernels.finish_stage, 7),
    "convolve": (numba_kernels.convolve_stage, 1),
    "pack": (numba_kernels.pack_stage, 1),
}

_config: Any = numba.config
_compiled: dict[tuple[str, str, str | None], Any] = {}
_lock = threading.Lock()


def stage(name: str, dtype: str) -> Any:
    """A stage, or activation, as a Numba cfunc: with `address` (for native callers) and `ctypes` (for Python).

    Compiled when first needed, then kept on disk: in the cache directory of the settings, else where Numba keeps its own
    (beside this file, or in the user's cache); nowhere if neither can be written, or the user has none.
    """
    directory = settings.current().cache_dir
    key = (name, dtype, directory)
    found = _compiled.get(key)
    if found is None:
        with _lock:
            found = _compiled.get(key) or _compile(name, dtype, directory)
            _compiled[key] = found
    return found


def _compile(name: str, dtype: str, directory: str | None) -> Any:
    function, arguments = STAGES.get(name) or (numba_kernels.activation_stage(name), 2)
    signature = types.void(types.CPointer(numba.from_dtype(CONTEXT)), *[types.int64] * arguments)
    entry = _entry(function, arguments, dtype, f"{stamp()} {name}")
    options: Any = {"nopython": True, "error_model": "numpy", "boundscheck": False}
    before = _config.CACHE_DIR
    try:
        if directory is not None:
            _config.CACHE_DIR = str(Path(directory) / "numba")
        return numba.cfunc(signature, cache=bool(_config.CACHE_DIR) or _has_a_place(), **options)(entry)
    except (RuntimeError, OSError):  # no directory can be written
        return numba.cfunc(signature, **options)(entry)
    finally:
        _config.CACHE_DIR = before


def _has_a_place() -> bool:
    """Whether Numba finds a folder of its own; without HOME it would make one named ``~``."""
    return settings.user_cache() is not None or os.access(Path(__file__).parent, os.W_OK)


@functools.cache
def stamp() -> str:
    """Differs between versions of what a stage is made of, and between vector widths."""
    modules = (numba_kernels, numba_vectors, activations)
    texts = [Path(module.__file__ or "").read_bytes() for module in modules]
    return hashlib.sha256(b"".join(texts) + repr(numba_vectors.TARGET).encode()).hexdigest()


def _entry(function: Any, arguments: int, dtype: str, key: str) -> Any:
    """The Python function of a stage's C function.

    Numba's cache tells functions apart by their code, CPU, and pickled closure. So the closure is the key, a string, and
    what would pickle differently in every process, the compiled body, is a global.
    """
    kind = np.dtype(dtype)
    names = {"__name__": __name__, "body": numba_kernels.jit(function), "carray": numba.carray, "like": kind.type(0),
             "size": kind.itemsize}
    template = _TEMPLATES[arguments](f"{key} {dtype}")
    return FunctionType(template.__code__, names, template.__name__, None, template.__closure__)


# linters see neither `body`, `like` nor `size`: `_entry` provides them


def _one(key):  # type: ignore[no-untyped-def]
    def stage_of_one(context, a):  # type: ignore[no-untyped-def]
        key  # noqa: B018
        body(carray(context, 1)[0], a, like, size)  # noqa: F821

    return stage_of_one


def _two(key):  # type: ignore[no-untyped-def]
    def stage_of_two(context, a, b):  # type: ignore[no-untyped-def]
        key  # noqa: B018
        body(carray(context, 1)[0], a, b, like, size)  # noqa: F821

    return stage_of_two


def _five(key):  # type: ignore[no-untyped-def]
    def stage_of_five(context, a, b, c, d, e):  # type: ignore[no-untyped-def]
        key  # noqa: B018
        body(carray(context, 1)[0], a, b, c, d, e, like, size)  # noqa: F821

    return stage_of_five


def _seven(key):  # type: ignore[no-untyped-def]
    def stage_of_seven(context, a, b, c, d, e, f, g):  # type: ignore[no-untyped-def]
        key  # noqa: B018
        body(carray(context, 1)[0], a, b, c, d, e, f, g, like, size)  # noqa: F821

    return stage_of_seven


_TEMPLATES = {1: _one, 2: _two, 5: _five, 7: _seven}
