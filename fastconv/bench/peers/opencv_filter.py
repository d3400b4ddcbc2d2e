"""OpenCV: ``cv2.filter2D`` on planes, one call for each output channel. Beyond some kernel size it uses a DFT by itself.

It makes as many outputs as there are pixels. Where fewer are asked for, they are a part of those.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...problem import ConvProblem
from ...verify.data import Arrays
from . import Bound
from .common import border, library, missing, refuses_extras

_BORDERS = {"zeros": "BORDER_CONSTANT", "reflect": "BORDER_REFLECT_101", "symmetric": "BORDER_REFLECT",
            "replicate": "BORDER_REPLICATE"}
_CHANNELS = 4  # an image's; more is not what it is for


class OpenCV:
    name = "opencv"
    package = "opencv-python-headless"
    prepared = False

    def unavailable(self) -> str | None:
        return missing(self.package, "cv2")

    def start(self, threads: int) -> str:
        self._cv2 = library("cv2")
        self._cv2.setNumThreads(threads)
        return f"opencv {self._cv2.__version__}"

    def refuses(self, problem: ConvProblem) -> str | None:
        if problem.ndim == 3 or problem.in_channels != problem.groups or problem.out_channels > _CHANNELS:
            return f"opencv filters planes, up to {_CHANNELS} of them, and sums no channels"
        if problem.channels_last and problem.out_channels > 1:
            return "opencv filters the planes of an image with kernels of their own only where they lie apart"
        if max(problem.stride) > 1 or max(problem.dilation) > 1:
            return "opencv has neither stride nor dilation"
        if any(low >= kernel or out > size for (low, _), kernel, out, size in zip(
                problem.padding, problem.kernel_size, problem.output_size, problem.input_size)):
            return "opencv's output is no larger than its input"
        if border(problem) not in _BORDERS:
            return f"opencv's filter2D does not pad {border(problem)}"
        return refuses_extras(problem)

    def bind(self, problem: ConvProblem, arrays: Arrays) -> Bound:
        cv2 = self._cv2
        channels = problem.out_channels
        y = np.full((problem.batch, channels, *problem.input_size), np.nan, problem.dtype)
        anchor = tuple(low for low, _ in reversed(problem.padding))
        anchor = anchor if problem.ndim == 2 else (*anchor, 0)  # a signal is an image of one row
        continued = getattr(cv2, _BORDERS[border(problem)])
        kernels = arrays.w.reshape(channels, -1, problem.kernel_size[-1])
        plane = (1, *problem.input_size)[-2:]
        sources = np.ascontiguousarray(arrays.x).reshape(problem.batch, -1, *plane)  # of one channel, if it comes last
        targets = y.reshape(problem.batch, channels, *plane)
        each = channels // problem.in_channels
        work = [(sources[n, o // each], targets[n, o], kernels[o], 0.0 if arrays.b is None else float(arrays.b[o]))
                for n in range(problem.batch) for o in range(channels)]
        part: Any = (..., *map(slice, problem.output_size))

        def call() -> None:
            for source, target, kernel, bias in work:
                cv2.filter2D(source, -1, kernel, target, anchor, bias, continued)

        return Bound(self._algorithm(kernels[0]), call, lambda: y[part].reshape(problem.output_shape))

    def _algorithm(self, kernel: np.ndarray) -> str:
        """A DFT carries one NaN to places that the kernel does not reach."""
        image = np.zeros([3 * size for size in kernel.shape], kernel.dtype)
        image[0, 0] = np.nan
        return "dft" if np.isnan(self._cv2.filter2D(image, -1, kernel)[-1, -1]) else "direct"


peers = (OpenCV(),)
