"""The thread pool, and the checks that stand between Python and the native kernels."""

import ctypes
import importlib
import os
import shutil
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from helpers import at_once

runtime = pytest.importorskip("fastconv._runtime")

BODY = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)
THREADS = Path(__file__).parents[1] / "kernels" / "threads.cpp"


def counted(parts):
    """How often each part was run by one parallel_for."""
    counts = Counter()
    lock = threading.Lock()

    def count(context, part):
        with lock:
            counts[part] += 1

    body = BODY(count)
    runtime.parallel_for(parts, ctypes.cast(body, ctypes.c_void_p).value)
    return counts


def python(code):
    """Run code in a fresh interpreter; `harmless` is a C function that fits as a body and does nothing."""
    start = """
        import ctypes, os, resource, sys, threading
        from fastconv import _runtime as runtime
        harmless = ctypes.cast(ctypes.CDLL(None).abs, ctypes.c_void_p).value
        BODY = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)
        def counted(parts):
            seen = []
            body = BODY(lambda context, part: seen.append(part))
            runtime.parallel_for(parts, ctypes.cast(body, ctypes.c_void_p).value)
            return sorted(seen) == list(range(parts))
    """
    program = textwrap.dedent(start) + textwrap.dedent(code)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# ---------------------------------------------------------------------------------------------------------- the pool


@pytest.mark.parametrize("parts", [0, 1, 2, 3, 4, 7, 8, 15, 16, 17, 64, 1000])
def test_every_part_runs_exactly_once(parts):
    for _ in range(5):
        assert counted(parts) == Counter(range(parts))


def test_the_caller_runs_part_0():
    where = {}
    body = BODY(lambda context, part: where.setdefault(part, threading.get_ident()))
    runtime.parallel_for(4, ctypes.cast(body, ctypes.c_void_p).value)
    assert where[0] == threading.get_ident()


def test_a_nested_region_runs_on_its_thread():
    inner_threads = {}

    def outer(context, part):
        seen = []
        inner = BODY(lambda context, part: seen.append((part, threading.get_ident())))
        runtime.parallel_for(3, ctypes.cast(inner, ctypes.c_void_p).value)
        inner_threads[part] = (seen, threading.get_ident())

    body = BODY(outer)
    runtime.parallel_for(4, ctypes.cast(body, ctypes.c_void_p).value)
    for seen, thread in inner_threads.values():
        assert seen == [(0, thread), (1, thread), (2, thread)]


def test_concurrent_callers():
    def call(_):
        for parts in range(40):
            assert counted(parts) == Counter(range(parts)), parts

    assert not at_once(call)


def test_a_small_thread_stack():
    before = threading.stack_size(128 * 1024)
    try:
        results = []
        thread = threading.Thread(target=lambda: results.append(counted(8)))
        thread.start()
        thread.join()
    finally:
        threading.stack_size(before)
    assert results == [Counter(range(8))]


def test_workers_take_no_signals():
    python("""
        import signal, time
        runtime.parallel_for(4, harmless)
        assert runtime.worker_count() == 3
        for task in os.listdir("/proc/self/task"):
            if int(task) != os.getpid():
                status = dict(line.split(":", 1) for line in open(f"/proc/self/task/{task}/status"))
                if status["Name"].strip() == "fastconv":
                    assert int(status["SigBlk"], 16) >> (signal.SIGINT - 1) & 1
    """)


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")


@needs_fork
def test_many_forks():
    python("""
        import warnings
        warnings.simplefilter("ignore")
        for i in range(200):
            runtime.parallel_for(4, harmless)
            child = os.fork()
            if child == 0:
                runtime.parallel_for(4, harmless)
                os._exit(0 if runtime.worker_count() == 3 and (i % 50 or counted(5)) else 1)
            assert os.waitpid(child, 0)[1] == 0
        assert runtime.worker_count() == 3
    """)


@needs_fork
def test_fork_while_another_thread_is_in_a_region():
    python("""
        import warnings
        warnings.simplefilter("ignore")
        going = True
        def work():
            while going:
                runtime.parallel_for(4, harmless)
        thread = threading.Thread(target=work)
        thread.start()
        for i in range(100):
            child = os.fork()
            if child == 0:
                os._exit(0 if counted(4) else 1)
            assert os.waitpid(child, 0)[1] == 0
        going = False
        thread.join()
    """)


