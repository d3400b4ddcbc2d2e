"""The other CUDA kernels: direct convolution, the sum of partial products, and the two that bring data into shape."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

from . import intrinsics as device
from .epilogue import activation_function
from .gemm import locate
from .intrinsics import cuda, divide, within
from .table import (
    BIAS,
    CHANNELS,
    DILATION_D,
    DILATION_H,
    DILATION_W,
    IN_D,
    IN_H,
    IN_W,
    KERNEL_D,
    KERNEL_H,
    KERNEL_W,
    OUT_D,
    OUT_H,
    OUT_W,
    PAD_D,
    PAD_H,
    PAD_W,
    PARTS,
    R_C,
    R_D,
    R_H,
    R_N,
    R_W,
    ROW_BLOCKS,
    STRIDE_D,
    STRIDE_H,
    STRIDE_W,
    X_C,
    X_D,
    X_G,
    X_H,
    X_N,
    X_W,
    Y_C,
    Y_D,
    Y_H,
    Y_N,
    Y_W,
    M,
    N,
)

THREADS = 32 if device.SIMULATOR else 256
_table = device.memory("int64").load_constant


class DirectSpec(NamedTuple):
    """What distinguishes compiled direct kernels."""

    dtype: str
    rows: int  # outputs of a thread, one below the other
    slide: bool  # stride = dilation along the rows: the next tap's inputs are this tap's, one row on
    channels_last: bool
    residual: bool = False
    activation: tuple[str, float] | None = None


@functools.cache
def _tap_sum(spec: DirectSpec) -> Any:
    """Adds the taps of one column of the kernel to a thread's outputs. Sliding, a tap costs one input and one weight for
    `rows` products: both come from the L1 cache, which delivers one warp-wide access per cycle against 4 warps' products,
    so 8 rows reach the FMA units' pace."""
    rows, slide = spec.rows, spec.slide
    load, zero = device.memory(spec.dtype).load_constant, np.dtype(spec.dtype).type(0)

    @device.device_function
    def read(x, hit, h, height, step):  # type: ignore[no-untyped-def]
        value = zero
        if hit and within(h, 0, height):
            value = load(x, h * step)
        return value

    @device.device_function
    def column(  # type: ignore[no-untyped-def]
            sums, values, x, packed, hit, h, height, step, weight, pitch, taps, stride, dilation):
        if slide:
            for r in range(rows - 1):
                values[r + 1] = read(x, hit, h + r * stride, height, step)
        for k in range(taps):
            factor = load(packed, weight + k * pitch)
            if slide:
                for r in range(rows - 1):
                    values[r] = values[r + 1]
                values[rows - 1] = read(x, hit, h + (rows - 1 + k) * stride, height, step)
            else:
                for r in range(rows):
                    values[r] = read(x, hit, h + r * stride + k * dilation, height, step)
            for r in range(rows):
                sums[r] += values[r] * factor

    return column


