"""The depthwise algorithm: vectors that reach beyond a row or a channel spoil nothing else. The matrix has the rest."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from native_cases import same_bits, stays_inside, verify
from problems import problem

import fastconv
from fastconv.backends import Candidate, cython_native
from fastconv.problem import ConvProblem
from fastconv.verify import bounds, check, reference
from fastconv.verify.data import Arrays, random_arrays

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
    arrays = random_arrays(p, np.random.default_rng(0))
    expected, magnitude = reference.oracle(p, *arrays)
    count, guard = expected.size, 64
    for threads in (1, 2, 5):
        memory = np.full(count + 2 * guard, -7.0, np.float32)
        out = memory[guard:guard + count].reshape(p.output_shape)
        with fastconv.config(num_threads=threads):
            kernel.run(arrays.x, kernel.pack(arrays.w, arrays.b), out)
        assert (memory[:guard] == -7).all() and (memory[-guard:] == -7).all()
        assert bounds.compare(out, expected, bounds.bound(p, "depthwise", expected, magnitude, arrays.x, arrays.w)) <= 1


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
@pytest.mark.parametrize("stride", [1, 2, (2, 1), 3], ids=str)
@pytest.mark.parametrize("kernel", [(3, 3), (5, 5), (7, 7), (9, 9), (4, 3)], ids=str)
def test_a_row_has_the_same_bits_in_any_tile(kernel: tuple[int, int], stride: int | tuple[int, int], isa: str) -> None:
    """As how rows are cut into tiles depends on the batch and threads; crowded rows, of 1024 floats, too."""
    down = stride if isinstance(stride, int) else stride[0]
    for width, dtype in ((37, "float32"), (1024, "float32"), (20, "float64")):
        whole = problem((2, 2), (16 * down + kernel[0], width), kernel, groups=2, stride=stride,
                        padding=(0, kernel[1] // 2), dtype=dtype)
        x, w, b, _ = random_arrays(whole, np.random.default_rng(7))
        seen = check.run(cython_native.NativeKernel(whole, Candidate("depthwise", isa)), whole, Arrays(x, w, b, None))
        for rows in range(2, 17):  # a single one has no stride: another problem, and order
            few = dataclasses.replace(whole, input_size=((rows - 1) * down + kernel[0], width))
            kernel_of_few = cython_native.NativeKernel(few, Candidate("depthwise", isa))
            part = check.run(kernel_of_few, few, Arrays(x[:, :, :few.input_size[0]].copy(), w, b, None))
            assert np.array_equal(part, seen[:, :, :rows])


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5, 7, 9, 11])
def test_rows_that_end_with_half_a_vector(kernel: int, stride: int, isa: str) -> None:
    """Alone, behind whole ones at either edge and between them; where padding is and where none is, and rows of all numbers."""
    for columns in (1, 4, 7, 8, 9, 12, 17, 20, 24, 25, 33, 40, 55):
        for more in ({}, {"padding": (1, 0)}, {"dtype": "float64", "activation": "relu6"},
                     {"residual": True, "activation": "silu", "padding": (kernel // 2, (kernel - 1, 0))}):
            padding = more.get("padding", (kernel // 2,) * 2)
            both = 2 * padding[1] if isinstance(padding[1], int) else sum(padding[1])
            width = (columns - 1) * stride + kernel - both
            p = problem((19, 19), (kernel + columns % 8, max(width, 1)), (kernel, kernel), groups=19, stride=stride,
                        **{**more, "padding": padding})
            verify(p, "depthwise", isa)
    same_bits(problem((11, 11), (kernel + 2, 7), (kernel, kernel), groups=11, batch=3, stride=stride, padding=kernel // 2),
              "depthwise", isa)
    stays_inside(problem((11, 11), (13 + kernel, 40), (kernel, kernel), groups=11, stride=stride, padding=kernel // 2),
                 "depthwise", isa, np.nan)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("taps", [1, 2, 3, 9, 31])
def test_vectors_of_a_single_row(taps: int, isa: str) -> None:
    """Which are a tile: every number of them, with and without edges, and the same bits whatever lies beside them."""
    for width in (31, 40, 63, 130, 200, 271, 515):
        for more in ({}, {"padding": 0, "batch": 2}, {"residual": True, "activation": "silu", "stride": 2},
                     {"dtype": "float64", "stride": 3}, {"dilation": 2, "stride": 2, "layout": "channels_last"},
                     {"padding_mode": "circular", "accuracy": "strict"}):
            if width > (taps - 1) * 2:
                verify(problem((5, 5), (width,), taps, groups=5, **{"padding": taps // 2, **more}), "depthwise", isa)
    same_bits(problem((7, 7), (300,), taps, groups=7, batch=3, padding=taps // 2), "depthwise", isa)
    stays_inside(problem((7, 7), (700,), taps, groups=7, padding=taps // 2), "depthwise", isa, np.inf)


@pytest.mark.parametrize("isa", ISAS)
def test_more_masks_than_are_listed(isa: str) -> None:
    for dtype, width, kernel in (("float32", 70, 1501), ("float64", 40, 2001), ("float32", 70, 511), ("float32", 36, 4999)):
        verify(problem((2, 2), (2, width), (1, kernel), groups=2, padding=(0, kernel // 2), dtype=dtype), "depthwise", isa)
        verify(problem((2, 2), (2, 2 * width), (1, kernel), groups=2, stride=(1, 2), padding=(0, kernel // 2), dtype=dtype),
               "depthwise", isa)


@pytest.mark.parametrize("isa", ISAS)
def test_wide_rows_are_copied_a_few_at_a_time(isa: str) -> None:
    """Where rows are copied, a copy stays in the caches: such bands are as right, and their bits as independent of threads."""
    for more in ({}, {"stride": 2}, {"padding_mode": "circular", "dilation": (2, 1)}, {"dtype": "float64", "residual": True}):
        verify(problem((1, 1), (37, 2100), (3, 3), padding=(more.get("dilation", (1, 1))[0], 1), **more), "depthwise", isa)
    same_bits(problem((2, 2), (37, 2100), (5, 5), groups=2, batch=2, padding=2), "depthwise", isa)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kernel", [(3, 3), (5, 5), (1, 4), (7, 2)], ids=str)
@pytest.mark.parametrize("channels", [8, 13, 16, 40])
def test_channels_side_by_side(channels: int, kernel: tuple[int, int], isa: str) -> None:
    for size in ((1, 1), (3, 7), (8, 15)):
        for more in ({"batch": 2}, {"dtype": "float64", "residual": True}, {"stride": (2, 3), "activation": "relu6"},
                     {"padding_mode": "circular"}, {"dilation": (1, 3)}, {"padding": ((3, 0), (0, 5)), "bias": False}):
            padding = more.get("padding", tuple((k // 2 * d,) * 2 for k, d in zip(kernel, more.get("dilation", (1, 1)))))
            long = all(n + sum(pad) >= (k - 1) * d + 1
                       for n, pad, k, d in zip(size, padding, kernel, more.get("dilation", (1, 1))))
            if long and (size != (1, 1) or "padding_mode" not in more):
                verify(problem((channels, channels), size, kernel, groups=channels, layout="channels_last",
                               **{**more, "padding": padding}), "depthwise", isa)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
@pytest.mark.parametrize("kernel", [(3, 3, 3), (2, 2, 2), (3, 1, 1), (5, 4, 1), (2, 1, 4)], ids=str)
def test_kernels_along_depth(kernel: tuple[int, int, int], layout: str, isa: str) -> None:
    for channels, size in ((5, (3, 4, 7)), (17, (6, 2, 19))):
        for more in ({"batch": 2}, {"dtype": "float64", "residual": True}, {"stride": 2, "activation": "relu6"},
                     {"padding_mode": "circular"}, {"padding": (4, 1, (0, 5)), "dilation": (2, 1, 3)},
                     {"stride": (3, 1, 3), "accuracy": "strict"}):
            padding = more.get("padding", tuple(k // 2 for k in kernel))
            verify(problem((channels, channels), size, kernel, groups=channels, layout=layout, **{**more, "padding": padding}),
                   "depthwise", isa)
    same_bits(problem((9, 9), (5, 6, 20), kernel, groups=9, batch=3, layout=layout), "depthwise", isa)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("text", [
    "--stag=axb mb4_g128_ic128id17ih9iw9_oc128od17oh9ow9_kd2kh2kw2",
    "--stag=axb mb1_g32ic32id21ih26iw26_oc32od10oh13ow13_kd2sd2",
    "--stag=axb mb1_g16ic16id14ih32iw32_oc16od14oh32ow32_kd3kh1kw1", "mb1_g64ic64id12ih28iw28_oc64od12oh28ow28_kd3",
    "--stag=axb mb4_g17ic17ih81_oc17oh76_kh6", "--stag=axb mb1_g7ic7ih128_oc7oh128_kh3"])
def test_it_is_the_one_to_take(text: str, isa: str) -> None:
    p = ConvProblem.from_text(text)
    taken = [c for c in cython_native.backend.candidates(p) if c.isa == isa and cython_native.backend.refuses(p, c) is None]
    assert min(taken, key=lambda c: cython_native.backend.seconds(p, c, False)).algorithm == "depthwise"


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("channels", [2, 7, 17])
@pytest.mark.parametrize("taps, stride, dilation", [
    (1, 1, 1), (2, 1, 1), (3, 1, 2), (4, 2, 1), (5, 2, 4), (6, 1, 3), (7, 3, 1), (8, 1, 1)])
def test_tiles_of_pixels(taps: int, stride: int, dilation: int, channels: int, isa: str) -> None:
    """Every remainder of taps by three and of columns by six, neighbours near and far, few channels as runs of pixels."""
    for outputs in (1, 13, 29, 90):
        for more in ({}, {"residual": True, "activation": "silu"}, {"dtype": "float64", "padding": (1, 2)}):
            width = (outputs - 1) * stride + (taps - 1) * dilation + 1
            p = problem((channels, channels), (2, width), (2, taps), groups=channels, layout="channels_last",
                        stride=(1, stride), dilation=(1, dilation), **{"padding": (1, 0), **more})
            verify(p, "depthwise", isa)
    same_bits(dataclasses.replace(p, batch=3, residual=False, dtype="float32"), "depthwise", isa)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("channels", [20, 137])
@pytest.mark.parametrize("kernel", [(3, 3), (4, 5), (1, 6), (7, 7)], ids=str)
def test_tiles_at_the_edges(kernel: tuple[int, int], channels: int, isa: str) -> None:
    """Neighbours whose taps reach outside share inputs, too; with many taps some channels come before the others."""
    low, high = kernel[1] - 1, kernel[1] // 2
    for width in (1, 7, 14, 25):
        for more in ({"residual": True}, {"padding": (1, (low, 0))}, {"padding": (1, (0, low)), "dtype": "float64"},
                     {"padding": (2, (low + 2, high)), "activation": "relu"}, {"padding_mode": "replicate"}):
            given = {"padding": tuple(k // 2 for k in kernel), **more}
            if width + (2 * high if "padding" not in more else sum(given["padding"][1])) < kernel[1]:
                continue
            p = problem((channels, channels), (5, width), kernel, groups=channels, layout="channels_last", **given)
            verify(p, "depthwise", isa)
    wide = problem((channels, channels), (5, 11), kernel, groups=channels, layout="channels_last", padding=given["padding"])
    same_bits(dataclasses.replace(wide, batch=3), "depthwise", isa)
    stays_inside(wide, "depthwise", isa, np.inf)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("channels", [3, 17])
def test_a_nan_stays_inside_its_pixel_and_channel(channels: int, isa: str) -> None:
    for layout in ("channels_first", "channels_last"):
        for size, kernel in (((5, 40), (3, 4)), ((4, 5, 38), (2, 3, 3))):
            p = problem((channels, channels), size, kernel, groups=channels, layout=layout)
            stays_inside(p, "depthwise", isa, np.nan)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("channels", [3, 5, 17])
def test_the_output_is_its_own_residual(channels: int, isa: str) -> None:
    """Vectors of side by side channels that overlap would add it twice."""
    p = problem((channels, channels), (3, 70), (2, 3), groups=channels, layout="channels_last", residual=True)
    x, w, b, residual = random_arrays(p, np.random.default_rng(0))
    kernel = cython_native.NativeKernel(p, Candidate("depthwise", isa))
    expected = np.empty(p.output_shape, np.float32)
    kernel.run(x, kernel.pack(w, b), expected, residual)
    out = residual.copy()
    kernel.run(x, kernel.pack(w, b), out, out)
    assert np.array_equal(out, expected)


@pytest.mark.parametrize("isa", ISAS)
def test_side_by_side_nothing_beside_the_output_is_written(isa: str) -> None:
    p = problem((37, 37), (5, 9), (3, 3), groups=37, batch=2, layout="channels_last")
    kernel = cython_native.NativeKernel(p, Candidate("depthwise", isa))
    arrays = random_arrays(p, np.random.default_rng(0))
    expected, magnitude = reference.oracle(p, *arrays)
    memory = np.full(expected.size + 128, -7.0, np.float32)
    out = memory[64:-64].reshape(p.output_shape)
    for threads in (1, 2, 5):
        with fastconv.config(num_threads=threads):
            kernel.run(arrays.x, kernel.pack(arrays.w, arrays.b), out)
        assert (memory[:64] == -7).all() and (memory[-64:] == -7).all()
        assert bounds.compare(out, expected, bounds.bound(p, "depthwise", expected, magnitude, arrays.x, arrays.w)) <= 1


# ---- planes of few pixels

@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kernel", [(3, 3), (5, 5), (1, 4), (2, 3, 2)], ids=str)
@pytest.mark.parametrize("channels", [9, 37])
def test_small_planes(channels: int, kernel: tuple[int, ...], isa: str) -> None:
    """Two vectors of channels and fewer, planes that fill chunks of lanes and that do not, every kind of window."""
    for width in (1, 2, 3, 5, 6, 9):
        size = (4, 3, 5)[:len(kernel) - 1] + (width,)
        for more in ({"batch": 2}, {"dtype": "float64", "residual": True}, {"stride": 2, "activation": "relu6"},
                     {"dilation": 2, "bias": False}, {"padding": ((4, 0), (1, 5), (0, 3))[-len(kernel):], "stride": 3}):
            padding = more.get("padding", tuple(k // 2 * more.get("dilation", 1) for k in kernel))
            try:
                p = problem((channels, channels), size, kernel, groups=channels, **{**more, "padding": padding})
            except ValueError:
                continue  # the kernel does not fit
            verify(p, "depthwise", isa)
    same_bits(problem((channels, channels), (4,) * len(kernel), kernel, groups=channels, batch=3), "depthwise", isa)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_stays_inside_its_small_plane(value: float, isa: str) -> None:
    for size, kernel, stride in (((3, 3), (3, 3), 1), ((6, 5), (3, 2), 1), ((7, 6), (3, 3), 2), ((3, 4, 2), (2, 3, 2), 1)):
        stays_inside(problem((37, 37), size, kernel, groups=37, stride=stride), "depthwise", isa, value)


@pytest.mark.parametrize("isa", ISAS)
def test_a_small_plane_is_its_own_residual(isa: str) -> None:
    for size in ((3, 3), (5, 5), (6, 6)):
        p = problem((37, 37), size, (3, 3), groups=37, residual=True)
        x, w, b, residual = random_arrays(p, np.random.default_rng(0))
        kernel = cython_native.NativeKernel(p, Candidate("depthwise", isa))
        expected, out = np.empty(p.output_shape, np.float32), residual.copy()
        kernel.run(x, kernel.pack(w, b), expected, residual)
        kernel.run(x, kernel.pack(w, b), out, out)
        assert np.array_equal(out, expected)


# ---- "strict" rounds each product before it is summed

DERIVATIVES = {
    "sobel": np.outer([1, 2, 1], [1, 0, -1]), "sobel, the other way": np.outer([1, 0, -1], [1, 2, 1]),
    "scharr": np.outer([3, 10, 3], [1, 0, -1]) / 7, "one row": np.array([[0.3, 0, -0.3]]),
    "even": np.array([[0.7, 0.3], [-0.3, -0.7]]), "laplace": np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]]),
    "eight neighbours": np.array([[1, 1, 1], [1, -8, 1], [1, 1, 1]]), "1-D": np.array([0.1, 0.3, 0, -0.3, -0.1]),
    "3-D": np.multiply.outer([1, 0, -1], np.outer([0.3, 0.7, 0.3], [0.3, 0.7, 0.3])),
    "9x9": np.multiply.outer([0.1, 0.2, 0.3, 0.7, 1, 0.7, 0.3, 0.2, 0.1], np.arange(-4, 5) / 3),
}


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", DERIVATIVES)
def test_a_derivative_of_flat_data_is_exactly_zero(name: str, dtype: str, isa: str) -> None:
    taps = DERIVATIVES[name].astype(dtype)
    for channels in (1, 19):
        for layout in ("channels_first", "channels_last"):
            for step in (dict(), dict(stride=2), dict(dilation=2), dict(stride=3)):
                size = (22,) * taps.ndim if taps.ndim < 3 else (7, 8, 9)
                p = problem((channels, channels), size, taps.shape, groups=channels, layout=layout, padding=0, dtype=dtype,
                            accuracy="strict", bias=False, **step)
                x = np.full(p.input_shape, 0.1, dtype)
                w = np.broadcast_to(taps, p.weight_shape)
                for candidate in (Candidate("depthwise", isa), Candidate("direct", isa)):
                    if cython_native.backend.refuses(p, candidate) is None:
                        kernel = cython_native.NativeKernel(p, candidate)
                        assert not check.run(kernel, p, Arrays(x, w, None, None)).any(), f"{candidate} {p.text}"


@pytest.mark.parametrize("isa", ISAS)
def test_an_image_filter_under_strict(isa: str) -> None:
    with fastconv.config(isa=isa, accuracy="strict"):
        for taps in DERIVATIVES.values():
            for dtype in ("float32", "float64"):
                image = np.full((32,) * taps.ndim, 0.1, dtype)
                out = fastconv.correlate(image, taps.astype(dtype), mode="valid")
                assert out.dtype == dtype and not out.any()


@pytest.mark.parametrize("isa", ISAS)
def test_strict_sums_in_one_order(isa: str) -> None:
    """depthwise and direct, rows and pixels: the same bits; right ones; with borders, residual and activation."""
    for size, kernel, keywords in (
            ((9, 37), (3, 3), {}), ((6, 40), (5, 4), dict(stride=2)), ((31,), (5,), dict(dilation=3)), ((8, 19), (1, 3), {}),
            ((10, 11), (3, 3), dict(padding=((4, 0), (1, 6)), padding_mode="reflect")),
            ((7, 37), (7, 7), dict(stride=(1, 2))), ((5, 4, 9), (3, 3, 3), {}),
            ((6, 3, 8), (2, 1, 4), dict(stride=2, padding=2))):
        for residual, activation in ((False, None), (True, "relu6"), (False, "relu")):
            first = problem((21, 21), size, kernel, groups=21, accuracy="strict", residual=residual, activation=activation,
                            **keywords)
            x, w, b, r = random_arrays(first, np.random.default_rng(0))
            expected, magnitude = reference.oracle(first, x, w, b, r)
            found = []
            for p in (first, dataclasses.replace(first, layout="channels_last")):
                seen = [a if a is None or p is first else np.moveaxis(a, 1, -1).copy() for a in (x, r)]
                for algorithm in ("depthwise", "direct"):
                    bound = cython_native.NativeKernel(p, Candidate(algorithm, isa))
                    out = check.run(bound, p, Arrays(seen[0], w, b, seen[1]))
                    found.append(out if p is first else np.moveaxis(out, -1, 1))
            assert bounds.compare(found[0], expected, bounds.bound(first, "direct", expected, magnitude, x, w)) <= 1
            assert all(np.array_equal(out, found[0]) for out in found), first.text