def test_no_thread_to_be_had():
    python("""
        import numpy
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
        if os.getuid() == 0:  # whom the limit does not bind
            os.setgid(65534)
            os.setuid(65534)
        try:
            threading.Thread(target=int).start()
        except RuntimeError:
            pass
        else:
            sys.exit(0)  # this system does not count threads
        for _ in range(3):
            assert counted(8)
        assert runtime.worker_count() == 0
    """)


def test_no_memory_for_threads():
    python("""
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (3 << 20), resource.RLIM_INFINITY))
        assert counted(16)
        assert runtime.worker_count() < 15
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert counted(16)
    """)


def test_exit_right_after_a_region():
    for _ in range(3):
        python("runtime.parallel_for(8, harmless)")


def test_exit_while_a_daemon_thread_is_in_a_region():
    python("""
        import time
        def work():
            while True:
                runtime.parallel_for(4, harmless)
        threading.Thread(target=work, daemon=True).start()
        time.sleep(0.05)
    """)


STRESS = r"""
#include "threads.hpp"
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>
#ifdef __SSE2__
#include <immintrin.h>
#endif
using namespace fastconv;

struct Region { std::vector<int> counts; std::vector<unsigned> modes; };  // plain ints: a part run twice is a race

static unsigned mode() {
#ifdef __SSE2__
    return _mm_getcsr() & ~0x3fu;
#else
    return 0;
#endif
}

static void body(void* context, int64_t part) {
    Region& region = *static_cast<Region*>(context);
    ++region.counts[part];
    region.modes[part] = mode();
    if (part % 5 == 4) std::this_thread::sleep_for(std::chrono::microseconds(300));
}

static void check(int64_t parts) {
    Region region{std::vector<int>(parts), std::vector<unsigned>(parts)};
    parallel_for(parts, body, &region);
    for (int64_t part = 0; part < parts; ++part)
        if (region.counts[part] != 1 || region.modes[part] != mode())
            std::printf("part %ld\n", long(part)), std::exit(1);
}

static void caller(unsigned seed) {
#ifdef __SSE2__
    _mm_setcsr((_mm_getcsr() & ~0x8040u) | (seed % 2 ? 0x8040 : 0));  // flush denormals or not: workers must follow
#endif
    for (int i = 0; i < 200; ++i) {
        seed = seed * 1664525 + 1013904223;
        check(seed >> 27);
        if (i % 20 == 0) std::this_thread::sleep_for(std::chrono::microseconds(300));  // workers fall asleep
    }
}

int main() {
    caller(1);
    caller(2);
    std::vector<std::thread> threads;
    for (unsigned i = 0; i < 4; ++i) threads.emplace_back(caller, i);
    for (auto& thread : threads) thread.join();
}
"""


def run_sanitized(folder, sanitizer, text, *sources):
    """A program built with a sanitizer, and what became of it."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if not compiler or not THREADS.exists():
        pytest.skip("needs a compiler and the sources")
    (folder / "main.cpp").write_text(text)
    flags = ["-std=c++17", "-O1", "-g", f"-fsanitize={sanitizer}", "-pthread", f"-I{THREADS.parent}", "-DFASTCONV_ISA=baseline"]
    built = subprocess.run([compiler, *flags, str(folder / "main.cpp"), *map(str, sources), "-o", str(folder / "main")],
                           capture_output=True, text=True)
    if "cannot find" in built.stderr:
        pytest.skip("no sanitizer library")
    assert built.returncode == 0, built.stderr
    done = subprocess.run([str(folder / "main")], capture_output=True, text=True)
    if "unexpected memory mapping" in done.stderr:
        pytest.skip("the sanitizer does not run on this system")
    return done


@pytest.mark.slow
@pytest.mark.parametrize("sanitizer", ["thread", "address,undefined"])
def test_the_pool_under_sanitizers(tmp_path, sanitizer):
    done = run_sanitized(tmp_path, sanitizer, STRESS, THREADS)
    assert done.returncode == 0, done.stdout + done.stderr


PIECES = """
#include "window.hpp"
#include <stdlib.h>
using namespace fastconv;