@functools.cache
def direct_kernel(spec: DirectSpec) -> Any:
    """kernel(x, packed, table, y, extra): grid (blocks of outputs of an image, 1, images). A warp's outputs lie side by
    side along the width, or along the channels where those come last."""
    rows, last, residual = spec.rows, spec.channels_last, spec.residual
    memory, activate, column = device.memory(spec.dtype), activation_function(spec.activation, spec.dtype), _tap_sum(spec)
    load, store, load_constant, element = memory.load, memory.store, memory.load_constant, memory.cast
    item, zero = np.dtype(spec.dtype).itemsize, np.dtype(spec.dtype).type(0)

    @device.device_function
    def accumulate(sums, values, x, packed, table, channel, d, h, w):  # type: ignore[no-untyped-def]
        kernel_h, kernel_w, channels = _table(table, KERNEL_H), _table(table, KERNEL_W), _table(table, CHANNELS)
        weight = channel
        for c in range(_table(table, M)):
            for kd in range(_table(table, KERNEL_D)):
                in_d = d + kd * _table(table, DILATION_D)
                for kw in range(kernel_w):
                    in_w = w + kw * _table(table, DILATION_W)
                    hit = within(in_d, 0, _table(table, IN_D)) and within(in_w, 0, _table(table, IN_W))
                    at = x + item * (c * _table(table, X_C) + in_d * _table(table, X_D) + in_w * _table(table, X_W))
                    column(sums, values, at, packed, hit, h, _table(table, IN_H), _table(table, X_H), weight + kw * channels,
                           kernel_w * channels, kernel_h, _table(table, STRIDE_H), _table(table, DILATION_H))
                weight += kernel_h * kernel_w * channels

    @device.device_function
    def finish(sums, packed, table, y, extra, image, channel, d, h, w):  # type: ignore[no-untyped-def]
        bias = load_constant(packed, _table(table, BIAS) + channel)
        at = (image * _table(table, Y_N) + channel * _table(table, Y_C) + d * _table(table, Y_D) + h * _table(table, Y_H)
              + w * _table(table, Y_W))
        other = (image * _table(table, R_N) + channel * _table(table, R_C) + d * _table(table, R_D) + h * _table(table, R_H)
                 + w * _table(table, R_W))
        for r in range(min(rows, _table(table, OUT_H) - h)):
            total = sums[0] + bias
            for i in range(rows - 1):  # constant indices keep the sums in registers
                sums[i] = sums[i + 1]
            if residual:
                total += load(extra, other + r * _table(table, R_H))
            store(y, at + r * _table(table, Y_H), activate(total))

    def direct(x, packed, table, y, extra):  # type: ignore[no-untyped-def]
        sums = cuda.local.array(rows, element)
        values = cuda.local.array(rows, element)
        index = cuda.blockIdx.x * THREADS + cuda.threadIdx.x
        channels, width, blocks = _table(table, CHANNELS), _table(table, OUT_W), _table(table, ROW_BLOCKS)
        space = width * blocks * _table(table, OUT_D)
        if index >= space * channels:
            return
        if last:
            place = divide(index, channels)
            channel = index - place * channels
        else:
            channel = divide(index, space)
            place = index - channel * space
        line = divide(place, width)
        w = place - line * width
        d = divide(line, blocks)
        h = (line - d * blocks) * rows
        image = cuda.blockIdx.z
        for r in range(rows):
            sums[r] = zero
        base = image * _table(table, X_N) + divide(channel, _table(table, PARTS)) * _table(table, X_G)
        accumulate(sums, values, x + item * base, packed, table, channel, d * _table(table, STRIDE_D) - _table(table, PAD_D),
                   h * _table(table, STRIDE_H) - _table(table, PAD_H), w * _table(table, STRIDE_W) - _table(table, PAD_W))
        finish(sums, packed, table, y, extra, image, channel, d, h, w)

    return device.kernel(direct, THREADS)


@functools.cache
def reduce_kernel(dtype: str, residual: bool, activation: tuple[str, float] | None) -> Any:
    """kernel(partial, packed, table, y, extra): act(Σ parts + bias + residual), the parts in order; grid (pixel blocks,
    channels)."""
    memory, activate, find = device.memory(dtype), activation_function(activation, dtype), locate()
    load, store, load_constant, zero = memory.load, memory.store, memory.load_constant, np.dtype(dtype).type(0)

    def reduce(partial, packed, table, y, extra):  # type: ignore[no-untyped-def]
        n, pixels, channels = cuda.blockIdx.x * THREADS + cuda.threadIdx.x, _table(table, N), _table(table, CHANNELS)
        if n >= pixels:
            return
        image, d, h, w = find(table, n)
        at = image * _table(table, Y_N) + d * _table(table, Y_D) + h * _table(table, Y_H) + w * _table(table, Y_W)
        other = image * _table(table, R_N) + d * _table(table, R_D) + h * _table(table, R_H) + w * _table(table, R_W)
        for channel in range(cuda.blockIdx.y, channels, cuda.gridDim.y):
            total = zero
            for part in range(_table(table, PARTS)):
                total += load_constant(partial, (part * channels + channel) * pixels + n)
            total += load_constant(packed, _table(table, BIAS) + channel)
            if residual:
                total += load(extra, other + channel * _table(table, R_C))
            store(y, at + channel * _table(table, Y_C), activate(total))

    return device.kernel(reduce, THREADS)


