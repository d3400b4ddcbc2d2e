"""The Numba backend: right everywhere, the same bits however it is run, and compiled once."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import at_once

import fastconv
from fastconv import native, settings
from fastconv.backends import Candidate, get, numba_jit
from fastconv.problem import ConvProblem

pytest.importorskip("numba")

ALGORITHMS = ("gemm", "direct", "broadcast")
needs_native = pytest.mark.skipif(native.runtime() is None, reason="no native kernels, which have the shortcut")


def integers(shape, dtype="float32", seed=0):
    """Small whole numbers: every order of summation is exact."""
    return np.random.default_rng(seed).integers(-4, 5, shape).astype(dtype)


def bound(x, w, **keywords):
    """gamma(K + 3)·S + (K + 2)·2**-149, elementwise, for float32."""
    terms = int(np.prod(w.shape[1:])) + 3
    u = 2.0**-24
    ndim = w.ndim - 2
    s = call(ndim, abs(x.astype(np.float64)), abs(w.astype(np.float64)), backend="im2col", **keywords)
    return terms * u / (1 - terms * u) * s + terms * 2.0**-149


def call(ndim, *arguments, **keywords):
    return getattr(fastconv, f"conv{ndim}d")(*arguments, **keywords)


def each(ndim, *arguments, **keywords):
    for algorithm in ALGORITHMS:
        yield algorithm, call(ndim, *arguments, backend="numba", algorithm=algorithm, **keywords)


# input shape, weight shape, keywords: small, and each of them awkward in its own way
CASES = {
    "one pixel": ((1, 3, 1, 1), (5, 3, 1, 1), {}),
    "one pixel, many channels": ((2, 37, 1, 1), (35, 37, 1, 1), {}),
    "primes": ((2, 7, 13, 17), (11, 7, 3, 3), {"padding": 1}),
    "tails of every tile": ((1, 5, 7, 7), (33, 5, 3, 3), {"padding": 1}),
    "stride beyond kernel": ((1, 3, 23, 19), (6, 3, 2, 2), {"stride": (5, 3)}),
    "trailing input unread": ((1, 4, 10, 10), (8, 4, 3, 3), {"stride": 4}),
    "dilation": ((1, 4, 15, 14), (9, 4, 3, 2), {"dilation": (3, 4), "padding": (3, 2)}),
    "dilation and stride share a factor": ((1, 3, 20, 21), (17, 3, 3, 3), {"dilation": (4, 6), "stride": (6, 4), "padding": 5}),
    "kernel wider than input": ((1, 2, 4, 3), (3, 2, 7, 9), {"padding": (3, 4)}),
    "asymmetric": ((1, 3, 9, 8), (5, 3, 4, 3), {"padding": ((3, 0), (0, 2)), "stride": (2, 1)}),
    "groups": ((2, 12, 8, 9), (20, 3, 3, 3), {"groups": 4, "padding": 1}),
    "depthwise": ((2, 11, 16, 30), (11, 1, 3, 3), {"groups": 11, "padding": 1}),
    "depthwise multiplier, stride": ((1, 6, 15, 15), (18, 1, 5, 5), {"groups": 6, "padding": 2, "stride": 2}),
    "pointwise": ((2, 19, 9, 11), (21, 19, 1, 1), {}),
    "pointwise, strided": ((1, 19, 9, 11), (40, 19, 1, 1), {"stride": 2}),
    "pointwise, padded": ((1, 3, 5, 5), (4, 3, 1, 1), {"padding": 2}),
    "more products than a pass": ((1, 60, 6, 6), (18, 60, 3, 3), {"padding": 1}),
    "wide row": ((1, 2, 2, 1500), (3, 2, 2, 5), {"padding": (0, 2)}),
    "image": ((1, 1, 70, 65), (1, 1, 5, 5), {"padding": 2}),
    "1-D": ((2, 5, 301), (7, 5, 4), {"stride": 3, "padding": 2}),
    "1-D tiny": ((1, 1, 1), (1, 1, 1), {}),
    "3-D": ((2, 3, 5, 6, 7), (9, 3, 3, 2, 3), {"padding": (1, 0, 1), "stride": (1, 2, 2), "dilation": (2, 1, 1)}),
    "3-D depthwise": ((1, 4, 4, 5, 9), (4, 1, 3, 3, 3), {"padding": 1, "groups": 4}),
}


@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
@pytest.mark.parametrize("case", CASES)
def test_exact_on_integers(case, layout):
    x_shape, w_shape, keywords = CASES[case]
    ndim = len(x_shape) - 2
    x, w, b = integers(x_shape), integers(w_shape, seed=1), integers(w_shape[0], seed=2)
    if layout == "channels_last":
        x = np.ascontiguousarray(np.moveaxis(x, 1, -1))
    expected = call(ndim, x, w, b, layout=layout, backend="naive", **keywords)
    for algorithm, y in each(ndim, x, w, b, layout=layout, **keywords):
        np.testing.assert_array_equal(y, expected, err_msg=algorithm)


@pytest.mark.parametrize("case", ["primes", "depthwise multiplier, stride", "more products than a pass", "3-D"])
def test_within_the_bound(case):
    x_shape, w_shape, keywords = CASES[case]
    rng = np.random.default_rng(3)
    x, w = rng.standard_normal(x_shape, dtype=np.float32), rng.standard_normal(w_shape, dtype=np.float32)
    ndim = len(x_shape) - 2
    exact = call(ndim, x.astype(np.float64), w.astype(np.float64), backend="naive", **keywords)
    for algorithm, y in each(ndim, x, w, **keywords):
        assert (abs(y - exact) <= bound(x, w, **keywords)).all(), algorithm


@pytest.mark.parametrize("mode", ["zeros", "reflect", "symmetric", "replicate", "circular"])
def test_padding_modes(mode):
    x, w = integers((1, 3, 6, 7)), integers((4, 3, 3, 4), seed=1)
    for keywords in ({"padding": ((2, 1), (3, 0))}, {"padding": ((1, 5), (2, 4)), "stride": 3}, {"padding": 3, "dilation": 2}):
        expected = fastconv.conv2d(x, w, padding_mode=mode, backend="naive", **keywords)
        for algorithm, y in each(2, x, w, padding_mode=mode, **keywords):
            np.testing.assert_array_equal(y, expected, err_msg=f"{algorithm} {keywords}")


def test_float64():
    x, w = integers((2, 6, 9, 11), "float64") * 2.0**20, integers((10, 3, 3, 3), "float64", 1) * (2.0**20 + 1)
    for keywords in ({"padding": 1, "groups": 2}, {"stride": 2, "groups": 2, "layout": "channels_last"}):
        given = np.ascontiguousarray(np.moveaxis(x, 1, -1)) if "layout" in keywords else x
        expected = fastconv.conv2d(given, w, backend="naive", **keywords)
        for algorithm, y in each(2, given, w, **keywords):
            np.testing.assert_array_equal(y, expected, err_msg=algorithm)


@pytest.mark.parametrize("activation", [None, "relu", "relu6", ("leaky_relu", 0.25), "sigmoid", "tanh", "gelu", "gelu_tanh",
                                        "silu", "hardswish"])
def test_epilogue(activation):
    x, w, b = integers((1, 3, 7, 6)) / 8, integers((5, 3, 3, 3), seed=1) / 8, integers(5, seed=2)
    x[0, 0, 0, 0] = np.nan
    residual = integers((1, 5, 5, 4), seed=3)
    expected = fastconv.conv2d(x, w, b, activation=activation, residual=residual, backend="naive")
    for algorithm, y in each(2, x, w, b, activation=activation, residual=residual):
        np.testing.assert_array_max_ulp(y[~np.isnan(expected)], expected[~np.isnan(expected)], 4)
        assert np.isnan(y[np.isnan(expected)]).all(), algorithm
    for algorithm in ALGORITHMS:  # the residual is the output
        out = residual.copy()
        y = fastconv.conv2d(x, w, b, activation=activation, residual=out, out=out, backend="numba", algorithm=algorithm)
        assert y is out
        np.testing.assert_array_max_ulp(y[~np.isnan(expected)], expected[~np.isnan(expected)], 4)


@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
def test_any_strides(layout):
    base_x, base_w = integers((4, 8, 20, 22)), integers((6, 4, 3, 3), seed=1)
    views = {"reversed": base_x[::-1, ::-1, ::-1, ::-1], "sliced": base_x[::2, :, ::3, 1::2],
             "broadcast": np.broadcast_to(base_x[:1, :, :, :1], base_x.shape), "Fortran": np.asfortranarray(base_x),
             "transposed": base_x.transpose(0, 1, 3, 2)}
    for name, x in views.items():
        x = x[:, :4] if layout == "channels_first" else x[..., :4]
        for kernel, w in (("3x3", base_w[::-1, :, ::-1]), ("1x1", base_w[:, :, :1, 1:2])):
            expected = fastconv.conv2d(x, w, layout=layout, backend="im2col")
            big = np.full([2 * n for n in expected.shape], np.nan, np.float32)
            out = big[::2, 1::2, ::-2, ::2]
            for algorithm in ALGORITHMS:
                fastconv.conv2d(x, w, layout=layout, out=out, backend="numba", algorithm=algorithm)
                np.testing.assert_array_equal(out, expected, err_msg=f"{name} {kernel} {algorithm}")
                assert np.isnan(big).sum() == big.size - out.size  # nothing between its elements was touched
                out[...] = np.nan


# ---- the same bits


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("shape, w_shape, keywords", [
    ((3, 32, 28, 28), (48, 32, 3, 3), {"padding": 1}), ((3, 200, 7, 7), (64, 200, 1, 1), {}),
    ((3, 24, 31, 33), (24, 1, 3, 3), {"padding": 1, "groups": 24})])
def test_bits_depend_on_neither_threads_nor_batch(algorithm, shape, w_shape, keywords):
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal(shape, dtype=np.float32), rng.standard_normal(w_shape, dtype=np.float32)
    keywords = {**keywords, "backend": "numba", "algorithm": algorithm}
    with fastconv.config(num_threads=1):
        expected = fastconv.conv2d(x, w, **keywords)
    for threads in (2, 3, 8):
        with fastconv.config(num_threads=threads):
            np.testing.assert_array_equal(fastconv.conv2d(x, w, **keywords), expected)
            for n in range(len(x)):
                np.testing.assert_array_equal(fastconv.conv2d(x[n], w, **keywords), expected[n])
        with fastconv.config(num_threads=threads, no_native=True):
            np.testing.assert_array_equal(fastconv.conv2d(x, w, **keywords), expected)


def test_algorithms_in_the_same_frame_give_the_same_bits():
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((1, 40, 12, 13), dtype=np.float32), rng.standard_normal((20, 40, 3, 3), dtype=np.float32)
    (_, one), *others = each(2, x, w, padding=1)
    for _, other in others:
        np.testing.assert_array_equal(one, other)


def test_concurrent_calls():
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((2, 32, 28, 28), dtype=np.float32), rng.standard_normal((32, 32, 3, 3), dtype=np.float32)
    conv = fastconv.prepare(w, padding=1, backend="numba")
    expected = conv(x)

    def work(_):
        for _ in range(20):
            assert np.array_equal(conv(x), expected), "different bits"

    assert not at_once(work)


class Strange(np.ndarray):
    pass


@needs_native
def test_a_prepared_operator_takes_a_shortcut_and_leaves_it():
    """The same bits; whatever is not plainly the same call goes the long way."""
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((2, 6, 20, 31), dtype=np.float32), rng.standard_normal((8, 6, 3, 3), dtype=np.float32)
    spoilt = x.copy()
    spoilt[1, 2, 3, 4] = np.nan
    for algorithm in (*ALGORITHMS, "winograd", "fft"):
        conv = fastconv.prepare(w, padding=1, backend="numba", algorithm=algorithm, input_shape=x.shape)
        assert conv.shortcut is not None
        expected, first = conv(x), conv.shortcut.take(settings.current(), (), x, None, None, None, None)
        np.testing.assert_array_equal(first, expected)
        assert first.flags.c_contiguous and first.flags.writeable
        memory, y = np.full(2 * x.size + first.size, np.nan, np.float32), np.full(first.shape, np.nan, np.float32)
        beside, over = memory[x.size:][:first.size].reshape(first.shape), memory[x.size - 1:][:first.size].reshape(first.shape)
        lying = memory[:x.size].reshape(x.shape)
        lying[...] = x
        for given, out in ((x, y), (lying, beside)):
            assert conv.shortcut.take(settings.current(), (), given, None, None, None, out) is out
            np.testing.assert_array_equal(out, expected)
        y.flags.writeable = False
        for out in (over, y, np.asfortranarray(first), first.astype(">f4"), first.view(Strange), first[:1], first[0]):
            assert conv.shortcut.take(settings.current(), (), lying, None, None, None, out) is None
        np.testing.assert_array_equal(conv(lying, out=over), expected)
        for strange in (x[..., ::-1].copy()[..., ::-1], np.asfortranarray(x), x.astype(">f4"), x.view(Strange)):
            assert conv.shortcut.take(settings.current(), (), strange, None, None, None, None) is None
            np.testing.assert_array_equal(conv(strange), expected)
        for _ in range(2):
            y = conv(spoilt)
            assert np.isnan(y[1, :, 2:5, 3:6]).all() and np.isnan(y).sum() == 8 * 9
        np.testing.assert_array_equal(conv(x), expected)
        with fastconv.config(num_threads=3):
            np.testing.assert_array_equal(conv(x), expected)
        with pytest.raises(TypeError):
            conv(x.astype(np.float64))
        with pytest.raises(ValueError):
            conv(x[:, :5])


@needs_native
def test_a_job_says_what_is_wrong_with_it():
    class Plan:
        entry = SimpleNamespace(address=1)
        template, parts, rounds, workspace_bytes = np.zeros(20, np.int64), 1, 1, 0

        def __init__(self, **changes):
            self.__dict__.update(changes)

    def job(plan=None, inputs=(1, 1, 2), outputs=(1, 1, 2), context_bytes=256):
        packed = SimpleNamespace(weights_address=0, bias_address=0)
        return native.runtime().Job(settings.current(), inputs, outputs, np.dtype("f4").num, packed,
                                    lambda again: plan or Plan(), context_bytes)

    job()
    for inputs, outputs in (((1, 2), (1, 1, 2)), ((), ()), ((1,) * 6, (1,) * 6)):
        with pytest.raises(ValueError, match="shapes"):
            job(None, inputs, outputs)
    for context_bytes in (128, 260):
        with pytest.raises(ValueError, match="context|template"):
            job(context_bytes=context_bytes)
    for change in ({"entry": SimpleNamespace(address=0)}, {"parts": 0}, {"template": np.zeros(9, np.int64)},
                   {"template": np.zeros(20)}, {"template": np.zeros(40, np.int64)[::2]}):
        with pytest.raises(ValueError):
            job(Plan(**change))


# ---- memory


def guarded(values, at_end):
    """A copy of `values` flush against pages that may not be touched."""
    page = mmap.PAGESIZE
    pages = -(-values.nbytes // page)
    memory = mmap.mmap(-1, (pages + 2) * page)
    start = np.frombuffer(memory, np.uint8).ctypes.data
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    for place in (start, start + (pages + 1) * page):
        assert protect(place, page, 0) == 0
    offset = page + (pages * page - values.nbytes if at_end else 0)
    view = np.frombuffer(memory, values.dtype, values.size, offset).reshape(values.shape)
    view[...] = values
    return view


def guarded_calls(case):
    """(axes, arrays that end or begin at a page that nobody may touch, out, what is expected there, keywords)."""
    x_shape, w_shape, keywords = case
    ndim = len(x_shape) - 2
    x, w, b = integers(x_shape), integers(w_shape, seed=1), integers(w_shape[0], seed=2)
    expected = call(ndim, x, w, b, backend="im2col", **keywords)
    for at_end in (True, False):
        arrays = [guarded(a, at_end) for a in (x, w, b)]
        yield ndim, arrays, guarded(np.full(expected.shape, np.nan, np.float32), at_end), expected, keywords


@pytest.mark.skipif(not hasattr(mmap, "MAP_PRIVATE"), reason="needs mprotect")
@pytest.mark.parametrize("case", ["one pixel", "primes", "depthwise", "pointwise", "pointwise, strided",
                                  "trailing input unread", "1-D", "3-D", "tails of every tile"])
def test_nothing_beyond_the_arrays_is_touched(case):
    for ndim, arrays, out, expected, keywords in guarded_calls(CASES[case]):
        for algorithm, y in each(ndim, *arrays, out=out, **keywords):
            np.testing.assert_array_equal(y, expected, err_msg=algorithm)
            out[...] = np.nan


@pytest.mark.skipif(not hasattr(mmap, "MAP_PRIVATE"), reason="needs mprotect")
@pytest.mark.parametrize(("algorithm", "case"), [
    *(("winograd", case) for case in ("primes", "dilation", "asymmetric", "groups", "1-D", "3-D", "tails of every tile")),
    *(("fft", case) for case in ("primes", "dilation", "asymmetric", "groups", "1-D", "3-D", "tails of every tile", "wide row",
                                 "depthwise multiplier, stride", "one pixel", "kernel wider than input", "image")),
    *(("depthwise", case) for case in ("depthwise", "depthwise multiplier, stride", "image"))])
def test_nor_by_algorithms_that_take_some_problems_only(algorithm, case):
    for ndim, arrays, out, expected, keywords in guarded_calls(CASES[case]):
        call(ndim, *arrays, out=out, backend="numba", algorithm=algorithm, accuracy="loose", **keywords)
        np.testing.assert_allclose(out, expected, rtol=1e-3, atol=1e-3)


def test_scratch_leaks_nothing():
    """A call after one that filled the scratch memory with NaN."""
    x, w = integers((1, 5, 9, 9)), integers((7, 5, 3, 3), seed=1)
    expected = fastconv.conv2d(x, w, padding=1, backend="naive")
    for algorithm in ALGORITHMS:
        fastconv.conv2d(np.full((1, 20, 30, 30), np.nan, np.float32), np.ones((40, 20, 3, 3), np.float32), padding=1,
                        backend="numba", algorithm=algorithm)
        y = fastconv.conv2d(x, w, padding=1, backend="numba", algorithm=algorithm)
        np.testing.assert_array_equal(y, expected)


# ---- the backend


def test_the_compiled_code_ran(monkeypatch):
    from fastconv.backends import numba_jit
    from fastconv.backends.numba_jit.compile import stage

    performed = []
    perform = numba_jit.perform
    monkeypatch.setattr(numba_jit, "perform", lambda entry, *rest: (performed.append(entry), perform(entry, *rest)))
    plan = fastconv.explain(integers((1, 3, 8, 8)), integers((4, 3, 3, 3)), backend="numba", algorithm="gemm")
    assert plan.backend == "numba"
    fastconv.conv2d(integers((1, 3, 8, 8)), integers((4, 3, 3, 3)), backend="numba", algorithm="gemm")
    assert performed == [stage("pack", "float32"), stage("convolve", "float32")]


def test_kernel_contract():
    problem = ConvProblem((8, 8), (3, 3), 4, 20, padding=((1, 1), (1, 1)), bias=True)
    backend = get("numba")
    assert {c.algorithm for c in backend.candidates(problem)} == {*ALGORITHMS, "winograd", "depthwise", "fft"}
    w, b = integers(problem.weight_shape), integers(20, seed=2)
    for algorithm in ALGORITHMS:
        kernel = backend.bind(problem, Candidate(algorithm))
        packed = kernel.pack(w, b)
        assert kernel.packed_bytes == packed.weights.size >= w.nbytes
        assert kernel.workspace_bytes > 0
        same = backend.bind(ConvProblem((16, 5), (3, 3), 4, 20, batch=3, stride=(2, 1), bias=True), Candidate(algorithm))
        assert same.pack_key == kernel.pack_key
        x, out = integers(same.problem.input_shape, seed=4), np.full(same.problem.output_shape, np.nan, np.float32)
        same.run(x, packed, out)
        np.testing.assert_array_equal(out, fastconv.conv2d(x, w, b, stride=(2, 1), backend="im2col"))


def test_unavailable_names_the_command(monkeypatch):
    monkeypatch.setattr(numba_jit, "_installed", lambda: False)
    assert "pip install 'fastconv[numba]'" in get("numba").unavailable()


def test_importing_fastconv_does_not_import_numba():
    code = "import sys, fastconv; fastconv.backends(); sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


PROGRAM = """
import numpy as np, fastconv
x, w = np.ones((1, 3, 9, 9), np.float32), np.ones((20, 3, 3, 3), np.float32)
y = fastconv.conv2d(x, w, padding=1, backend="numba")
assert y[0, 0, 1, 1] == 27
"""


def test_cache_directory(tmp_path):
    environment = {**os.environ, "FASTCONV_CACHE_DIR": str(tmp_path), "FASTCONV_NO_NATIVE": "1"}
    written = []
    for _ in range(2):
        subprocess.run([sys.executable, "-c", PROGRAM], env=environment, check=True)
        written.append({path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.o")})
    assert written[0] and written[0] == written[1], "compiled again"


def test_a_call_with_a_full_cache_does_not_import_numba(tmp_path):
    environment = {**os.environ, "FASTCONV_CACHE_DIR": str(tmp_path)}
    for code in (0, 1):
        program = f"{PROGRAM}\nimport sys; sys.exit('numba' not in sys.modules)"
        assert subprocess.run([sys.executable, "-c", program], env=environment, check=False).returncode == code


def test_explain_says_what_was_compiled(tmp_path):
    program = "import fastconv; print(fastconv.explain('mb1_ic3ih9_oc4oh7_kh3', backend='numba', algorithm='gemm'))"
    environment = {**os.environ, "FASTCONV_CACHE_DIR": str(tmp_path)}
    first, second = (subprocess.run([sys.executable, "-c", program], env=environment, check=True, capture_output=True,
                                    text=True).stdout for _ in range(2))
    assert re.search(r"^compiled   in [0-9.]+ s$", first, re.MULTILINE), first
    assert "\ncompiled   before, or kept on disk\n" in second


def test_a_full_disk_costs_one_compilation(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert packing_stages(tmp_path)[1] == 2
    assert not list(tmp_path.rglob("tmp*"))


def test_cache_that_cannot_be_written(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with fastconv.config(cache_dir=str(blocked)):
        y = fastconv.conv2d(integers((1, 1, 4, 4)), np.ones((1, 1, 4, 4), np.float32), backend="numba", algorithm="direct")
    assert y[0, 0, 0, 0] == integers((1, 1, 4, 4)).sum()


# ---- a cache that something has happened to


def packing_stages(folder):
    """The packing stages of both dtypes, from the cache in a folder or into it, and how many of them were compiled."""
    from fastconv.backends.numba_jit import compile

    compiled = []
    written = compile._written
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compile, "_written", lambda *stage: compiled.append(stage) or written(*stage))
        codes = [compile._code("pack", dtype, str(folder)) for dtype in ("float32", "float64")]
        return [compile.Stage(code) for code in codes], len(compiled)


@pytest.fixture(scope="module")
def sound_cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound")
    assert packing_stages(folder)[1] == 2 and packing_stages(folder)[1] == 0
    return folder


def flipped(content):
    middle = len(content) // 2
    return content[:middle] + bytes(byte ^ 0xFF for byte in content[middle : middle + 64]) + content[middle + 64 :]


CONTENTS = {"empty": lambda content: b"", "truncated": lambda content: content[: len(content) // 2],
            "garbage": lambda content: b"\x80\x05garbage" * 99, "flipped": flipped}


@pytest.mark.parametrize("damage", [*CONTENTS, "mixed up", "folders"])
def test_a_damaged_cache_is_replaced(sound_cache, tmp_path, damage):
    folder = tmp_path / "cache"
    shutil.copytree(sound_cache, folder)
    files = sorted(folder.rglob("*.o"))
    assert len(files) == 2
    contents = [file.read_bytes() for file in files]
    for file, content, other in zip(files, contents, contents[::-1]):
        file.unlink()
        if damage == "folders":
            file.mkdir()
        else:
            file.write_bytes(other if damage == "mixed up" else CONTENTS[damage](content))
    stages, compiled = packing_stages(folder)
    assert compiled == 2
    w = integers((20, 3, 3, 3))
    kernel = get("numba").bind(ConvProblem.from_shapes((1, 3, 6, 6), w.shape, ndim=2, dtype="float32"), Candidate("gemm"))
    expected = kernel.pack(w, None).weights.bytes[: kernel.packed_bytes].copy()
    kernel._packing = [(stages[0], kernel._packing[0][1])]
    assert np.array_equal(kernel.pack(w, None).weights.bytes[: kernel.packed_bytes], expected)
    assert damage == "folders" or packing_stages(folder)[1] == 0


def test_a_file_that_needs_what_is_not_there_is_not_loaded():
    """LLVM would end the process."""
    from fastconv.backends.numba_jit import compile

    assert compile._has_all(compile.Code(2, ["strlen"], b""))
    assert not compile._has_all(compile.Code(2, ["strlen", "no_such_function"], b""))


def test_no_stage_needs_numba():
    """Or a call with a full cache would import it: no exception may be left, for instance of a division or a range."""
    from fastconv.backends.numba_jit import compile, frontend

    for name in (*frontend.STAGES, "gelu", "tanh", "tile 3 2 4", "last 4 3"):
        text, entry, arguments = frontend.written(name, "float32")
        needs = compile._optimised(text, entry, arguments).needs
        assert not [need for need in needs if need.startswith(("numba", "NRT", "Py", "_"))], name


def test_gemm_finds_the_register_tiles_that_it_calls() -> None:
    """Those that are compiled follow from the sizes of blocks, those that are called from the number of pixels."""
    from fastconv.backends.numba_jit import blocking, contexts

    for count in range(1, 40 * contexts.ROWS):
        tiles = -(-count // contexts.ROWS)
        rows, larger = count // tiles, count % tiles  # as in `kernels.gemm_stage`
        assert blocking._rows(count) == {rows, rows + (larger > 0)} and 1 <= rows <= contexts.ROWS
