"""Compilation of the stages of the Numba backend, once per dtype, and their cache on disk.

What a first call compiles, measured on one Zen 4 core (seconds of CPU, numba 0.68): gemm and direct pack 0.8 (half of it
Numba waking up), fill 1.0, finish 1.0, convolve 0.7, and gemm 1.0 or direct 0.2; winograd pack, gemm, and stages of its own:
inputs 1.0, outputs 1.3, repair 0.9, weights 0.4, the whole 0.3; depthwise 0.6; an activation other than relu 0.2 to 0.3.
Together 2 to 6, once per dtype and machine; from the cache 0.6, most of it the import of Numba. What another shape may compile:
the transforms of a length, 0.1 each, 4 to 8 of them; the depthwise tile of a kernel, stride and number of rows, 0.5.
"""

from __future__ import annotations

import functools
import hashlib
import os
import pickle
import threading
from contextlib import suppress
from pathlib import Path
from types import FunctionType
from typing import Any

import numba
import numpy as np
from numba import types
from numba.core import serialize
from numba.core.caching import CompileResultCacheImpl, FunctionCache
from numba.core.ccallback import CFunc

from ... import activations, settings
from ...algorithms import winograd
from . import (
    depthwise_stages,
    depthwise_tiles,
    fft_spoiled,
    fft_stages,
    fourier,
    kernels,
    pool_stages,
    rows,
    spectra,
    transforms,
    vectors,
    winograd_stages,
)
from .kernels import CONTEXT

# name: the function and how many int64 it takes besides the context
STAGES = {
    "fill": (kernels.fill_stage, 7),
    "gemm": (kernels.gemm_stage, 8),
    "direct": (kernels.direct_stage, 8),
    "depthwise": (depthwise_stages.depthwise_stage, 1),
    "finish": (kernels.finish_stage, 7),
    "convolve": (kernels.convolve_stage, 1),
    "pack": (kernels.pack_stage, 1),
    **{name: (function, 1) for name, function in pool_stages.STAGES.items()},
    **winograd_stages.STAGES,
    **fft_stages.STAGES,
    **fft_spoiled.STAGES,
}

_config: Any = numba.config
_compiled: dict[tuple[str, str, str | None], Any] = {}
_lock = threading.RLock()  # a signal handler may come back here