# the table of `gather`: sizes, strides of source and target, where each axis' map of coordinates starts
SIZE, SOURCE, TARGET, MAP, MAPS_AT = 0, 5, 10, 15, 20


@functools.cache
def gather_kernel(source: str, target: str) -> Any:
    """kernel(source, table, target): target[i...] = source[map0[i0], map1[i1], ...], 0 where a map says -1. It pads, makes
    contiguous and converts; grid (blocks of the last two axes, the three others). Bottleneck: memory traffic."""
    load, store = device.memory(source).load_constant, device.memory(target).store
    cast = device.memory(target).cast
    zero = np.dtype(target).type(0)

    @device.device_function
    def mapped(table, axis, i):  # type: ignore[no-untyped-def]
        return _table(table, _table(table, MAP + axis) + i)

    def gather(x, table, y):  # type: ignore[no-untyped-def]
        inner = cuda.blockIdx.x * THREADS + cuda.threadIdx.x
        size1, size2, size4 = _table(table, SIZE + 1), _table(table, SIZE + 2), _table(table, SIZE + 4)
        if inner >= _table(table, SIZE + 3) * size4:
            return
        i3 = divide(inner, size4)
        i4 = inner - i3 * size4
        m3, m4 = mapped(table, 3, i3), mapped(table, 4, i4)
        for outer in range(cuda.blockIdx.y, _table(table, SIZE) * size1 * size2, cuda.gridDim.y):
            i0, rest = outer // (size1 * size2), outer % (size1 * size2)
            i1, i2 = rest // size2, rest % size2
            m0, m1, m2 = mapped(table, 0, i0), mapped(table, 1, i1), mapped(table, 2, i2)
            value = zero
            if m0 >= 0 and m1 >= 0 and m2 >= 0 and m3 >= 0 and m4 >= 0:
                at = (m0 * _table(table, SOURCE) + m1 * _table(table, SOURCE + 1) + m2 * _table(table, SOURCE + 2)
                      + m3 * _table(table, SOURCE + 3) + m4 * _table(table, SOURCE + 4))
                value = cast(load(x, at))
            store(y, i0 * _table(table, TARGET) + i1 * _table(table, TARGET + 1) + i2 * _table(table, TARGET + 2)
                  + i3 * _table(table, TARGET + 3) + i4 * _table(table, TARGET + 4), value)

    return device.kernel(gather, THREADS)


# the table of `pack`
GROUPS_, ROWS_, PITCH_, CHANNELS_, TAPS_, BIAS_, STEP_, BIAS_STEP_, OFFSETS_AT = 0, 1, 2, 3, 4, 5, 6, 7, 8


@functools.cache
def pack_kernel(dtype: str) -> Any:
    """kernel(weight, bias, table, packed): packed[group, k, m] = weight[group · channels + m, k], zeros to whole tiles, then
    the bias (zeros if its address is 0); grid (blocks of m, rows)."""
    memory, zero = device.memory(dtype), np.dtype(dtype).type(0)
    load, store = memory.load_constant, memory.store

    def pack(weight, bias, table, packed):  # type: ignore[no-untyped-def]
        m = cuda.blockIdx.x * THREADS + cuda.threadIdx.x
        pitch, rows, channels = _table(table, PITCH_), _table(table, ROWS_), _table(table, CHANNELS_)
        if m >= pitch:
            return
        for row in range(cuda.blockIdx.y, _table(table, GROUPS_) * rows, cuda.gridDim.y):
            group, k = row // rows, row % rows
            channel = group * channels + m
            value = zero
            if m < channels and k < _table(table, TAPS_):
                value = load(weight, channel * _table(table, STEP_) + _table(table, OFFSETS_AT + k))
            store(packed, row * pitch + m, value)
            if k == 0 and m < channels:
                value = zero
                if bias != 0:
                    value = load(bias, channel * _table(table, BIAS_STEP_))
                store(packed, _table(table, BIAS_) + channel, value)

    return device.kernel(pack, THREADS)
