"""The native pooling kernels, on every ISA: each of their ways through a problem, beside forbidden memory, on any threads."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import signal
from typing import Any

import numpy as np
import pytest
from helpers import Guarded
from pooling_cases import check, random_arrays, random_problem, strided

import fastconv
from fastconv import settings
from fastconv.backends import cython_native
from fastconv.backends.cython_pooling import NativePool
from fastconv.native import isa_module, runnable_isas, runtime
from fastconv.pool_problem import PoolProblem

if cython_native.backend.unavailable():
    pytest.skip("the native kernels are not available", allow_module_level=True)

ISAS = runnable_isas()
OPS = ("max", "min", "average", "lp")
ORACLE = "im2col"  # NumPy's slices in float64, which the random problems of test_pooling.py compare with plain loops


def windows(op: str, size: tuple[int, ...], channels: int, kernel: Any, stride: Any, padding: Any = 0, dilation: Any = 1,
            **more: Any) -> PoolProblem:
    ndim = len(size)
    each = [(value,) * ndim if isinstance(value, int) else value for value in (kernel, stride, dilation)]
    norm = more.pop("norm_type", 2.0) if op == "lp" else None
    low = (padding,) * ndim if isinstance(padding, int) else padding
    batch, padded = more.pop("batch", 2), tuple((p, p) for p in low)
    return PoolProblem(op, size, channels, batch, *each[:2], padded, each[2], norm_type=norm, **more)


# one or more for each way that a kernel takes: what vectors run over, strides, segments of long rows, long windows, tables
SHAPES = {
    "apart": dict(size=(9, 75), channels=2, kernel=2, stride=2),
    "further apart": dict(size=(7, 40), channels=2, kernel=(2, 3), stride=(3, 5)),
    "pairs": dict(size=(10, 28), channels=3, batch=4, kernel=2, stride=2),  # of rows that a vector holds, or two
    "pairs of short rows": dict(size=(10, 10), channels=3, batch=4, kernel=2, stride=2),
    "pairs and one more": dict(size=(9, 13), channels=2, kernel=2, stride=2),
    "pairs, two vectors": dict(size=(4, 57), channels=2, kernel=2, stride=2),
    "pairs, tall windows": dict(size=(13, 12), channels=2, kernel=(3, 2), stride=(3, 2), padding=(1, 0)),
    "pairs, rows over and over": dict(size=(9, 16), channels=2, kernel=(3, 2), stride=(1, 2)),
    "pairs, fewer rows last": dict(size=(9, 12), channels=2, kernel=2, stride=2, ceil_mode=True),
    "stride 1": dict(size=(5, 83), channels=2, kernel=3, stride=1, padding=1),
    "two taps": dict(size=(4, 70), channels=2, kernel=2, stride=1),
    "stride 2": dict(size=(9, 75), channels=2, kernel=3, stride=2, padding=1, ceil_mode=True),
    "even taps": dict(size=(7, 140), channels=2, kernel=4, stride=2, padding=1),
    "stride 3": dict(size=(7, 110), channels=2, kernel=5, stride=3, padding=2),
    "stride 4": dict(size=(9, 150), channels=2, kernel=(2, 4), stride=(1, 4)),
    "stride 5": dict(size=(9, 60), channels=2, kernel=3, stride=5, padding=1),
    "dilation": dict(size=(9, 90), channels=2, kernel=3, stride=(1, 2), padding=2, dilation=2),
    "long rows": dict(size=(20_000,), channels=1, kernel=3, stride=2, padding=1),
    "one row": dict(size=(150,), channels=2, kernel=3, stride=1, padding=1),
    "one row, dilation": dict(size=(3, 190), channels=2, kernel=(1, 3), stride=(2, 2), padding=(0, 2), dilation=2),
    "one row, stride 3": dict(size=(301,), channels=2, kernel=3, stride=3, ceil_mode=True),
    "one row, stride 4": dict(size=(530,), channels=2, kernel=5, stride=4, padding=2),
    "long windows": dict(size=(2, 3_000), channels=1, kernel=(1, 700), stride=(1, 700), padding=(0, 99)),
    "many rows": dict(size=(40, 9), channels=1, kernel=(37, 2), stride=1),
    "depth": dict(size=(4, 5, 40), channels=2, kernel=(3, 2, 3), stride=(1, 2, 2), padding=(1, 0, 1), batch=1),
    "whole vectors": dict(size=(11, 128), channels=2, kernel=2, stride=2),
    "neighbours": dict(size=(23, 112), channels=2, kernel=3, stride=2, padding=1),
    "rows as one": dict(size=(19, 35), channels=3, kernel=3, stride=1, padding=1),
    "rows as one, tall windows": dict(size=(9, 29), channels=2, kernel=(5, 3), stride=1, padding=(2, 1)),
    "wide padding": dict(size=(14, 90), channels=2, kernel=9, stride=1, padding=4),
    "rows a dilation apart": dict(size=(21, 50), channels=2, kernel=3, stride=1, padding=2, dilation=2),
    "rows between windows": dict(size=(23, 70), channels=2, kernel=2, stride=(5, 2)),
    "rounds of rows": dict(size=(90, 40), channels=1, kernel=(80, 3), stride=(1, 2)),
    "wide rows": dict(size=(4, 20_000), channels=1, kernel=3, stride=1, padding=1),
    "few planes": dict(size=(5, 6, 40), channels=2, kernel=2, stride=(1, 2, 2), batch=1),
    "many planes": dict(size=(7, 9, 40), channels=1, kernel=(5, 3, 2), stride=1, batch=1),
    "small planes": dict(size=(7, 6), channels=19, kernel=3, stride=2, padding=1),
    "tiny planes": dict(size=(2, 3), channels=33, kernel=(2, 3), stride=1),
}
FOLDS = {"planes": ((31, 33), 3, (1, 1)), "short planes": ((7, 7), 21, (1, 1)), "many planes": ((6, 9), 150, (1, 1)),
         "uneven": ((13, 50), 3, (5, 7)), "rows": ((9, 500), 2, (3, 1)), "volumes": ((3, 9, 11), 3, (1, 1, 1)),
         "blocks": ((26,), 67, (38,))}  # of channels, the last one smaller


def adaptive(op: str, name: str, **more: Any) -> PoolProblem:
    size, channels, output = FOLDS[name]
    return PoolProblem(op, size, channels, 2, adaptive_size=output, **more)


def problems(op: str, layout: str, dtype: str = "float32", direction: str = "forward") -> list[PoolProblem]:
    common = dict(layout=layout, dtype=dtype, direction=direction)
    made = [windows(op, **shape, **common) for shape in SHAPES.values()]
    if layout == "channels_last":  # more channels than a vector has lanes, and so many that they come in blocks
        made += [windows(op, (7, 9), channels, 3, stride, 1, **common) for channels, stride in ((70, 1), (70, 2), (1500, 2))]
        made += [windows(op, (9, 11), 70, 5, 2, 2, count_include_pad=False, **common)]  # a ring of rows, of uneven divisors
    made += [adaptive(op, name, **common) for name in FOLDS if op != "lp"]
    return [p for p in made if cython_native.backend.refuses_pool(p) is None]


def run(p: PoolProblem, isa: str, first: Any, indices: Any, source: Any, result: Any) -> Any:
    """(result, indices): both poisoned before."""
    result[...] = np.nan
    found = np.full(p.output_shape, -1) if p.return_indices else indices
    NativePool(p, isa).run(first, result, found, source)
    return result, found


def verify(p: PoolProblem, isa: str, number: int = 0) -> None:
    arrays = random_arrays(np.random.default_rng(number), p, special=number % 2 == 1)
    result, found = run(p, isa, *arrays, np.empty(p.result_shape, p.dtype))
    expected = check(p, result, *arrays, by=ORACLE)
    if expected is not None:
        np.testing.assert_array_equal(found, expected, str(p))


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
@pytest.mark.parametrize("isa", ISAS)
def test_every_way_is_right(isa, layout, op):
    for number, p in enumerate(problems(op, layout, "float64" if op == "min" else "float32")):
        verify(p, isa, number)


@pytest.mark.parametrize("op", ["max", "min"])
@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
@pytest.mark.parametrize("isa", ISAS)
def test_places_are_those_of_the_first_of_equals_and_of_the_last_nan(isa, layout, op):
    for number, p in enumerate(problems(op, layout, "float64" if op == "min" else "float32")):
        verify(dataclasses.replace(p, return_indices=True), isa, number)


@pytest.mark.parametrize(("op", "dtype"), [("max", "float32"), ("average", "float32"), ("lp", "float64")])
@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
@pytest.mark.parametrize("isa", ISAS)
def test_every_gradient_is_right(isa, layout, op, dtype):
    for number, p in enumerate(problems(op, layout, dtype, "backward_input")):
        verify(p, isa, number)


@pytest.mark.parametrize("isa", ISAS)
def test_norms_of_any_exponent(isa):
    for norm, direction in itertools.product((1.0, 2.0, 3.0, 0.5), ("forward", "backward_input")):
        for ceil in (False, True):  # with True the last windows are cut short, and scaled
            verify(windows("lp", (9, 40), 3, 3, 2, norm_type=norm, ceil_mode=ceil, direction=direction), isa)


@pytest.mark.parametrize("direction", ["forward", "backward_input"])
@pytest.mark.parametrize("isa", ISAS)
def test_any_strides(isa, direction):
    """Nothing beside the elements is written, and what lies there, NaN, is not read."""
    rng = np.random.default_rng(len(isa))
    for number in range(40):
        op, ndim, layout = OPS[number % 4], number % 3 + 1, ("channels_first", "channels_last")[number % 2]
        p = random_problem(rng, op, ndim, layout, direction)
        if cython_native.backend.refuses_pool(p) is not None:
            continue
        arrays = random_arrays(rng, p)
        result = strided(rng, np.full(p.result_shape, np.nan, p.dtype))
        indices = strided(rng, np.full(p.output_shape, -1) if p.return_indices else arrays[1])
        NativePool(p, isa).run(strided(rng, arrays[0]), result, indices, strided(rng, arrays[2]))
        expected = check(p, result, *arrays)
        if expected is not None:
            np.testing.assert_array_equal(indices, expected, str(p))
        memory = result if result.base is None else result.base
        while memory.base is not None:
            memory = memory.base
        assert np.isnan(memory).sum() >= memory.size - result.size, str(p)


@pytest.mark.parametrize("side", ["start", "end"])
@pytest.mark.parametrize("isa", ISAS)
def test_nothing_is_touched_beside_the_arrays(isa, side):
    """A byte too far is a segmentation fault."""
    cases = [problem for op in ("max", "average") for layout in ("channels_first", "channels_last")
             for problem in (*problems(op, layout), *problems(op, layout, direction="backward_input"))]
    cases += [dataclasses.replace(p, return_indices=True) for layout in ("channels_first", "channels_last")
              for p in problems("max", layout)]
    for p in cases:
        first, indices, source = random_arrays(np.random.default_rng(1), p)
        guarded = Guarded(side)
        result = guarded.copy(np.full(p.result_shape, np.nan, p.dtype), read_only=False)
        found = np.full(p.output_shape, -1) if p.return_indices else indices
        found = None if found is None else guarded.copy(found, read_only=not p.return_indices)
        with settings.config(num_threads=2):  # with many more a plane is shared
            NativePool(p, isa).run(guarded.copy(first), result, found, None if source is None else guarded.copy(source))
        check(p, result, first, indices, source, by=ORACLE)


@pytest.mark.parametrize("op", ["max", "average", "lp"])
@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
@pytest.mark.parametrize("isa", ISAS)
def test_threads_and_batch_change_no_bit(isa, layout, op):
    shapes = (dict(size=(60, 90), channels=5, kernel=3, stride=1, padding=1),
              dict(size=(60, 61), channels=21, kernel=3, stride=2),
              dict(size=(13, 12), channels=70, kernel=5, stride=1, padding=2),
              dict(size=(2, 20), channels=40, kernel=(2, 3), stride=1),  # of channels_last threads get blocks
              dict(size=(13, 200), channels=64, kernel=(11, 2), stride=(2, 1)),  # which fit into a ring, where all do not
              dict(size=(5, 13, 9), channels=64, kernel=(2, 9, 2), stride=1))
    shapes += (dict(size=(14, 28), channels=2, kernel=2, stride=2), dict(size=(13, 10), channels=9, kernel=2, stride=2))
    for shape, direction in itertools.product(shapes, ("forward", "backward_input")):
        p = windows(op, **shape, batch=3, layout=layout, direction=direction)
        rng = np.random.default_rng(3)
        _, indices, source = random_arrays(rng, p)
        first = rng.standard_normal(p.input_shape if direction == "forward" else p.output_shape).astype(p.dtype)
        results = []
        for threads in (1, 2, 3, 7):
            with settings.config(num_threads=threads):
                results.append(run(p, isa, first, indices, source, np.empty(p.result_shape, p.dtype))[0].tobytes())
        assert len(set(results)) == 1, str(p)
        one = dataclasses.replace(p, batch=1)
        for image in range(p.batch):
            part = [None if a is None else a[image:image + 1] for a in (first, indices, source)]
            alone = run(one, isa, *part, np.empty(one.result_shape, p.dtype))[0]
            assert alone.tobytes() == np.frombuffer(results[0], p.dtype).reshape(p.result_shape)[image].tobytes(), str(p)


@pytest.mark.parametrize("isa", ISAS)
def test_near_and_far_inputs_give_the_same_bits(isa):
    """From memory planes are read one after the other, from caches a few rows of each: 20 MB and half of one."""
    p = windows("average", (8, 64, 64), 4, (2, 3, 2), 2, batch=40)
    x = np.random.default_rng(5).standard_normal((1, *p.input_shape[1:]), np.float32)
    many, _ = run(p, isa, np.broadcast_to(x, p.input_shape), None, None, np.empty(p.output_shape, np.float32))
    one = dataclasses.replace(p, batch=1)
    alone, _ = run(one, isa, x, None, None, np.empty(one.output_shape, np.float32))
    check(one, alone, x, None, None, by=ORACLE)
    np.testing.assert_array_equal(many, np.broadcast_to(alone, p.output_shape))


@pytest.mark.parametrize("isa", ISAS)
def test_large_outputs_of_pixels(isa):
    """26 MB from a line on, which are written past the caches."""
    p = windows("max", (64, 64), 64, 2, 2, batch=100, layout="channels_last")
    x = np.random.default_rng(6).standard_normal((1, *p.input_shape[1:]), np.float32)
    memory = np.empty(int(np.prod(p.output_shape)) + 16, np.float32)
    at = -memory.ctypes.data % 64 // 4
    out = memory[at:at + int(np.prod(p.output_shape))].reshape(p.output_shape)
    result, _ = run(p, isa, np.broadcast_to(x, p.input_shape), None, None, out)
    np.testing.assert_array_equal(result, np.broadcast_to(x.reshape(1, 32, 2, 32, 2, 64).max(axis=(2, 4)), p.output_shape))


@pytest.mark.parametrize("isa", ISAS)
def test_long_sums_are_as_exact_as_promised(isa):
    """float32 means: a running sum of 3 million would lose four digits."""
    for size, layout in (((3_000_000,), "channels_first"), ((1500, 2000), "channels_first"), ((300, 200), "channels_last")):
        p = PoolProblem("average", size, 1 if layout == "channels_first" else 16, adaptive_size=(1,) * len(size), layout=layout)
        x = np.random.default_rng(0).random(p.input_shape, np.float32)
        result, _ = run(p, isa, x, None, None, np.empty(p.output_shape, np.float32))
        axes = tuple(range(2, x.ndim)) if layout == "channels_first" else tuple(range(1, x.ndim - 1))
        exact = x.mean(axis=axes, keepdims=True, dtype=np.float64)
        terms = sum(min(n, 8) + n / 8 for n in size) if layout == "channels_last" else 64 + 30
        assert np.abs(result - exact).max() <= terms * 2.0**-24


@pytest.mark.parametrize("isa", ISAS)
def test_an_index_outside_is_an_error(isa):
    p = windows("max", (5, 5), 2, 2, 2, direction="backward_input")
    values = np.ones(p.output_shape, np.float32)
    for wrong in (-1, 25, 2**62):
        indices = np.zeros(p.output_shape, np.int64)
        indices[1, 1, 0, 1] = wrong
        with pytest.raises(ValueError, match="indices must lie within"):
            run(p, isa, values, indices, None, np.empty(p.result_shape, np.float32))


class Stop(Exception):
    pass


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs a timer's signals")
@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
def test_a_long_call_gives_way(layout):
    """A handler that raises ends it, in the middle: the work is doubled until it is long enough to see that."""
    def stop(*_: object) -> None:
        raise Stop

    before = signal.signal(signal.SIGALRM, stop)
    try:
        for batch in (2**n for n in range(4, 14)):
            p = windows("average", (200, 200), 8, 21, 20, batch=batch, layout=layout)
            x = np.broadcast_to(np.ones((1, *p.input_shape[1:]), np.float32), p.input_shape)
            y = np.full(p.output_shape, np.nan, np.float32)
            with contextlib.suppress(Stop):
                signal.setitimer(signal.ITIMER_REAL, 0.02)
                NativePool(p, ISAS[-1]).run(x, y)
                signal.setitimer(signal.ITIMER_REAL, 0)
            if np.isnan(y).any() and not np.isnan(y).all():
                return
        pytest.fail("no call ended early")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("isa", ISAS)
def test_scattered_values_add_up_or_replace_each_other(isa):
    p = windows("max", (3, 4), 2, 2, 1, direction="backward_input")
    values = np.arange(1, 1 + np.prod(p.output_shape), dtype=np.float32).reshape(p.output_shape)
    indices = np.zeros(p.output_shape, np.int64)
    indices[..., 1, 2] = 11
    for add in (True, False):
        result = np.full(p.input_shape, np.nan, np.float32)
        NativePool(p, isa).native.scatter(values, indices, result, add)
        flat, expected = values.reshape(2, 2, 6), np.zeros((2, 2, 12), np.float32)
        expected[..., 0] = flat[..., :5].sum(axis=-1) if add else flat[..., 4]
        expected[..., 11] = flat[..., 5]
        np.testing.assert_array_equal(result.reshape(2, 2, 12), expected)


@pytest.mark.parametrize("change", [
    dict(first=[(0, 1, 4)]), dict(first=[(0, 2, 1)]), dict(first=[(-1, 1, 2)]), dict(first=[(0, 1)]),
    dict(count=[(2, 2, 0)]), dict(count=[(2, 2, 3)]), dict(divisor=[(2, 2, 0)]), dict(output=(4,)), dict(taps=(0,)),
    dict(dtype="int8"), dict(op="mean"), dict(channels=0), dict(batch=1 << 60)])
def test_tables_that_lead_outside_are_refused(change):
    fields = dict(op="max", dtype="float32", batch=1, channels=1, input=(5,), output=(3,), taps=(2,), dilation=(1,),
                  first=[(0, 1, 2)], count=[(2, 2, 2)], divisor=[(2, 2, 2)])
    runtime().Pool(isa_module(ISAS[0]), **fields)
    with pytest.raises(ValueError):
        runtime().Pool(isa_module(ISAS[0]), **{**fields, **change})


def test_arrays_that_do_not_fit_are_refused():
    p = windows("max", (5, 5), 2, 2, 2, return_indices=True)
    native = NativePool(p, ISAS[0]).native
    x, y, i = np.zeros(p.input_shape, np.float32), np.zeros(p.output_shape, np.float32), np.zeros(p.output_shape, np.int64)
    native.forward(x, y, i)
    frozen = y.copy()
    frozen.flags.writeable = False
    wrong = [(x[:1], y, i), (x, y[..., :1], i), (x, y, i.astype(np.int32)), (x.astype(float), y, i), (x, frozen, i),
             (x, np.broadcast_to(y[:1], y.shape), i), (x.astype(">f4"), y, i)]
    for arrays in wrong:
        with pytest.raises(ValueError):
            native.forward(*arrays)
    with pytest.raises(ValueError, match="threads"):
        native.forward(x, y, i, 0)


APART = [  # function, shape, kernel, stride: of windows that share no input
    ("1d", (3, 4, 41), 2, 2), ("1d", (2, 3, 70), 3, 4), ("2d", (2, 3, 12, 10), 2, 2), ("2d", (2, 3, 9, 67), 2, 2),
    ("2d", (1, 2, 7, 34), (3, 2), (3, 2)), ("2d", (2, 5, 9, 11), (2, 3), (4, 5)), ("2d", (2, 20, 8, 6), 2, 3),
    ("2d", (2, 3, 2, 2), 2, 2), ("2d", (2, 3, 3, 1), (3, 1), 1), ("3d", (2, 3, 5, 4, 36), 2, 2),
]


@pytest.mark.parametrize("isa", cython_native.runnable_isas())
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
@pytest.mark.parametrize("case", APART, ids=str)
def test_gradients_of_windows_apart_are_those_by_indices(case, layout, dtype, isa):
    """Of maxima, with equals, NaNs and infinities, in arrays of any strides; of averages, those of another backend."""
    rank, shape, kernel, stride = case
    rng = np.random.default_rng(4)
    x = rng.integers(-2, 3, shape).astype(dtype)
    for value in (np.nan, np.inf, -np.inf):
        x[rng.random(shape) < 0.05] = value
    x = np.moveaxis(x, 1, -1).copy() if layout == "channels_last" else x
    for name in ("max", "min", "avg"):
        pooled = getattr(fastconv, f"{name}_pool{rank}")
        gradient = getattr(fastconv, f"{name}_pool{rank}_input")
        g = rng.standard_normal(pooled(x, kernel, stride, layout=layout).shape).astype(dtype)
        with fastconv.config(isa=isa):
            if name == "avg":
                expected = gradient(g, x, kernel, stride, layout=layout, backend="im2col")
            else:
                where = pooled(x, kernel, stride, layout=layout, return_indices=True)[1]
                expected = gradient(g, x, kernel, stride, layout=layout, indices=where)
            for lie in (np.ascontiguousarray, np.asfortranarray, lambda a: a[..., ::-1].copy()[..., ::-1],
                        lambda a: np.repeat(a, 2, axis=-1)[..., ::2]):
                out = lie(np.full(x.shape, np.nan, dtype))
                gradient(lie(g), lie(x), kernel, stride, layout=layout, out=out, backend="cython")
                np.testing.assert_array_equal(out, expected) if name != "avg" else np.testing.assert_allclose(
                    out, expected, rtol=4 * np.finfo(dtype).eps)


def test_only_windows_apart_are_searched_for_maxima():
    pool = NativePool(PoolProblem.from_shape("max", (1, 2, 8, 8), ndim=2, function="max_pool2d", kernel_size=3, stride=2,
                                             direction="backward_input"), cython_native.runnable_isas()[-1])
    assert not pool.finds_extremes
    with pytest.raises(ValueError, match="whose windows overlap is found by their indices"):
        pool.native.gradient(*(np.ones((1, 2, size, size), np.float32) for size in (3, 8, 8)))
