# mypy: ignore-errors
# Numba compiles this file: calls of intrinsics leave out what mypy takes for their first argument.
"""What broadcast has of its own within the frame of `kernels`: its tiles, and the way of sums to an output whose channels are
apart. Where nothing is padded inputs are read from where they lie, whatever the kernel, stride, dilation and layout: they are
nothing but offsets."""

from __future__ import annotations

from typing import Any

from .contexts import VECTOR_BYTES
from .rows import put_square
from .vectors import invoke, load


def broadcast_stage(c: Any, x: Any, weights: Any, pixels: Any, target: Any, channels: Any, count: Any, bias: Any, residual: Any,
                    like: Any, size: Any) -> None:
    """Output channels on the vector, `count` pixels: to the output at `target`, or to sums."""
    lanes = VECTOR_BYTES // size
    vectors = (channels + lanes - 1) // lanes
    last = channels - (vectors - 1) * lanes if c.straight != 0 else lanes
    invoke(load(c.tile_of, vectors, 0), (count, c.depth, c.taps, pixels, pixels + c.places - c.pixels, x, weights, target, bias,
                                         last, c.relu * c.straight))


def spread_stage(c: Any, scratch: Any, channels: Any, height: Any, width: Any, out: Any, residual: Any, bias: Any, like: Any,
                 size: Any) -> None:
    """Sums to an output whose pixels are side by side, transposed a square at a time; no activation but relu, no residual. The
    last square of a row overlaps its neighbour."""
    lanes = VECTOR_BYTES // size
    if c.oh == width * c.ow:
        height, width = 1, height * width
    for v in range(0, channels, lanes):
        for h in range(height):
            sums, row = scratch + c.sums + h * width * c.place_w + v * size, out + v * c.oc + h * c.oh
            for w in range(0, width, lanes):
                w = max(0, min(w, width - lanes))
                put_square(sums + w * c.place_w, c.place_w, row + w * size, c.oc, min(lanes, channels - v),
                           min(lanes, width - w), c.relu, like)