int main() {
    void* memory = nullptr;
    if (posix_memalign(&memory, 64, 1024)) return 2;
    for (int64_t n : {20, 100}) {  // what was a fence for one is a piece of the next
        baseline::Arena arena(memory);
        volatile char *a = arena.take<char>(n), *b = arena.take<char>(50);
        for (int64_t i = 0; i < n; ++i) a[i] = b[i % 50] = 0;
        if (n == 100) WRITE;
    }
    free(memory);
}
"""


@pytest.mark.slow
@pytest.mark.parametrize("write", ["(void)0", "a[100] = 0", "b[-1] = 0", "b[50] = 0"])
def test_pieces_of_a_workspace_are_fenced_under_sanitizers(tmp_path, write):
    done = run_sanitized(tmp_path, "address", PIECES.replace("WRITE", write))
    assert (done.returncode != 0) == ("use-after-poison" in done.stderr) == (write != "(void)0"), done.stderr


# --------------------------------------------------------------------------------------------------- machine and ISAs


def module_of(isa):
    return runtime.Module(importlib.import_module(f"fastconv._{isa}").capsule)


@pytest.fixture(params=runtime.supported_isas())
def module(request):
    return module_of(request.param)


def test_supported_isas_agree_with_numpy():
    features = pytest.importorskip("numpy._core._multiarray_umath").__cpu_features__
    isas = runtime.supported_isas()
    assert isas[0] == "baseline"
    if not features.get("SSE", False):
        assert isas == ("baseline",)
        return
    avx2 = all(features[name] for name in ("AVX2", "FMA3", "F16C"))
    avx512 = all(features[name] for name in ("AVX512F", "AVX512CD")) and features.get("AVX512_SKX", False)
    assert isas == ("baseline",) + ("avx2",) * avx2 + ("avx512",) * (avx2 and avx512)


def test_module(module):
    assert module.lanes == {"baseline": 4, "avx2": 8, "avx512": 16}[module.isa]
    assert module.algorithms and module.algorithms[0] in repr(module)


def test_a_wrong_capsule_is_refused():
    for wrong in (None, 3, np.array(1).__array_interface__):
        with pytest.raises((TypeError, ValueError)):
            runtime.Module(wrong)


def test_importing_does_not_change_the_float_mode():
    python("""
        import importlib, numpy
        for isa in runtime.supported_isas():
            importlib.import_module(f"fastconv._{isa}")
        assert numpy.finfo("f4").smallest_subnormal > 0 and numpy.float32(1e-40) * numpy.float32(1) != 0
    """)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_peak_is_plausible(module, dtype):
    assert 0 < module.peak_flops(dtype, 1, 0.02) < 1e13  # however busy the machine is
    with pytest.raises(ValueError, match="threads"):
        module.peak_flops(dtype, 0, 0.02)
    with pytest.raises(ValueError, match="dtype"):
        module.peak_flops("float16", 1, 0.02)


def test_copy_bandwidth():
    assert 0 < runtime.copy_bandwidth(1 << 20, 2, 0.02) < 1e13
    with pytest.raises(MemoryError, match="4,611,686,018,427,387,904"):
        runtime.copy_bandwidth(1 << 62, 2, 0.02)


# ------------------------------------------------------------------------------------------------------------ kernels

FIELDS = dict(
    dtype="float32", batch=2, groups=1, in_channels=3, out_channels=5, input=(6, 7), output=(6, 4), kernel=(3, 3),
    stride=(1, 2), dilation=(1, 1), pad_lo=(1, 1), pad_hi=(1, 1), has_bias=True,
)  # fmt: skip


def kernel_for(module, **changes):
    fields = {**FIELDS, **changes}
    reasons = {name: runtime.refuses(module, name, **fields) for name in module.algorithms}
    for name, reason in reasons.items():
        if reason is None:
            return runtime.Kernel(module, name, **fields)
    pytest.skip(f"every algorithm refuses: {reasons}")


def integers(shape, dtype="float32", seed=0):
    return np.random.default_rng(seed).integers(-8, 9, shape).astype(dtype)


def expected(x, w, b):
    """FIELDS, computed by shifting: exact on integers."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    out = np.zeros((x.shape[0], w.shape[0], 6, 4), x.dtype)
    for i in range(3):
        for j in range(3):
            out += np.einsum("nchw,kc->nkhw", padded[:, :, i : i + 6, j : j + 7 : 2], w[:, :, i, j])
    return out + b[:, None, None]


def arrays():
    return integers((2, 3, 6, 7)), integers((5, 3, 3, 3), seed=1), integers(5, seed=2)


