"""The padded input, as `numpy.pad` makes it: what the NumPy backends and the references slide their windows over."""

from __future__ import annotations

from typing import Literal

import numpy as np

from .problem import ConvProblem

NUMPY_MODES: dict[str, Literal["constant", "reflect", "symmetric", "edge", "wrap"]] = {
    "zeros": "constant", "reflect": "reflect", "symmetric": "symmetric", "replicate": "edge", "circular": "wrap"}


def pad(array: np.ndarray, problem: ConvProblem) -> np.ndarray:
    """`array` (batch, channels, *space) with the problem's padding; no copy where there is none."""
    widths = [(low, max(0, high)) for low, high in problem.padding]
    if any(map(any, widths)):
        array = _zero_pad(array, widths) if problem.padding_mode == "zeros" else np.pad(
            array, [(0, 0), (0, 0), *widths], mode=NUMPY_MODES[problem.padding_mode])
    # cropped only now: a border that is continued may repeat trailing input that no window reads
    return array[tuple(map(slice, (None, None, *problem.padded_size)))]


def _zero_pad(array: np.ndarray, widths: list[tuple[int, int]]) -> np.ndarray:
    """`np.pad` with zeros, in a fifth of its time for small images."""
    space = array.shape[2:]
    padded = np.zeros((*array.shape[:2], *(low + size + high for size, (low, high) in zip(space, widths))), array.dtype)
    inner = [slice(low, low + size) for size, (low, _) in zip(space, widths)]
    padded[tuple([slice(None), slice(None), *inner])] = array
    return padded


def index_map(problem: ConvProblem, axis: int) -> np.ndarray:
    """For each padded coordinate along `axis`, the input coordinate it repeats, or -1 where a zero stands (int64)."""
    low, high = problem.padding[axis]
    widths = low, max(0, high)
    source = np.arange(problem.input_size[axis], dtype=np.int64)
    mapped = (np.pad(source, widths, constant_values=-1) if problem.padding_mode == "zeros" else
              np.pad(source, widths, mode=NUMPY_MODES[problem.padding_mode]))
    return mapped[: problem.padded_size[axis]]
