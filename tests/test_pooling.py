"""Pooling: every backend against plain loops on random problems; the tables against their definition; the API's promises."""

from __future__ import annotations

import dataclasses
import itertools
import re
from fractions import Fraction
from math import ceil, floor, prod
from pathlib import Path

import numpy as np
import pytest
import toy_backend
from pooling_cases import LAYOUTS, OPS, call, check, pooling, random_arrays, random_problem, strided

import fastconv
from fastconv import pool_calls
from fastconv.backends import register, registry
from fastconv.dtypes import INTEGERS
from fastconv.pool_problem import PoolProblem

NDIMS = (1, 2, 3)


@pytest.mark.parametrize("direction", ["forward", "backward_input"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("ndim", NDIMS)
@pytest.mark.parametrize("op", OPS)
def test_random_problems(op, ndim, layout, direction, backend):
    """Everything written, nothing else touched, whatever the strides; inputs with NaN, Inf, ties."""
    who = pooling(backend)
    rng = np.random.default_rng([ndim, OPS.index(op), LAYOUTS.index(layout)])
    computed = 0
    for number in range(12):
        p = random_problem(rng, op, ndim, layout, direction)
        first, indices, source = random_arrays(rng, p, special=number % 3 == 0)
        if who.refuses_pool(p) is not None:
            continue
        computed += 1
        poison = np.full(p.result_shape, np.nan if p.dtype not in INTEGERS else 1).astype(p.dtype)
        given = (first, poison, np.full(p.output_shape, -1) if p.return_indices else indices, source)
        x, result, found, other = given if number % 2 else (strided(rng, a) for a in given)
        who.bind_pool(p).run(x, result, found, other)
        expected = check(p, result, first, indices, source)
        if expected is not None:
            np.testing.assert_array_equal(found, expected, str(p))
        if number % 2 == 0 and p.dtype not in INTEGERS:
            around = result.base if result.base.base is None else result.base.base
            assert np.count_nonzero(np.isnan(around)) >= around.size - result.size
    assert computed, f"{backend} refuses all"


def _taps(size, kernel, stride, dilation, low, o):
    return [c for c in (o * stride - low + j * dilation for j in range(kernel)) if 0 <= c < size]


def _windows(p):
    """How many there are along an axis: those that lie inside, and, in ceil_mode, one that begins before the far padding."""
    (low, high), begins, span = p.padding[0], itertools.count(0, p.stride[0]), p.dilation[0] * (p.kernel_size[0] - 1) + 1
    end = p.input_size[0] + low + high
    inside = len(list(itertools.takewhile(lambda begin: begin + span <= end, begins)))
    last = (inside - 1) * p.stride[0] + span
    return inside + (p.ceil_mode and last < end and inside * p.stride[0] < p.input_size[0] + low)


def test_the_tables_say_which_taps_lie_in_the_input():
    rng = np.random.default_rng(5)
    for _ in range(300):
        p = random_problem(rng, "average", 1, "channels_first", "forward")
        (size,), (out,) = p.input_size, p.output_size
        assert p.adaptive_size or out == _windows(p)
        for o in range(out):
            taps = [int(p.first[0][o]) + j * p.dilation[0] for j in range(p.count[0][o])]
            if p.adaptive_size:
                assert taps == list(range(floor(Fraction(o * size, out)), ceil(Fraction((o + 1) * size, out))))
                assert p.divisor[0][o] == len(taps)
                continue
            (low, high), (kernel,), (stride,) = p.padding[0], p.kernel_size, p.stride
            assert taps == _taps(size, kernel, stride, p.dilation[0], low, o) != []
            padded = [c for c in (o * stride - low + j * p.dilation[0] for j in range(kernel)) if c < size + high]
            assert p.divisor[0][o] == (len(padded) if p.count_include_pad else len(taps))
        assert not p.first[0].flags.writeable


def test_large_adaptive_sizes_do_not_overflow():
    size, out = 2**58 + 1, 100
    p = PoolProblem("average", (size,), 1, adaptive_size=(out,))
    assert p.first[0].tolist() == [o * size // out for o in range(out)]
    assert (p.first[0] + p.count[0]).tolist() == [-(-(o + 1) * size // out) for o in range(out)]


X = np.array([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3], [5, 8, 9, 7, 9], [3, 2, 3, 8, 4.]])[None, None]


def test_by_hand(backend):
    y, i = call(backend, "max_pool2d", X, 2, return_indices=True)
    assert y.tolist() == [[[[9, 6], [8, 9]]]] and i.tolist() == [[[[5, 7], [11, 12]]]]
    assert call(backend, "min_pool2d", X, (2, 3), 1, ceil_mode=True).tolist() == [[[[1, 1, 1], [2, 2, 3], [2, 2, 3]]]]
    assert call(backend, "avg_pool2d", X, 2, padding=1).tolist() == [[[[.75, 1.25, 1.5], [3.5, 6.25, 6], [.75, 1.25, 3]]]]
    assert call(backend, "max_pool1d", X[0, 0, :1], 2, ceil_mode=True).tolist() == [[3, 4, 5]]
    assert call(backend, "max_pool1d", X[0, 0, :1, :3], 2, 2, 1, ceil_mode=True).tolist() == [[3, 4]]  # the next: only padding
    counted = call(backend, "avg_pool2d", X, 2, padding=1, count_include_pad=False)
    assert counted.tolist() == [[[[3, 2.5, 3], [7, 6.25, 6], [3, 2.5, 6]]]]
    assert call(backend, "avg_pool2d", X, 2, divisor_override=2).tolist() == [[[[7.5, 8], [9, 13.5]]]]
    assert call(backend, "lp_pool2d", X, 1, (4, 5)).tolist() == [[[[X.sum()]]]]
    assert call(backend, "adaptive_max_pool2d", X, (1, 2)).tolist() == [[[[9, 9]]]]
    assert call(backend, "adaptive_avg_pool2d", X, (None, 1)).tolist() == [[[[2.8], [5], [7.6], [4]]]]
    assert call(backend, "global_avg_pool", X).tolist() == [[[[X.mean()]]]]
    assert call(backend, "global_max_pool", X[:, :, 0]).tolist() == [[[5]]]


def test_nan_ties_and_infinities(backend):
    nan, inf = np.nan, np.inf
    x = np.array([[1, nan, 2, nan, 5, 3], [4, 2, 4, 4, 1, 4], [-inf] * 6, [inf, 1, inf, 2, -inf, inf]])[None]
    y, i = call(backend, "max_pool1d", x, 6, return_indices=True)
    np.testing.assert_array_equal(y[0, :, 0], [nan, 4, -inf, inf])
    assert i[0, :, 0].tolist() == [3, 0, 0, 0]  # torch: the last NaN, the first of equals
    y, i = call(backend, "min_pool1d", x, 6, return_indices=True)
    np.testing.assert_array_equal(y[0, :, 0], [nan, 1, -inf, -inf])
    assert i[0, :, 0].tolist() == [3, 4, 0, 4]
    np.testing.assert_array_equal(call(backend, "avg_pool1d", x, 3)[0], [[nan, nan], [10 / 3, 3], [-inf, -inf], [inf, nan]])


def test_integers_are_compared_as_they_are(backend):
    """Not as floats, which do not have all of them."""
    for dtype in ("int8", "int64", "uint64", "bool") if backend == "numba" else INTEGERS:  # it compiles for each
        if dtype == "bool":
            x = np.array([[True, False, False, False]])
            assert call(backend, "max_pool1d", x, 2).tolist() == [[True, False]]
            assert call(backend, "min_pool1d", x, 2).dtype == bool
            continue
        low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
        x = np.array([[high - 1, high, low, low + 1]], dtype)
        y = call(backend, "max_pool1d", x, 2)
        assert y.dtype == dtype and y.tolist() == [[high, low + 1]]
        assert call(backend, "min_pool1d", x, 2).tolist() == [[high - 1, low]]


@pytest.mark.parametrize("name, more", [("max_pool2d", {"padding": 1}), ("avg_pool2d", {"padding": 1}), ("lp_pool2d", {})])
def test_unbatched_out_and_strides(name, more, backend, rng):
    x = np.abs(rng.standard_normal((3, 9, 8)))
    arguments = (2, 3, 2) if name == "lp_pool2d" else (3, 2)
    expected = call(backend, name, x[None], *arguments, **more)[0]
    assert np.array_equal(call(backend, name, x, *arguments, **more), expected)
    last = call(backend, name, np.moveaxis(x, 0, -1), *arguments, layout="NHWC", **more)
    np.testing.assert_allclose(last, np.moveaxis(expected, 0, -1), rtol=1e-14)
    assert last.flags.c_contiguous
    out = np.full((*expected.shape[::-1],), np.nan, ">f8").T
    assert call(backend, name, x[:, ::-1][:, ::-1].astype(">f8"), *arguments, out=out, **more) is out
    assert np.array_equal(out, expected)
    same = x.copy()
    inside = same[:, :expected.shape[1], :expected.shape[2]]  # overlaps what is read
    call(backend, name, same, *arguments, out=inside, **more)
    assert np.array_equal(inside, expected)
    fixed = np.empty_like(expected)
    fixed.flags.writeable = False
    with pytest.raises(ValueError, match="out must be writeable"):
        call(backend, name, x, *arguments, out=fixed, **more)


def test_no_image_gives_no_image(backend):
    x = np.empty((0, 3, 5, 5), np.float32)
    y, i = call(backend, "max_pool2d", x, 2, return_indices=True)
    assert y.shape == i.shape == (0, 3, 2, 2)
    assert call(backend, "avg_pool2d_input", y, x, 2).shape == x.shape
    assert fastconv.max_unpool2d(y, i, 2, output_size=(5, 5)).shape == x.shape


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_number_of_threads_and_images_give_the_same_bits(layout, backend, rng):
    rows = 9 if backend == "naive" else 40  # enough work for several threads
    x = rng.standard_normal((3, 8, rows, 41) if layout == "channels_first" else (3, rows, 41, 8)).astype(np.float32)
    results = []
    for threads in (1, 2, 5):
        with fastconv.config(num_threads=threads):
            y, i = call(backend, "max_pool2d", x, 3, 2, 1, return_indices=True, layout=layout)
            average = call(backend, "avg_pool2d", x, 3, 2, 1, layout=layout)
            norm = call(backend, "lp_pool2d", x, 2, 3, 2, layout=layout)
            results.append([y, i, average, norm, call(backend, "avg_pool2d_input", average, x, 3, 2, 1, layout=layout),
                            call(backend, "max_pool2d_input", y, x, 3, 2, 1, layout=layout),
                            call(backend, "lp_pool2d_input", norm, x, 2, 3, 2, layout=layout)])
    for other in results[1:]:
        assert all(map(np.array_equal, results[0], other))
    alone = call(backend, "avg_pool2d", x[1:2], 3, 2, 1, layout=layout)
    assert np.array_equal(alone[0], results[0][2][1])


def test_what_no_pooling_backend_is_asked_for_is_taken_in_order():
    assert fastconv.max_pool1d([[1., 2, 3, 4]], 2).tolist() == [[2, 4]]
    with fastconv.config(backend="naive"):
        assert fastconv.max_pool1d([[1., 2, 3, 4]], 2).tolist() == [[2, 4]]


def test_a_backend_that_does_not_pool_is_passed_over(toy_registry):
    toy = toy_backend.ToyBackend()
    register(toy)
    found = registry()
    order = {"toy": toy, **{name: who for name, who in found.items() if name != "toy"}}
    found.clear()
    found.update(order)
    assert fastconv.avg_pool2d(X, 4).tolist() == [[[[X[..., :4].mean()]]]]
    with pytest.raises(fastconv.Unsupported, match="toy: computes no pooling"):
        fastconv.avg_pool2d(X, 4, backend="toy")
    assert fastconv.conv2d(X, np.ones((1, 1, 4, 5)), backend="toy")[0, 0, 0, 0] == X.sum()


def test_what_is_kept_of_calls_is_bounded():
    for length in range(20_000, 20_012):  # 6 MB each
        fastconv.max_pool1d(np.zeros((1, 1, length), np.float32), 1, backend="im2col")
    assert 0 < pool_calls._memo.nbytes <= pool_calls._memo.most_bytes


def test_problems_are_keys():
    p = PoolProblem.from_shape("max", (2, 3, 8, 8), 3, ndim=2, function="f", padding=1)
    q = dataclasses.replace(p)
    assert p == q and hash(p) == hash(q) and p != dataclasses.replace(p, ceil_mode=True)
    assert "max pooling of float32 (2, 3, 8, 8)" in str(p)


NO_NATIVE = (False, True)


@pytest.mark.parametrize("no_native", NO_NATIVE)
def test_unpooling_puts_back_what_max_pooling_took(rng, no_native):
    for ndim, layout in itertools.product(NDIMS, LAYOUTS):
        shape = (2, 3, *(7, 8, 5)[:ndim]) if layout == "channels_first" else (2, *(7, 8, 5)[:ndim], 3)
        x = rng.permutation(prod(shape)).reshape(shape).astype(float) + 1
        y, i = getattr(fastconv, f"max_pool{ndim}d")(x, 2, return_indices=True, layout=layout)
        size = (7, 8, 5)[:ndim]
        out = np.full_like(x, np.nan)
        with fastconv.config(no_native=no_native):
            back = getattr(fastconv, f"max_unpool{ndim}d")(y, i, 2, output_size=size, layout=layout, out=out)
            one = getattr(fastconv, f"max_unpool{ndim}d")(y[0], i[0], 2, output_size=size, layout=layout)
        assert back is out and np.array_equal(one, back[0])
        assert back.shape == x.shape and back.sum() == y.sum()
        assert np.array_equal(back[back != 0], x[back != 0])
        g = rng.standard_normal(x.shape)
        taken = getattr(fastconv, f"max_unpool{ndim}d_input")(g, y, i, 2, output_size=size, layout=layout)
        assert np.array_equal(np.sort(taken.ravel()), np.sort(g[back != 0]))
        assert (back * g).sum() == pytest.approx((y * taken).sum())


def test_the_lines_of_the_readme_run():
    text = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    code, = re.findall(r"```python\n(.*?)```", text[text.index("\n## Pooling"):].split("\n## ")[1], re.DOTALL)
    names = {"np": np, "fastconv": fastconv}
    exec(code, names)
    assert names["back"].shape == names["dx"].shape == names["x"].shape and names["last"].shape == (2, 1, 1, 64)


@pytest.mark.parametrize("no_native", NO_NATIVE)
def test_unpooling_of_one_place_twice_keeps_the_last(no_native):
    x, i = np.array([[1., 2]]), np.array([[1, 1]])
    for turned in (lambda a: a, lambda a: a[:, ::-1].copy()[:, ::-1]):  # which lies the other way round
        with fastconv.config(no_native=no_native):
            assert fastconv.max_unpool1d(turned(x), turned(i), 2).tolist() == [[0, 2, 0, 0]]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16])
def test_unpooling_of_any_strides(rng, dtype, layout):
    """Many places twice; as NumPy does it, to an `out` of any strides, and in place of what it reads."""
    y = (rng.integers(1, 99, (3, 5, 9, 7))).astype(dtype)
    i = rng.integers(0, 18 * 14 if layout == "channels_first" else 10 * 18, y.shape)
    with fastconv.config(no_native=True):
        expected = fastconv.max_unpool2d(y, i, 2, layout=layout)
    for threads in (1, 3):
        with fastconv.config(num_threads=threads):
            swapped = y.astype(y.dtype.newbyteorder())
            for given, places in ((y, i), (strided(rng, y), strided(rng, i)), (swapped, i.astype(np.int32))):
                out = strided(rng, np.full(expected.shape, 77, dtype))
                assert fastconv.max_unpool2d(given, places, 2, layout=layout, out=out) is out
                np.testing.assert_array_equal(out, expected)
    room = np.zeros(expected.size, dtype)
    inside = room[:y.size].reshape(y.shape)
    inside[...] = y
    found = fastconv.max_unpool2d(inside, i, 2, layout=layout, out=room.reshape(expected.shape))
    np.testing.assert_array_equal(found, expected)