LAYOUTS = {
    "contiguous": lambda a: a,
    "channels last": lambda a: np.ascontiguousarray(a.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2),
    "Fortran": np.asfortranarray,
    "reversed": lambda a: np.ascontiguousarray(a[::-1, ::-1, ::-1, ::-1])[::-1, ::-1, ::-1, ::-1],
    "every second": lambda a: np.repeat(np.repeat(a, 2, axis=3), 3, axis=1)[:, ::3, :, ::2],
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("threads", [1, 3])
def test_run_with_any_strides(module, layout, threads):
    kernel = kernel_for(module)
    x, w, b = arrays()
    change = LAYOUTS[layout]
    packed = kernel.pack(change(w), b)
    out = change(np.full((2, 5, 6, 4), np.nan, "f4"))
    kernel.run(change(x), packed, out, None, threads)
    np.testing.assert_array_equal(out, expected(x, w, b))


@pytest.mark.parametrize("change", [np.ascontiguousarray, lambda a: a], ids=["contiguous", "strided"])
def test_channels_last(module, change):
    kernel = kernel_for(module, channels_last=True)
    x, w, b = arrays()
    out = change(np.full((2, 5, 6, 4), np.nan, "f4").transpose(0, 2, 3, 1))
    kernel.run(change(x.transpose(0, 2, 3, 1)), kernel.pack(w, b), out)
    np.testing.assert_array_equal(out, expected(x, w, b).transpose(0, 2, 3, 1))
    with pytest.raises(ValueError, match=r"input must have shape \(2, 6, 7, 3\), got \(2, 3, 6, 7\)"):
        kernel.run(x, kernel.pack(w, b), out)


def test_broadcast_input_and_odd_strides_of_length_1(module):
    x, w, b = arrays()
    kernel = kernel_for(module)
    packed = kernel.pack(w, b)
    out = np.full((2, 5, 6, 4), np.nan, "f4")
    kernel.run(np.broadcast_to(x[:1, :1], x.shape), packed, out)
    np.testing.assert_array_equal(out, expected(np.broadcast_to(x[:1, :1], x.shape).copy(), w, b))
    single = kernel_for(module, batch=1)
    strange = np.lib.stride_tricks.as_strided(x, (1, 3, 6, 7), (7_777_777, *x.strides[1:]))
    single.run(strange, packed, out[:1])
    np.testing.assert_array_equal(out[:1], expected(x[:1], w, b))


def test_batch_0(module):
    kernel = kernel_for(module, batch=0)
    _, w, b = arrays()
    kernel.run(np.empty((0, 3, 6, 7), "f4"), kernel.pack(w, b), np.empty((0, 5, 6, 4), "f4"))
    assert kernel.workspace_bytes(4) == 0


def test_one_packing_for_every_batch_and_concurrent_callers(module):
    x, w, b = arrays()
    kernel = kernel_for(module)
    packed = kernel_for(module, batch=1).pack(w, b)
    reference = expected(x, w, b)

    def call(_):
        out = np.empty((2, 5, 6, 4), "f4")
        for _ in range(200):
            out.fill(np.nan)
            kernel.run(x, packed, out, None, 2)
            assert np.array_equal(out, reference)

    assert not at_once(call)


def unaligned(a):
    return np.frombuffer(b"\0" + a.tobytes(), np.uint8)[1:].view(a.dtype).reshape(a.shape)


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda a: a.astype("f8"), "native float32"),
        (lambda a: a.astype("i4"), "native float32"),
        (lambda a: a.astype(">f4"), "native float32"),
        (lambda a: a[None], "shape"),
        (lambda a: a[0], "shape"),
        (lambda a: a[:, :, :, :-1], "shape"),
        (lambda a: a[:, :-1], "shape"),
        (lambda a: a[:0], "shape"),
        (unaligned, "aligned"),
    ],
)
@pytest.mark.parametrize("which", ["input", "weight", "out"])
def test_wrong_arrays_are_value_errors(module, spoil, message, which):
    x, w, b = arrays()
    out = np.zeros((2, 5, 6, 4), "f4")
    kernel = kernel_for(module)
    with pytest.raises(ValueError, match=f"{which} must .*{message}"):
        if which == "weight":
            kernel.pack(spoil(w), b)
        else:
            packed = kernel.pack(w, b)
            spoiled = spoil(x) if which == "input" else x
            kernel.run(spoiled, packed, spoil(out) if which == "out" else out)


