"""Helpers of the tests: calls stated by a problem, their verdict, arrays flush against forbidden memory."""

from __future__ import annotations

import ctypes
import mmap
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

import fastconv
from fastconv.algorithms import sums_products
from fastconv.problem import ConvProblem
from fastconv.verify import bounds, reference
from fastconv.verify.data import Arrays

CONV = {1: fastconv.conv1d, 2: fastconv.conv2d, 3: fastconv.conv3d}


def problem_of(x: np.ndarray, w: np.ndarray, **keywords: Any) -> ConvProblem:
    """The problem that these arrays (of any strides and byte order) state."""
    bias = keywords.pop("bias", None)
    return ConvProblem.from_shapes(x.shape, w.shape, ndim=w.ndim - 2, dtype=np.result_type(x, w).name,
                                   bias_shape=None if bias is None else bias.shape, **keywords)


def arguments(problem: ConvProblem) -> dict[str, Any]:
    """The keywords with which convNd states this problem. (A negative far padding is what a valid call leaves unread.)"""
    return dict(stride=problem.stride, padding=tuple((low, max(0, high)) for low, high in problem.padding),
                dilation=problem.dilation, groups=problem.groups, padding_mode=problem.padding_mode, layout=problem.layout,
                activation=problem.activation, accuracy=problem.accuracy)


def call(problem: ConvProblem, arrays: Arrays, **keywords: Any) -> np.ndarray:
    """The public function, called with these arrays."""
    return CONV[problem.ndim](arrays.x, arrays.w, arrays.b, residual=arrays.residual, **arguments(problem), **keywords)


def error(problem: ConvProblem, arrays: Arrays, actual: np.ndarray, algorithm: str = "direct", exact: bool = False) -> float:
    """The worst error as a multiple of its bound: right is <= 1."""
    expected, magnitude = reference.oracle(problem, *arrays)
    exact = exact and sums_products(algorithm)
    allowed = bounds.bound(problem, algorithm, expected, magnitude, arrays.x, arrays.w, exact)
    return bounds.compare(actual, expected, allowed)


def check_call(x: np.ndarray, w: np.ndarray, b: np.ndarray | None = None, *, backend: str, residual: np.ndarray | None = None,
               out: np.ndarray | None = None, **keywords: Any) -> np.ndarray:
    """Call convNd with arrays of any kind of strides, and compare with the oracle on plain copies of them, taken before."""
    problem = problem_of(x, w, bias=b, residual=residual is not None, **keywords)
    plain = Arrays(*(None if a is None else np.array(a, problem.dtype, order="C") for a in (x, w, b, residual)))
    plan = fastconv.explain(problem, backend=backend)
    y = CONV[w.ndim - 2](x, w, b, residual=residual, out=out, backend=backend, **keywords)
    assert y.dtype.name == problem.dtype and y.shape == problem.output_shape
    assert out is None or y is out
    worst = error(problem, plain, y, plan.algorithm)
    assert worst <= 1, f"{worst:.3g} times the bound: {problem.text}"
    return y


def at_once(work: Callable[[int], None], count: int = 8) -> list[Exception]:
    """work(0), work(1), ... in threads that start together; what they raised."""
    raised: list[Exception] = []
    start = threading.Barrier(count)

    def run(index: int) -> None:
        start.wait()
        try:
            work(index)
        except Exception as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


# ---- arrays at the edge of what may be touched

_libc = ctypes.CDLL(None, use_errno=True)
_PROT_NONE, _PROT_READ = 0, 1


class Guarded:
    """Copies of arrays that end (or start) exactly where memory that no one may touch starts (or ends).

    One element too far is a segmentation fault. Use as a context: the arrays live until its end.
    """

    def __init__(self, side: str) -> None:
        assert side in ("end", "start")
        self.side = side
        self.maps: list[mmap.mmap] = []

    def copy(self, array: np.ndarray, read_only: bool = True) -> np.ndarray:
        page = mmap.PAGESIZE
        room = -(-array.nbytes // page) * page
        block = mmap.mmap(-1, room + 2 * page)
        self.maps.append(block)
        address = ctypes.addressof(ctypes.c_char.from_buffer(block))
        offset = page if self.side == "start" else page + room - array.nbytes
        made = np.frombuffer(block, array.dtype, array.size, offset).reshape(array.shape)
        made[...] = array
        self._protect(address, page, _PROT_NONE)
        self._protect(address + page + room, page, _PROT_NONE)
        if read_only:
            self._protect(address + page, room, _PROT_READ)
            made.flags.writeable = False
        return made

    @staticmethod
    def _protect(address: int, size: int, how: int) -> None:
        if _libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(size), how) != 0:
            raise OSError(ctypes.get_errno(), "mprotect failed")
