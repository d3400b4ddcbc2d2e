"""SciPy: ``scipy.signal.correlate`` and ``fftconvolve``, for each image and output channel. No stride, no dilation.

Over a group's channels, mode "valid" along the channel axis sums them; the FFT leaves that axis alone and sums its outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...problem import ConvProblem
from ...verify.data import Arrays
from ...window import NUMPY_MODES
from . import Bound
from .common import library, missing, pads, refuses_extras

_PLANES = 1024  # nobody would use it for more; a layer of a network has thousands


@dataclass
class Scipy:
    algorithm: str  # "direct" or "fft"
    package = "scipy"
    prepared = False

    @property
    def name(self) -> str:
        return f"scipy-{self.algorithm}"

    def unavailable(self) -> str | None:
        return missing(self.package, "scipy")

    def start(self, threads: int) -> str:
        self._signal, self._fft, self._threads = library("scipy.signal"), library("scipy.fft"), threads
        return f"scipy {library('scipy').__version__}"

    def refuses(self, problem: ConvProblem) -> str | None:
        if max(problem.stride) > 1 or max(problem.dilation) > 1:
            return "scipy has neither stride nor dilation"
        if problem.batch * problem.out_channels * problem.in_channels // problem.groups > _PLANES:
            return f"scipy convolves plane by plane, and these are more than {_PLANES}"
        return refuses_extras(problem)

    def bind(self, problem: ConvProblem, arrays: Arrays) -> Bound:
        y = np.full(problem.output_shape, np.nan, problem.dtype)
        images, outputs = (np.moveaxis(a, -1, 1) if problem.channels_last else a for a in (arrays.x, y))
        each, inputs = problem.out_channels // problem.groups, problem.in_channels // problem.groups
        widths = [(0, 0), *pads(problem)]
        mode = NUMPY_MODES[problem.padding_mode]
        convolve = self._direct if self.algorithm == "direct" else self._by_fft
        bias = np.zeros(problem.out_channels, problem.dtype) if arrays.b is None else arrays.b

        def call() -> None:
            for image, output in zip(images, outputs):
                padded = np.pad(image, widths, mode=mode) if any(map(any, widths)) else image
                for o, kernel in enumerate(arrays.w):
                    first = o // each * inputs
                    np.add(convolve(padded[first:first + inputs], kernel), bias[o], output[o])

        taken = self.algorithm if max(problem.kernel_size) > 1 else "direct"  # fftconvolve transforms no axis of length 1
        return Bound(taken, self._with_workers(call), lambda: y)

    def _direct(self, x: np.ndarray, w: np.ndarray) -> Any:
        """(channels, *space) with (channels, *kernel); one channel goes without its axis, which has a faster path."""
        if len(x) == 1:
            return self._signal.correlate(x[0], w[0], "valid", "direct")
        return self._signal.correlate(x, w, "valid", "direct")[0]

    def _by_fft(self, x: np.ndarray, w: np.ndarray) -> Any:
        space = tuple(range(1, x.ndim))
        return self._signal.fftconvolve(x, np.flip(w, space), "valid", axes=space).sum(axis=0)

    def _with_workers(self, work: Callable[[], None]) -> Callable[[], None]:
        """`set_workers` holds for a thread and a context."""
        if self.algorithm == "direct":
            return work

        def call() -> None:
            with self._fft.set_workers(self._threads):
                work()

        return call


peers = (Scipy("direct"), Scipy("fft"))