def test_wrong_outputs_bias_residual_and_packing(module):
    x, w, b = arrays()
    out = np.zeros((2, 5, 6, 4), "f4")
    kernel = kernel_for(module)
    packed = kernel.pack(w, b)
    with pytest.raises(ValueError, match="bias"):
        kernel.pack(w)
    with pytest.raises(ValueError, match="bias"):
        kernel.pack(w, b[:4])
    with pytest.raises(ValueError, match="bias"):
        kernel.pack(w, b.astype("f8"))
    with pytest.raises(ValueError, match="contiguous"):
        kernel.pack(w, np.repeat(b, 2)[::2])
    with pytest.raises(ValueError, match="residual"):
        kernel.run(x, packed, out, out)
    with pytest.raises(ValueError, match="threads"):
        kernel.run(x, packed, out, None, 0)
    with pytest.raises(ValueError, match="packed"):
        kernel.run(x, kernel_for(module, has_bias=False).pack(w), out)
    with pytest.raises(ValueError, match="packed"):
        kernel.run(x, kernel_for(module, out_channels=4).pack(w[:4], b[:4]), out)
    with pytest.raises((TypeError, ValueError)):
        kernel.run(x, None, out)
    with pytest.raises(TypeError):
        kernel.run(x.tolist(), packed, out)
    with pytest.raises(ValueError, match="stride of 0"):
        kernel.run(x, packed, np.lib.stride_tricks.as_strided(out, out.shape, (0, *out.strides[1:])))
    out.flags.writeable = False
    with pytest.raises(ValueError, match="writable"):
        kernel.run(x, packed, out)


@pytest.mark.parametrize(
    "change",
    [
        dict(dtype="float16"), dict(padding_mode="zero"), dict(activation="none"), dict(groups=0), dict(batch=-1),
        dict(stride=(0, 1)), dict(dilation=(1, 0)), dict(kernel=(0, 3)), dict(output=(6, 5)), dict(kernel=(3,)),
        dict(input=(1, 1, 1, 1)), dict(input=()), dict(in_channels=1 << 62), dict(in_channels=1 << 70),
        dict(pad_lo=(-1, 1)), dict(out_channels=1 << 40, in_channels=1 << 40),
    ],
    ids=str,
)  # fmt: skip
def test_wrong_problems_are_value_errors(module, change):
    with pytest.raises(ValueError):
        runtime.refuses(module, module.algorithms[0], **{**FIELDS, **change})


def test_wrong_types_and_names(module):
    with pytest.raises(TypeError):
        runtime.Kernel(module, 0, **{**FIELDS, "stride": (1.0, 1)})
    with pytest.raises(TypeError):
        runtime.Kernel(module, 0, **FIELDS, colour="red")
    for algorithm in ("none", -1, 99):
        with pytest.raises(ValueError, match="algorithm"):
            runtime.Kernel(module, algorithm, **FIELDS)


def test_no_memory_names_the_bytes_and_the_next_call_works():
    python("""
        import importlib, numpy as np
        module = runtime.Module(importlib.import_module("fastconv._" + runtime.supported_isas()[-1]).capsule)
        fields = dict(dtype="float32", batch=1, groups=1, input=(1,), output=(1,), kernel=(1,), stride=(1,),
                      dilation=(1,), pad_lo=(0,), pad_hi=(0,))
        large = runtime.Kernel(module, 0, in_channels=4096, out_channels=4096, **fields)
        small = runtime.Kernel(module, 0, in_channels=4, out_channels=4, **fields)
        weight = np.zeros((4096, 4096, 1), "f4")
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (16 << 20), resource.RLIM_INFINITY))
        try:
            large.pack(weight)
        except MemoryError as error:
            assert f"{large.packed_bytes:,} bytes" in str(error), error
        else:
            raise SystemExit("no MemoryError")
        out = np.zeros((1, 4, 1), "f4")
        small.run(np.ones((1, 4, 1), "f4"), small.pack(np.ones((4, 4, 1), "f4")), out)
        assert (out == 4).all()
        try:
            small.run(np.ones((1, 4, 1), "f4"), small.pack(np.ones((4, 4, 1), "f4")), out, None, 65536)
        except MemoryError as error:
            assert f"{small.workspace_bytes(65536):,} bytes" in str(error), error
        else:
            assert small.workspace_bytes(65536) < 16 << 20
    """)
