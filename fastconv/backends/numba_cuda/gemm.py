"""Convolution as a matrix product on the GPU, without the column matrix ("implicit GEMM").

For each group, out[m, n] = Σ_k weight[k, m] · column[k, n]: m an output channel, n a pixel (image and output position), k a
channel and tap. A block of threads computes BM x BN outputs; per step it brings BK rows of both factors into shared memory,
from where each thread keeps TM x TN sums in registers:

    products per element read from shared memory    TM·TN / (TM + TN)      8x8: 4, so the FMA units set the pace
    products per element read from global memory    BM·BN / (BM + BN)    128x128: 64, about 2 TB/s of L2 at 60 TFLOP/s

While a step is multiplied, the next one's elements are on their way to registers, then go into the other of two halves of
shared memory: one barrier per step. Sizes and strides come from a table in memory, so a kernel is compiled once per kind of
problem, not per problem. Each sum runs over k in order, in any tile and any batch; only `split` cuts it, into partial sums
that a second kernel adds in order.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

from . import intrinsics as device
from .epilogue import activation_function
from .intrinsics import SIMULATOR, cuda, divide, tap, within
from .table import (
    BIAS,
    GROUPS,
    IN_D,
    IN_H,
    IN_W,
    MP,
    OUT_D,
    OUT_H,
    OUT_W,
    PAD_D,
    PAD_H,
    PAD_W,
    R_C,
    R_D,
    R_H,
    R_N,
    R_W,
    STEPS,
    STRIDE_D,
    STRIDE_H,
    STRIDE_W,
    TAPS_AT,
    TOTAL_STEPS,
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

_table = device.memory("int64").load_constant
_fresh = device.memory("int64").load  # read anew at each use: what is hoisted out of a loop costs the sums registers


class Tile(NamedTuple):
    """Outputs of a block (bm x bn), depth of a step (bk), outputs of a thread (tm x tn)."""

    bm: int
    bn: int
    bk: int
    tm: int
    tn: int

    @property
    def threads(self) -> int:
        return (self.bm // self.tm) * (self.bn // self.tn)


class GemmSpec(NamedTuple):
    """What distinguishes compiled GEMM kernels."""

    dtype: str
    tile: Tile
    width: int = 1  # elements of a vector access
    loader: str = "scalar"  # of the input: scalar; pixels: vectors along pixels; channels: vectors along channels
    checked: str = "dhw"  # axes along which a tap can fall outside the input (or k past the sum: "w")
    residual: bool = False
    activation: tuple[str, float] | None = None
    split: bool = False  # write partial sums
    channels_last: bool = False  # of the output


@functools.cache
def locate() -> Any:
    @device.device_function
    def locate(table, pixel):  # type: ignore[no-untyped-def]
        """(image, output position) of a pixel; sizes of absent axes are 1."""
        width, height, depth = _table(table, OUT_W), _table(table, OUT_H), _table(table, OUT_D)
        row = divide(pixel, width)
        plane = divide(row, height)
        image = divide(plane, depth)
        return image, plane - image * depth, row - plane * height, pixel - row * width
    return locate


@functools.cache
def _weight_loader(spec: GemmSpec) -> Any:
    (bm, _, bk, _, _), threads, width = spec.tile, spec.tile.threads, spec.width
    load_vector = device.memory(spec.dtype, width).load_vector
    store_vector = device.memory(spec.dtype, width).shared_store_vector
    per_row = bm // width
    count = bk * per_row // threads

    @device.device_function
    def fetch(registers, packed, index, pitch, thread):  # type: ignore[no-untyped-def]
        """Rows of packed weights, from global memory; vectors lie along output channels."""
        for j in range(count):
            vector = thread + j * threads
            load_vector(registers, j * width, packed, index + vector // per_row * pitch + vector % per_row * width)

    @device.device_function
    def put(shared, base, registers, thread):  # type: ignore[no-untyped-def]
        for j in range(count):
            store_vector(shared, base + (thread + j * threads) * width, registers, j * width)

    return fetch, put, count * width


@functools.cache
def _input_loader(spec: GemmSpec) -> Any:
    return {"scalar": _scalar_loader, "pixels": _pixel_loader, "channels": _channel_loader}[spec.loader](spec)


def _inside(checked: str) -> Any:
    """Whether a tap hits the input, testing only the axes where it may not."""
    in_depth, in_height, in_width = ("d" in checked), ("h" in checked), ("w" in checked)

    @device.device_function
    def inside(taps, window):  # type: ignore[no-untyped-def]
        hit = True
        if in_depth:
            hit = hit and within(window[0], taps[1], window[3])
        if in_height:
            hit = hit and within(window[1], taps[2], window[4])
        if in_width:
            hit = hit and within(window[2], taps[3], window[5])
        return hit
    return inside


def _scalar_loader(spec: GemmSpec) -> Any:
    """One element at a time, from any strides: a thread keeps its pixel and takes every ROWS-th k. A warp reads neighbouring
    pixels, which are neighbours in memory where channels come first and the stride is 1."""
    (_, bn, bk, _, _), threads = spec.tile, spec.tile.threads
    load = device.memory(spec.dtype).load_constant
    inside, zero = _inside(spec.checked), _zero(spec.dtype)
    rows = threads // bn
    count = bk // rows

    @device.device_function
    def column(thread):  # type: ignore[no-untyped-def]
        return thread % bn

    @device.device_function
    def fetch(registers, x, table, k, window, thread):  # type: ignore[no-untyped-def]
        for j in range(count):
            taps = tap(table + TAPS_AT, k + thread // bn + j * rows)
            value = zero
            if inside(taps, window):
                value = load(x, taps[0])
            registers[j] = value

    @device.device_function
    def put(shared, base, registers, thread):  # type: ignore[no-untyped-def]
        for j in range(count):
            shared[base + thread + j * threads] = registers[j]

    return column, fetch, put, count


def _pixel_loader(spec: GemmSpec) -> Any:
    """Vectors along pixels, for 1x1 kernels over contiguous pixels: column k is a row of the input."""
    (_, bn, bk, _, _), threads, width = spec.tile, spec.tile.threads, spec.width
    load_vector = device.memory(spec.dtype, width).load_vector
    store_vector = device.memory(spec.dtype, width).shared_store_vector
    inside, zero = _inside(spec.checked), _zero(spec.dtype)
    per_row = bn // width
    rows = threads // per_row
    count = bk // rows

    @device.device_function
    def column(thread):  # type: ignore[no-untyped-def]
        return thread % per_row * width

    @device.device_function
    def fetch(registers, x, table, k, window, thread):  # type: ignore[no-untyped-def]
        for j in range(count):
            taps = tap(table + TAPS_AT, k + thread // per_row + j * rows)
            if inside(taps, window):
                load_vector(registers, j * width, x, taps[0])
            else:
                for i in range(width):
                    registers[j * width + i] = zero

    @device.device_function
    def put(shared, base, registers, thread):  # type: ignore[no-untyped-def]
        for j in range(count):
            store_vector(shared, base + (thread + j * threads) * width, registers, j * width)

    return column, fetch, put, count * width


def _channel_loader(spec: GemmSpec) -> Any:
    """Vectors along channels, for channels_last: k runs over channels first, so a vector has one tap."""
    (_, bn, bk, _, _), threads, width = spec.tile, spec.tile.threads, spec.width
    load_vector = device.memory(spec.dtype, width).load_vector
    inside, zero = _inside(spec.checked), _zero(spec.dtype)
    rows = threads // bn
    count = bk // width // rows

    @device.device_function
    def column(thread):  # type: ignore[no-untyped-def]
        return thread % bn

    @device.device_function
    def fetch(registers, x, table, k, window, thread):  # type: ignore[no-untyped-def]
        for j in range(count):
            taps = tap(table + TAPS_AT, k + (thread // bn + j * rows) * width)
            if inside(taps, window):
                load_vector(registers, j * width, x, taps[0])
            else:
                for i in range(width):
                    registers[j * width + i] = zero

    @device.device_function
    def put(shared, base, registers, thread):  # type: ignore[no-untyped-def]
        for j in range(count):
            row = (thread // bn + j * rows) * width
            for i in range(width):
                shared[base + (row + i) * bn + thread % bn] = registers[j * width + i]

    return column, fetch, put, count * width


def _zero(dtype: str) -> Any:
    import numpy as np

    return np.dtype(dtype).type(0)


@functools.cache
def _multiplier(spec: GemmSpec) -> Any:
    """Sums of a thread: rows and columns are taken in vectors that lie apart, so that neighbouring threads read
    neighbouring vectors of shared memory."""
    (bm, bn, bk, tm, tn), width = spec.tile, spec.width
    load_vector = device.memory(spec.dtype, width).shared_load_vector
    row_step, column_step = bm // tm * width, bn // tn * width

    @device.device_function
    def product(sums, a, b, shared, a_at, b_at):  # type: ignore[no-untyped-def]
        for i in range(tm // width):
            load_vector(a, i * width, shared, a_at + i * row_step)
        for j in range(tn // width):
            load_vector(b, j * width, shared, b_at + j * column_step)
        for i in range(tm):
            for j in range(tn):
                sums[i * tn + j] += a[i] * b[j]

    @device.device_function
    def multiply(sums, a, b, shared, a_at, b_at):  # type: ignore[no-untyped-def]
        for k in range(0, bk, 2):  # two by hand: the compiler leaves a loop of this size alone
            product(sums, a, b, shared, a_at + k * bm, b_at + k * bn)
            product(sums, a, b, shared, a_at + (k + 1) * bm, b_at + (k + 1) * bn)

    return multiply


@functools.cache
def _writer(spec: GemmSpec) -> Any:
    """The epilogue: act(sum + bias + residual), or the bare partial sum.

    The sums go through shared memory, one row (or column, where channels are neighbours) of every thread at a time, so that
    a warp writes neighbours in memory, and so that the activation's code stands in a loop that need not be unrolled.
    """
    (bm, bn, _, tm, tn), width, split, residual, last = spec.tile, spec.width, spec.split, spec.residual, spec.channels_last
    threads, columns, rows = spec.tile.threads, bn // tn, bm // tm
    row_step, column_step = rows * width, columns * width
    memory, activate, find = device.memory(spec.dtype), activation_function(spec.activation, spec.dtype), locate()
    load, store, load_constant = memory.load, memory.store, memory.load_constant
    chunks, chunk_size = (tn, columns * bm) if last else (tm, rows * bn)

    @device.device_function
    def finish(value, packed, table, y, extra, channel, at, other, n):  # type: ignore[no-untyped-def]
        if split:
            store(y, channel * _fresh(table, N) + n, value)
        else:
            total = value + load_constant(packed, _fresh(table, BIAS) + channel)
            if residual:
                total += load(extra, other + channel * _fresh(table, R_C))
            store(y, at + channel * _fresh(table, Y_C), activate(total))

    @device.device_function
    def share(shared, sums, thread):  # type: ignore[no-untyped-def]
        """Write every thread's first row (or column), then move the others up: sums stay in registers only as long as
        every index is a constant."""
        row, column = thread // columns, thread % columns
        if last:
            for i in range(tm):
                shared[column * bm + row * width + i // width * row_step + i % width] = sums[i * tn]
                for j in range(tn - 1):
                    sums[i * tn + j] = sums[i * tn + j + 1]
        else:
            for j in range(tn):
                shared[row * bn + column * width + j // width * column_step + j % width] = sums[j]
                for i in range(tm - 1):
                    sums[i * tn + j] = sums[i * tn + tn + j]

    @device.device_function
    def write(sums, shared, places, packed, table, y, extra, group, m0, n0, thread):  # type: ignore[no-untyped-def]
        pixels, channels = _table(table, N), _table(table, M)
        if thread < bn:
            image, d, h, w = find(table, min(n0 + thread, pixels - 1))
            places[thread] = (image * _table(table, Y_N) + d * _table(table, Y_D) + h * _table(table, Y_H)
                              + w * _table(table, Y_W))
            if residual:
                places[bn + thread] = (image * _table(table, R_N) + d * _table(table, R_D) + h * _table(table, R_H)
                                       + w * _table(table, R_W))
        for chunk in range(chunks):
            share(shared, sums, thread)
            cuda.syncthreads()
            apart = chunk % width
            for e in range(thread, chunk_size, threads):
                if last:
                    m, n = e % bm, e // bm * width + apart + chunk // width * column_step
                else:
                    m, n = e // bn * width + apart + chunk // width * row_step, e % bn
                if m0 + m < channels and n0 + n < pixels:
                    finish(shared[e], packed, table, y, extra, group * channels + m0 + m, places[n], places[n + other_places],
                           n0 + n)
            cuda.syncthreads()

    other_places = bn if residual else 0
    return write


@functools.cache
def gemm_kernel(spec: GemmSpec) -> Any:
    """kernel(x, packed, table, y, extra): grid (pixel tiles, channel tiles, parts · groups), `spec.tile.threads` threads."""
    (bm, bn, bk, tm, tn), width = spec.tile, spec.width
    fetch_weight, put_weight, weight_registers = _weight_loader(spec)
    column, fetch_input, put_input, input_registers = _input_loader(spec)
    multiply, write, find = _multiplier(spec), _writer(spec), locate()
    element, zero, wide = device.memory(spec.dtype).cast, _zero(spec.dtype), device.memory("int64").cast
    half = bk * (bm + bn)
    item = 4 if spec.dtype == "float32" else 8
    columns, shared_size, sums_size, split = bn // tn, 2 * half, tm * tn, spec.split
    clamp = width if spec.loader == "pixels" else 1
    places_size = bn * (1 + spec.residual)

    def gemm(x, packed, table, y, extra):  # type: ignore[no-untyped-def]
        if SIMULATOR:
            shared = cuda.shared.array(shared_size, element)
        else:
            shared = cuda.shared.array(shared_size, element, 16)
        places = cuda.shared.array(places_size, wide)
        sums = cuda.local.array(sums_size, element)
        a = cuda.local.array(tm, element)
        b = cuda.local.array(tn, element)
        next_weight = cuda.local.array(weight_registers, element)
        next_input = cuda.local.array(input_registers, element)
        for i in range(sums_size):
            sums[i] = zero
        thread = cuda.threadIdx.x
        m0, n0 = cuda.blockIdx.y * bm, cuda.blockIdx.x * bn
        groups = _table(table, GROUPS)
        part = divide(cuda.blockIdx.z, groups)
        group = cuda.blockIdx.z - part * groups

        # the pixel whose column this thread reads; past the last one, the last: its sums are not written
        image, d, h, w = find(table, min(n0 + column(thread), _table(table, N) - clamp))
        d = d * _table(table, STRIDE_D) - _table(table, PAD_D)
        h = h * _table(table, STRIDE_H) - _table(table, PAD_H)
        w = w * _table(table, STRIDE_W) - _table(table, PAD_W)
        x += item * (image * _table(table, X_N) + group * _table(table, X_G) + d * _table(table, X_D) + h * _table(table, X_H)
                          + w * _table(table, X_W))
        window = d, h, w, _table(table, IN_D), _table(table, IN_H), _table(table, IN_W)
        pitch, total = _table(table, MP), _table(table, TOTAL_STEPS)
        step = part * _table(table, STEPS)
        stop = min(step + _table(table, STEPS), total)
        weight = (group * total + step) * bk * pitch + m0

        fetch_weight(next_weight, packed, weight, pitch, thread)
        fetch_input(next_input, x, table, step * bk, window, thread)
        put_weight(shared, 0, next_weight, thread)
        put_input(shared, bk * bm, next_input, thread)
        cuda.syncthreads()
        current = 0
        while step < stop:
            step += 1
            weight += bk * pitch
            if step < stop:
                fetch_weight(next_weight, packed, weight, pitch, thread)
                fetch_input(next_input, x, table, step * bk, window, thread)
            multiply(sums, a, b, shared, current + thread // columns * width, current + bk * bm + thread % columns * width)
            current = half - current
            if step < stop:
                put_weight(shared, current, next_weight, thread)
                put_input(shared, current + bk * bm, next_input, thread)
            cuda.syncthreads()
        if split:
            y += part * groups * _table(table, M) * _table(table, N) * item
        write(sums, shared, places, packed, table, y, extra, group, m0, n0, thread)

    return device.kernel(gemm, spec.tile.threads, 2 if spec.tile.threads >= 256 else 3)