def stage(name: str, dtype: str) -> Any:
    """A stage, or activation, as a Numba cfunc: with `address` (for native callers) and `ctypes` (for Python).

    Compiled when first needed, then kept on disk: in the cache directory of the settings, else where Numba keeps its own
    (beside this file, or in the user's cache); nowhere if neither can be written, or the user has none. A cache that is damaged
    is emptied.
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
    function, arguments = STAGES.get(name) or _made_to_order(name)
    entry = _entry(function, arguments, dtype, f"{stamp()} {name}")
    record = pool_stages.POOL_CONTEXT if name in pool_stages.STAGES else CONTEXT
    before = _config.CACHE_DIR
    try:
        if directory is not None:
            _config.CACHE_DIR = str(Path(directory) / "numba")
        if _config.CACHE_DIR or _has_a_place():
            with suppress(Exception):
                return _compiled_entry(entry, arguments, record, _Cache(entry))
            with suppress(Exception):  # damaged files, of whatever kind; or no directory can be written
                emptied = _Cache(entry)
                emptied.flush()
                return _compiled_entry(entry, arguments, record, emptied)
        return _compiled_entry(entry, arguments, record, None)
    finally:
        _config.CACHE_DIR = before


def _made_to_order(name: str) -> tuple[Any, int]:
    """An activation, or the transform of one axis: "out 4 3" is what is done to the outputs of F(4, 3), or "tile 3 1 8", of
    a kernel, a stride and a number of rows. These are all that is compiled for the sake of a shape: at most 100 of each dtype,
    whatever there is to compute."""
    kind, *lengths = name.split()
    if kind == "tile":
        return depthwise_stages.tile_stage(*map(int, lengths)), 5
    if lengths:
        return winograd_stages.transform_stage(kind, *map(int, lengths)), 9
    return kernels.activation_stage(name), 2


def _compiled_entry(entry: FunctionType, arguments: int, record: np.dtype[Any], cache: Any) -> Any:
    """What `numba.cfunc` makes of it, from that cache or into it."""
    context = types.CPointer(numba.from_dtype(record))
    options = {"nopython": True, "error_model": "numpy", "boundscheck": False}
    made = CFunc(entry, ((context, *[types.int64] * arguments), types.void), locals={}, options=options)
    if cache is not None:
        made._cache = cache
    made.compile()
    return made


class _Sealed(CompileResultCacheImpl):
    """Each file of the cache names its stage and has a digest: damaged machine code would be run as it is, and Numba numbers
    the files alike in every version of ours."""

    def __init__(self, entry: FunctionType) -> None:
        super().__init__(entry)
        assert entry.__closure__ is not None
        self._key = entry.__closure__[0].cell_contents

    def reduce(self, result: Any) -> tuple[str, bytes, bytes]:
        content = serialize.dumps(super().reduce(result))
        return self._key, hashlib.sha256(content).digest(), content

    def rebuild(self, target: Any, payload: tuple[str, bytes, bytes]) -> Any:
        key, digest, content = payload
        if key != self._key or digest != hashlib.sha256(content).digest():
            raise ValueError("not what was written for this stage")
        return super().rebuild(target, pickle.loads(content))


class _Cache(FunctionCache):
    _impl_class = _Sealed

    def save_overload(self, signature: Any, result: Any) -> None:
        with suppress(OSError):  # a full disk is no reason to compile once more
            super().save_overload(signature, result)


def _has_a_place() -> bool:
    """Whether Numba finds a folder of its own; without HOME it would make one named ``~``."""
    return settings.user_cache() is not None or os.access(Path(__file__).parent, os.W_OK)


@functools.cache
def stamp() -> str:
    """Differs between versions of what a stage is made of, and between vector widths."""
    modules = (kernels, pool_stages, winograd_stages, transforms, depthwise_stages, depthwise_tiles, rows, vectors,
               fft_stages, fft_spoiled, fourier, spectra, activations, winograd)
    texts = [Path(module.__file__ or "").read_bytes() for module in modules]
    return hashlib.sha256(b"".join(texts) + repr(vectors.TARGET).encode()).hexdigest()


def _entry(function: Any, arguments: int, dtype: str, key: str) -> Any:
    """The Python function of a stage's C function.

    Numba's cache tells functions apart by their code, CPU, and pickled closure. So the closure is the key, a string, and
    what would pickle differently in every process, the compiled body, is a global. Both are named after the stage: machine
    code from the cache finds functions by their names, which Numba numbers afresh in each process; one stage would call
    another's.
    """
    kind = np.dtype(dtype)
    names = {"__name__": __name__, "body": kernels.jit(function), "carray": numba.carray, "like": kind.type(0),
             "size": kind.itemsize}
    template = _TEMPLATES[arguments](f"{key} {dtype}")
    entry = FunctionType(template.__code__, names, template.__name__, None, template.__closure__)
    function.__qualname__ = entry.__qualname__ = "_".join([*key.split()[1:], dtype])
    return entry


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


def _four(key):  # type: ignore[no-untyped-def]
    def stage_of_four(context, a, b, c, d):  # type: ignore[no-untyped-def]
        key  # noqa: B018
        body(carray(context, 1)[0], a, b, c, d, like, size)  # noqa: F821

    return stage_of_four


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


def _eight(key):  # type: ignore[no-untyped-def]
    def stage_of_eight(context, a, b, c, d, e, f, g, h):  # type: ignore[no-untyped-def]
        key  # noqa: B018
        body(carray(context, 1)[0], a, b, c, d, e, f, g, h, like, size)  # noqa: F821

    return stage_of_eight


def _nine(key):  # type: ignore[no-untyped-def]
    def stage_of_nine(context, a, b, c, d, e, f, g, h, i):  # type: ignore[no-untyped-def]
        key  # noqa: B018
        body(carray(context, 1)[0], a, b, c, d, e, f, g, h, i, like, size)  # noqa: F821

    return stage_of_nine


_TEMPLATES = {1: _one, 2: _two, 4: _four, 5: _five, 7: _seven, 8: _eight, 9: _nine}
