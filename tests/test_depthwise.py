"""The depthwise algorithm: vectors that reach beyond a row or a channel spoil nothing else. The matrix has the rest."""

from __future__ import annotations

import numpy as np
import pytest
from native_cases import problem, same_bits, verify

import fastconv
from fastconv import accuracy
from fastconv.backends import Candidate, cython_native

if cython_native.backend.unavailable():
    pytest.skip("the native kernels are not available", allow_module_level=True)

ISAS = cython_native.runnable_isas()
SIZES = [(1, 1), (1, 2), (2, 1), (2, 2), (3, 2), (2, 3), (3, 3), (7, 7), (4, 9), (9, 17)]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("multiplier", [1, 3])
def test_nothing_beside_the_output_is_written(size: tuple[int, int], multiplier: int, isa: str) -> None:
    p = problem((37, 37 * multiplier), size, (3, 3), groups=37, batch=2)
    kernel = cython_native.NativeKernel(p, Candidate("depthwise", isa))
    arrays = accuracy.random_arrays(p, np.random.default_rng(0))
    expected, magnitude = accuracy.oracle(p, *arrays)
    count, guard = expected.size, 64
    for threads in (1, 2, 5):
        memory = np.full(count + 2 * guard, -7.0, np.float32)
        out = memory[guard:guard + count].reshape(p.output_shape)
        with fastconv.config(num_threads=threads):
            kernel.run(arrays.x, kernel.pack(arrays.w, arrays.b), out)
        assert (memory[:guard] == -7).all() and (memory[-guard:] == -7).all()
        assert accuracy.compare(out, expected, accuracy.bound(p, "depthwise", expected, magnitude, arrays.x, arrays.w)) <= 1


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kernel", [(3, 3), (5, 5), (7, 7), (3, 5), (2, 3)], ids=str)
@pytest.mark.parametrize("stride", [(1, 2), (2, 2), (2, 1), (2, 3)], ids=str)
def test_strides(stride: tuple[int, int], kernel: tuple[int, int], isa: str) -> None:
    for size in ((1, 1), (2, 7), (9, 16), (11, 33), (17, 40)):
        for more in ({}, {"dtype": "float64"}, {"padding": (1, (0, 3))}, {"padding_mode": "circular"}, {"dilation": (1, 2)}):
            padding = more.get("padding", tuple(k // 2 * d for k, d in zip(kernel, more.get("dilation", (1, 1)))))
            if all(n + 2 >= k for n, k in zip(size, kernel)) and (size != (1, 1) or "padding_mode" not in more):
                try:
                    p = problem((6, 6), size, kernel, groups=6, stride=stride, **{**more, "padding": padding})
                except ValueError:
                    continue  # the kernel does not fit
                verify(p, "depthwise", isa)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("size", [(2, 3), (7, 7), (40, 33), (21, 1024)], ids=str)
def test_batch_and_threads_change_no_bit(size: tuple[int, int], isa: str) -> None:
    for layout in ("channels_first", "channels_last"):
        same_bits(problem((9, 9), size, (3, 3), groups=9, batch=3, layout=layout), "depthwise", isa)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kernel", [(3, 3), (5, 5), (1, 4), (7, 2)], ids=str)
@pytest.mark.parametrize("channels", [8, 13, 16, 40])
def test_channels_side_by_side(channels: int, kernel: tuple[int, int], isa: str) -> None:
    for size in ((1, 1), (3, 7), (8, 15)):
        for more in ({"batch": 2}, {"dtype": "float64", "residual": True}, {"stride": (2, 3), "activation": "relu6"},
                     {"padding_mode": "circular"}, {"dilation": (1, 3)}, {"padding": ((3, 0), (0, 5)), "bias_shape": None}):
            padding = more.get("padding", tuple((k // 2 * d,) * 2 for k, d in zip(kernel, more.get("dilation", (1, 1)))))
            long = all(n + sum(pad) >= (k - 1) * d + 1
                       for n, pad, k, d in zip(size, padding, kernel, more.get("dilation", (1, 1))))
            if long and (size != (1, 1) or "padding_mode" not in more):
                verify(problem((channels, channels), size, kernel, groups=channels, layout="channels_last",
                               **{**more, "padding": padding}), "depthwise", isa)


@pytest.mark.parametrize("isa", ISAS)
def test_side_by_side_nothing_beside_the_output_is_written(isa: str) -> None:
    p = problem((37, 37), (5, 9), (3, 3), groups=37, batch=2, layout="channels_last")
    kernel = cython_native.NativeKernel(p, Candidate("depthwise", isa))
    arrays = accuracy.random_arrays(p, np.random.default_rng(0))
    expected, magnitude = accuracy.oracle(p, *arrays)
    memory = np.full(expected.size + 128, -7.0, np.float32)
    out = memory[64:-64].reshape(p.output_shape)
    for threads in (1, 2, 5):
        with fastconv.config(num_threads=threads):
            kernel.run(arrays.x, kernel.pack(arrays.w, arrays.b), out)
        assert (memory[:64] == -7).all() and (memory[-64:] == -7).all()
        assert accuracy.compare(out, expected, accuracy.bound(p, "depthwise", expected, magnitude, arrays.x, arrays.w)) <= 1
