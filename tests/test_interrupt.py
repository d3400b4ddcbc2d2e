"""A long call gives way to signal handlers: Ctrl-C ends it, and the process goes on; other handlers run in between.

Nothing here depends on how fast the machine is: the work is doubled until it is long enough to see that.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

import fastconv

TICK = 0.02
FORMS = {"cython": ["gemm", "direct", "winograd", "depthwise", "fft", "dot"],
         "numba": ["gemm", "direct", "broadcast", "winograd", "fft"], "im2col": ["im2col"]}
CASES = [(name, algorithm) for name, algorithms in FORMS.items() if fastconv.backends()[name] is None
         for algorithm in algorithms]
pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs a timer's signals")
native = pytest.mark.skipif(fastconv.backends()["cython"] is not None, reason="the native kernels were not built")
BATCHES = [2**n for n in range(3, 11)]


class Convolution:
    """A call with that many equal images; `out` is mapped beforehand, since fresh pages are not what takes long."""

    def __init__(self, name: str, algorithm: str, batch: int, size: int = 96) -> None:
        channels, kernel = {"fft": (16, 9), "depthwise": (32, 31)}.get(algorithm, (32, 3))
        groups = channels if algorithm == "depthwise" else 1
        rng = np.random.default_rng(7)
        image = rng.standard_normal((1, channels, size, size), np.float32)
        self.x = np.broadcast_to(image, (batch, *image.shape[1:]))
        self.w = rng.standard_normal((channels, channels // groups, kernel, kernel), np.float32)
        self.out = np.full((batch, channels, size, size), np.nan, np.float32)
        self.keywords = dict(padding=kernel // 2, groups=groups, backend=name, algorithm=algorithm)

    def __call__(self) -> np.ndarray:
        return fastconv.conv2d(self.x, self.w, out=self.out, **self.keywords)

    def right(self) -> bool:
        """Whether `out` is what each image gives alone."""
        alone = fastconv.conv2d(self.x[:1], self.w, **self.keywords)[0]
        return all(np.array_equal(image, alone) for image in self.out)


class Alarms:
    """Calls `work` as the handler of a timer's signals, again and again; the handler there was before, afterwards."""

    def __init__(self, work) -> None:
        self.work = work

    def __enter__(self) -> None:
        self.before = signal.signal(signal.SIGALRM, self._handle)
        signal.setitimer(signal.ITIMER_REAL, TICK)

    def _handle(self, *_: object) -> None:
        self.work()
        signal.setitimer(signal.ITIMER_REAL, TICK)

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self.before)


@pytest.mark.parametrize(("name", "algorithm"), CASES)
def test_handlers_run_in_the_middle_of_a_call(name, algorithm):
    """And may convolve themselves. Were they to wait for its end, all outputs would be there."""
    small = Convolution(name, algorithm, 1, 16)
    expected = small().copy()

    def handled_during(call: Convolution) -> int:
        during, right = [], []

        def handler() -> None:
            missing = np.isnan(call.out[:, 0, ::16, ::16])
            during.append(bool(missing.any() and not missing.all()))
            right.append(np.array_equal(small(), expected))

        with Alarms(handler):
            call()
        assert call.right() and all(right)
        return sum(during)

    assert any(handled_during(Convolution(name, algorithm, batch)) >= 2 for batch in BATCHES)


class Enough(Exception):
    pass


@pytest.mark.parametrize(("name", "algorithm"), CASES)
def test_a_handler_that_raises_ends_the_call(name, algorithm):
    def handler() -> None:
        raise Enough

    def ends_early(call: Convolution) -> bool:
        try:
            with Alarms(handler):
                call()
        except Enough:
            pass
        early = bool(np.isnan(call.out).any())
        call()
        assert call.right()
        return early

    Convolution(name, algorithm, 1, 16)()  # nothing is imported or compiled any more
    assert any(ends_early(Convolution(name, algorithm, batch)) for batch in BATCHES)


@native
def test_ctrl_c_ends_a_prepared_operator_too():
    code = """
import os, signal, threading, time, numpy as np, fastconv
x, w = np.broadcast_to(np.float32(1), (1024, 32, 96, 96)), np.ones((32, 32, 3, 3), np.float32)
out = np.full((1024, 32, 96, 96), np.nan, np.float32)
operator = fastconv.prepare(w, padding=1, algorithm="direct", input_shape=x.shape)
def ctrl_c_once_it_runs():
    while np.isnan(out[0]).all():
        time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=ctrl_c_once_it_runs).start()
try:
    operator(x, out=out)
    print("went on to the end")
except KeyboardInterrupt:
    print("ended", bool(np.isnan(out).any()), np.isfinite(operator(x[:1])).all())
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout.split() == ["ended", "True", "True"], run.stdout + run.stderr


@native
def test_other_threads_are_not_ended():
    """Handlers are the main thread's business."""
    call = Convolution("cython", "direct", 64)
    thread = threading.Thread(target=call)
    with Alarms(lambda: None):
        thread.start()
        thread.join()
    assert call.right()


class Stop(Exception):
    pass


@native
def test_pointwise_functions_give_way_as_well():
    """To a handler that goes on, and to one that raises."""
    raising = False

    def look() -> None:
        missing = np.isnan(out[:: len(out) // 64])
        during.append(bool(missing.any() and not missing.all()))
        if raising:
            raise Stop

    for size in (2**n for n in range(20, 26)):
        x, out = np.broadcast_to(np.float64(0.5), size), np.full(size, np.nan)
        during: list[bool] = []
        with Alarms(look):
            fastconv.gelu(x, out=out)
        if any(during):
            break
    assert any(during)
    assert np.array_equal(out, np.full(size, fastconv.gelu(np.array([0.5]))[0]))
    raising = True
    out[...] = np.nan
    with pytest.raises(Stop), Alarms(look):
        while True:
            fastconv.gelu(x, out=out)
