"""The n-th allocation fails, for every n until a call needs no more: what comes out is a MemoryError or the right numbers, and
the same call works afterwards. Run by `test_no_memory` in a process of its own; `native` with no_memory.cpp preloaded.

    python tests/no_memory.py native | python

Each n is tried in a forked child, where no pool, scratch memory or packing is left from the try before.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterator

import numpy as np

import fastconv
from fastconv.backends import Candidate, cython_native
from fastconv.problem import ConvProblem

NEVER_CAME, WRONG = 42, 1
Work = Callable[[], np.ndarray]
PROBLEMS = {  # packed weights of more than 128 KB, which are kept, and of less
    "gemm": ("mb2_ic64ih9_oc64oh9_kh3ph1", "mb1_ic5ih9_oc9oh9_kh1"),
    "direct": ("mb2_ic64ih9_oc64oh9_kh3ph1", "mb1_ic3ih20_oc5_kh3"),
    "winograd": ("mb2_ic64ih9_oc64oh9_kh3ph1", "--dt=f64 mb1_ic5ih9_oc9oh9_kh5ph2"),
    "depthwise": ("mb2_g40ic40ih9_oc40oh9_kh3ph1", "--stag=axb mb1_g7ic7ih19_oc7oh9_kh3sh2"),
    "dot": ("mb2_ic64ih9_oc64oh9_kh3ph1", "--dt=f64 mb1_ic5ih9_oc9oh9_kh1"),
    "fft": ("mb1_ic8ih40_oc8oh40_kh11ph5", "mb1_ic1ih30_oc1_kh7"),
}


def works() -> Iterator[tuple[str, Work]]:
    """What is tried: each algorithm and ISA by itself, per call and prepared."""
    rng = np.random.default_rng(0)
    for isa in cython_native.runnable_isas():
        for algorithm, texts in PROBLEMS.items():
            for problem in map(ConvProblem.from_text, texts):
                x, w, b = (rng.standard_normal(shape).astype(problem.dtype)
                           for shape in (problem.input_shape, problem.weight_shape, problem.out_channels))
                kernel = cython_native.NativeKernel(problem, Candidate(algorithm, isa))

                def run(kernel=kernel, x=x, w=w, b=b, problem=problem) -> np.ndarray:
                    out = np.full(problem.output_shape, np.nan, problem.dtype)
                    kernel.run(x, kernel.pack(w, b), out)
                    return out

                yield f"{algorithm}/{isa} {problem.text}", run
    yield from public()


def public() -> Iterator[tuple[str, Work]]:
    rng = np.random.default_rng(0)
    x, w, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((2, 64, 9, 9), (64, 64, 3, 3), 64))
    for algorithm in ("gemm", "winograd", "dot"):
        keywords = dict(backend="cython", algorithm=algorithm, padding=1)
        conv = fastconv.prepare(w, b, **keywords)
        yield f"per call, {algorithm}", lambda k=keywords: fastconv.conv2d(x, w, b, **k)
        yield f"prepared, {algorithm}", lambda conv=conv: conv(x)
    yield "an activation", lambda: fastconv.gelu(x)
    yield "batch norm", lambda: fastconv.batch_norm(x, None, None, training=True)
    yield "batch norm, channels side by side", lambda: fastconv.batch_norm_backward(
        x, x, training=True, layout="channels_last")[0]
    yield "layer norm", lambda: fastconv.layer_norm_backward(x, x, 9)[0]
    yield "softmax", lambda: fastconv.softmax(x, 1)


def tried(work: Work, expected: np.ndarray, arm: Callable[[], None], disarm: Callable[[], bool]) -> int:
    """The exit status of a child in which an allocation fails."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    signal.alarm(60)
    try:
        arm()
        try:
            result = work()
        except MemoryError:
            result = None
        came = disarm()
        right = (result is None or np.array_equal(result, expected)) and np.array_equal(work(), expected)
    except BaseException as error:
        disarm()
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
        os._exit(WRONG)
    os._exit((0 if came else NEVER_CAME) if right else WRONG)


def native() -> int:
    shim = ctypes.CDLL(None)
    wrong = failures = 0
    for name, work in works():
        fastconv.set_num_threads(1)  # no thread may live when a child is forked
        expected = work()
        fastconv.set_num_threads(3)
        for forever in (False, True):
            for n in range(1, 1000):
                status = tried(work, expected, lambda n=n, forever=forever: shim.fail_allocation(n, forever),
                               lambda: shim.allocations_failed() > 0)
                if status == NEVER_CAME:
                    break
                failures += 1
                if status:
                    wrong += 1
                    print(f"WRONG {name}: allocation {n} fails{' and all after it' * forever}: status {status}")
    print(f"{failures} allocations failed, {wrong} wrong")
    return wrong


def python(first: int, again: int) -> int:
    """Objects of Python and NumPy as well, one out of 37 of those that a first call makes and each of a repeated one."""
    import _testcapi

    wrong = failures = 0
    for name, work in public():
        for numbers in (range(again), range(0, first, 37)):
            fastconv.set_num_threads(1)
            work(), work()
            expected = work()
            if numbers.step > 1:
                fastconv.set_num_threads(1)  # a first call again: what is remembered belongs to other settings
            for n in numbers:
                failures += 1
                status = tried(work, expected, lambda n=n: _testcapi.set_nomemory(n, n + 1),
                               lambda: _testcapi.remove_mem_hooks() is None)
                if status:
                    wrong += 1
                    print(f"WRONG {name}: object {n} fails, status {status}")
    print(f"{failures} objects failed, {wrong} wrong")
    return wrong


if __name__ == "__main__":
    sys.exit(native() > 0 if sys.argv[1] == "native" else python(3000, 40) > 0)
