"""Filters of scikit-image, with fastconv in the place of scipy.ndimage.

    python examples/scikit_image.py [--size 512]

`correlate` and `convolve` below take scipy.ndimage's arguments and give its results. While they stand in its place, the filters
run unchanged; the table says how long they took with either, and by how much their results differ. Needs scikit-image.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
from scipy import ndimage
from skimage import data, filters, transform

import fastconv

BOUNDARIES = {"reflect": "symmetric", "grid-mirror": "symmetric", "mirror": "reflect", "nearest": "edge", "wrap": "wrap",
              "grid-wrap": "wrap", "constant": "constant", "grid-constant": "constant"}
REPEATS = 3
FILTERS: dict[str, Callable[[np.ndarray], Any]] = {
    "sobel": filters.sobel,
    "farid": filters.farid,
    "scharr": filters.scharr,
    "gabor, wave of 8": lambda image: filters.gabor(image, frequency=1 / 8),
    "gabor, wave of 16": lambda image: filters.gabor(image, frequency=1 / 16, mode="nearest"),
}


def correlate(input: Any, weights: Any, output: Any = None, mode: str = "reflect", cval: float = 0.0, origin: Any = 0) -> Any:
    """scipy.ndimage.correlate."""
    return as_ndimage(fastconv.correlate, input, weights, output, mode, cval, origin)


def convolve(input: Any, weights: Any, output: Any = None, mode: str = "reflect", cval: float = 0.0, origin: Any = 0) -> Any:
    """scipy.ndimage.convolve."""
    return as_ndimage(fastconv.convolve, input, weights, output, mode, cval, origin)


def as_ndimage(function: Callable[..., Any], image: Any, kernel: Any, output: Any, mode: str, cval: float, origin: Any) -> Any:
    """A fastconv call in scipy.ndimage's terms: computed in float64, returned in the image's dtype."""
    image = np.asarray(image)
    boundary = BOUNDARIES[mode]
    result = function(image, np.asarray(kernel, np.float64), boundary=boundary, fill=cval if boundary == "constant" else 0,
                      origin=origin)
    if isinstance(output, np.ndarray):
        output[...] = result
        return output
    return result.astype(image.dtype if output is None else output, copy=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", type=int, default=512, help="pixels each way (default: 512)")
    size = parser.parse_args().size
    image = transform.resize(data.camera() / 255, (size, size))
    print(f"{'filter':<20} {'scipy.ndimage':>14} {'fastconv':>10} {'ratio':>7}   largest difference")
    for name, run in FILTERS.items():
        expected, slow = timed(run, image)
        with mock.patch.multiple(ndimage, correlate=correlate, convolve=convolve):
            actual, fast = timed(run, image)
        difference = np.abs(np.subtract(actual, expected)).max()
        print(f"{name:<20} {slow:>11.2f} ms {fast:>7.2f} ms {slow / fast:>6.1f}x   {difference:.1e}")
        if not difference < 1e-12:
            raise SystemExit(f"{name} differs by {difference:.3g}")


def timed(run: Callable[[np.ndarray], Any], image: np.ndarray) -> tuple[Any, float]:
    """What a filter gives, and its best time in milliseconds."""
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        result = run(image)
        times.append(time.perf_counter() - start)
    return result, min(times) * 1e3


if __name__ == "__main__":
    main()
