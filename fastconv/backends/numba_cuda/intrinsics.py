"""What the CUDA kernels are written in: the one place that imports `numba.cuda`, and the memory accesses it lacks.

Kernels get addresses (int64), not arrays: an array argument costs a launch six machine words and several microseconds, and
Numba reads arrays element by element, where the hardware moves 16 bytes at once. Each intrinsic has a twin in Python that
reads the same addresses through ctypes, for Numba's simulator (NUMBA_ENABLE_CUDASIM=1), whose device memory is the host's.
"""

from __future__ import annotations

import ctypes
import functools
import warnings
from types import SimpleNamespace
from typing import Any

import numpy as np

# numba-cuda 0.30 names np.row_stack (the old name of vstack) when it first compiles; NumPy 2.5 removed it. Importing the
# module that does so under a borrowed name binds what it needs, and leaves NumPy as it was.
_borrowed = not hasattr(np, "row_stack")
if _borrowed:
    np.row_stack = np.vstack  # type: ignore[attr-defined]
try:
    from numba import cuda
    from numba.core import config

    SIMULATOR = bool(config.ENABLE_CUDASIM)
    if not SIMULATOR:
        import numba.cuda.np.arrayobj  # noqa: F401
finally:
    if _borrowed:
        del np.row_stack  # type: ignore[attr-defined]

VECTOR_BYTES = 16  # the widest access of one thread
TYPES = ("float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool")


@functools.cache
def memory(dtype: str, width: int = 1) -> SimpleNamespace:
    """Accesses to elements of one dtype, `width` of them at once where the name says vector.

    load(address, index), load_constant (memory that nothing writes while the kernel runs), store(address, index, value);
    load_vector(registers, start, address, index): width elements, aligned to their size, into a local array;
    shared_load_vector(registers, start, shared, index) and shared_store_vector(shared, index, registers, start).
    """
    if dtype not in TYPES:
        raise TypeError(f"the cuda backend does not read {dtype}")
    return _simulated(dtype, width) if SIMULATOR else _compiled(dtype, width)


# ---- compiled


def _compiled(dtype: str, width: int) -> SimpleNamespace:
    from llvmlite import ir
    from numba.cuda import types
    from numba.cuda.extending import intrinsic

    scalar = types.boolean if dtype == "bool" else getattr(types, dtype)
    size = np.dtype(dtype).itemsize
    element = {"float32": ir.FloatType(), "float64": ir.DoubleType()}.get(dtype, ir.IntType(8 * size))
    vector = ir.VectorType(element, width) if width > 1 else element

    def pointer(builder: Any, address: Any, index: Any, what: Any) -> Any:
        place = builder.add(address, builder.mul(index, ir.Constant(ir.IntType(64), size)))
        return builder.inttoptr(place, ir.PointerType(what, addrspace=1))  # 1: global memory

    def within(context: Any, builder: Any, array_type: Any, array: Any, index: Any, what: Any) -> Any:
        """Pointer to array[index], as `what`; Numba's arrays are structs whose data pointer is generic."""
        data = context.make_array(array_type)(context, builder, array).data
        place = builder.gep(data, [index])
        return builder.bitcast(place, ir.PointerType(what, addrspace=data.type.addrspace))

    def loaded(builder: Any, place: Any, what: Any, align: int, constant: bool) -> Any:
        value = builder.load(place, align=align)
        if constant:  # lets the compiler take the read-only path, ld.global.nc
            value.set_metadata("invariant.load", builder.module.add_metadata([]))
        return value

    def scalar_load(constant: bool) -> Any:
        def typing(typingctx, address, index):  # type: ignore[no-untyped-def]
            def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
                value = loaded(builder, pointer(builder, *args, element), element, size, constant)
                return builder.icmp_unsigned("!=", value, value.type(0)) if dtype == "bool" else value
            return scalar(types.int64, types.int64), generate
        return intrinsic(typing)

    @intrinsic
    def store(typingctx, address, index, value):  # type: ignore[no-untyped-def]
        def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
            builder.store(args[2], pointer(builder, args[0], args[1], element), align=size)
            return context.get_dummy_value()
        return types.void(types.int64, types.int64, scalar), generate

    def scatter(context: Any, builder: Any, array_type: Any, array: Any, start: Any, value: Any) -> None:
        for lane in range(width):
            part = builder.extract_element(value, ir.Constant(ir.IntType(32), lane)) if width > 1 else value
            index = builder.add(start, ir.Constant(ir.IntType(64), lane))
            builder.store(part, within(context, builder, array_type, array, index, element))

    @intrinsic
    def load_vector(typingctx, registers, start, address, index):  # type: ignore[no-untyped-def]
        def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
            value = loaded(builder, pointer(builder, args[2], args[3], vector), vector, size * width, True)
            scatter(context, builder, signature.args[0], args[0], args[1], value)
            return context.get_dummy_value()
        return types.void(registers, types.int64, types.int64, types.int64), generate

    @intrinsic
    def shared_load_vector(typingctx, registers, start, shared, index):  # type: ignore[no-untyped-def]
        def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
            place = within(context, builder, signature.args[2], args[2], args[3], vector)
            scatter(context, builder, signature.args[0], args[0], args[1], loaded(builder, place, vector, size * width, False))
            return context.get_dummy_value()
        return types.void(registers, types.int64, shared, types.int64), generate

    @intrinsic
    def shared_store_vector(typingctx, shared, index, registers, start):  # type: ignore[no-untyped-def]
        def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
            value = ir.Constant(vector, ir.Undefined)
            for lane in range(width):
                at = builder.add(args[3], ir.Constant(ir.IntType(64), lane))
                part = builder.load(within(context, builder, signature.args[2], args[2], at, element))
                value = builder.insert_element(value, part, ir.Constant(ir.IntType(32), lane)) if width > 1 else part
            builder.store(value, within(context, builder, signature.args[0], args[0], args[1], vector), align=size * width)
            return context.get_dummy_value()
        return types.void(shared, types.int64, registers, types.int64), generate

    return SimpleNamespace(load=scalar_load(False), load_constant=scalar_load(True), store=store, load_vector=load_vector,
                           shared_load_vector=shared_load_vector, shared_store_vector=shared_store_vector, cast=scalar)


def _compiled_tap() -> Any:
    from llvmlite import ir
    from numba.cuda import types
    from numba.cuda.extending import intrinsic

    @intrinsic
    def tap(typingctx, address, index):  # type: ignore[no-untyped-def]
        def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
            vector = ir.VectorType(ir.IntType(32), 4)
            place = builder.add(args[0], builder.shl(args[1], ir.Constant(ir.IntType(64), 4)))
            value = builder.load(builder.inttoptr(place, ir.PointerType(vector, addrspace=1)), align=16)
            value.set_metadata("invariant.load", builder.module.add_metadata([]))
            parts = [builder.sext(builder.extract_element(value, ir.Constant(ir.IntType(32), lane)), ir.IntType(64))
                     for lane in range(4)]
            return context.make_tuple(builder, signature.return_type, parts)
        return types.UniTuple(types.int64, 4)(types.int64, types.int64), generate

    return tap


def _compiled_within() -> Any:
    from llvmlite import ir
    from numba.cuda import types
    from numba.cuda.extending import intrinsic

    @intrinsic
    def within(typingctx, position, offset, size):  # type: ignore[no-untyped-def]
        def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
            narrow = [builder.trunc(arg, ir.IntType(32)) for arg in args]
            return builder.icmp_unsigned("<", builder.add(narrow[0], narrow[1]), narrow[2])
        return types.boolean(types.int64, types.int64, types.int64), generate

    return within


def _compiled_divide() -> Any:
    from llvmlite import ir
    from numba.cuda import types
    from numba.cuda.extending import intrinsic

    @intrinsic
    def divide(typingctx, a, b):  # type: ignore[no-untyped-def]
        def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
            narrow = [builder.trunc(arg, ir.IntType(32)) for arg in args]
            return builder.zext(builder.udiv(*narrow), ir.IntType(64))
        return types.int64(types.int64, types.int64), generate

    return divide


# ---- simulated


def _simulated(dtype: str, width: int) -> SimpleNamespace:
    size = np.dtype(dtype).itemsize
    code = np.ctypeslib.as_ctypes_type(np.dtype(dtype))
    cast = np.dtype(dtype).type

    def load(address: int, index: int) -> Any:
        return cast(code.from_address(int(address) + int(index) * size).value)

    def store(address: int, index: int, value: Any) -> None:
        code.from_address(int(address) + int(index) * size).value = cast(value).item()

    def load_vector(registers: Any, start: int, address: int, index: int) -> None:
        assert (int(address) + int(index) * size) % (size * width) == 0, "unaligned vector"
        for lane in range(width):
            registers[start + lane] = load(address, index + lane)

    def shared_load_vector(registers: Any, start: int, shared: Any, index: int) -> None:
        assert index % width == 0, "unaligned vector"
        for lane in range(width):
            registers[start + lane] = shared[index + lane]

    def shared_store_vector(shared: Any, index: int, registers: Any, start: int) -> None:
        shared_load_vector(shared, index, registers, start) if index % width == 0 else _unaligned()

    return SimpleNamespace(load=load, load_constant=load, store=store, load_vector=load_vector,
                           shared_load_vector=shared_load_vector, shared_store_vector=shared_store_vector, cast=cast)


def _unaligned() -> None:
    raise AssertionError("unaligned vector")


def _simulated_tap(address: int, index: int) -> tuple[int, int, int, int]:
    return tuple((ctypes.c_int32 * 4).from_address(int(address) + 16 * int(index)))


def _simulated_divide(a: int, b: int) -> int:
    assert 0 <= a < 2**32 and 0 < b < 2**32
    return int(a) // int(b)


def _simulated_within(position: int, offset: int, size: int) -> bool:
    return 0 <= position + offset < size


# tap(table, k): the four int32 of row k as one 16-byte load.   divide(a, b): a // b of numbers below 2**32, a quarter of
# the instructions of a 64-bit division.   within(p, q, n): 0 <= p + q < n, in one 32-bit addition and comparison.
tap: Any = _simulated_tap if SIMULATOR else _compiled_tap()
within: Any = _simulated_within if SIMULATOR else _compiled_within()
divide: Any = _simulated_divide if SIMULATOR else _compiled_divide()


def device_function(function: Any) -> Any:
    """`function` as kernels can call it; the simulator calls Python."""
    return function if SIMULATOR else cuda.jit(function, device=True, forceinline=True)


def kernel(function: Any, threads: int, blocks: int = 1) -> Any:
    """A kernel whose arguments are all int64, launched with `threads` threads per block; the compiler keeps to as many
    registers as let `blocks` of them share a multiprocessor."""
    if SIMULATOR:
        return cuda.jit(function)
    # not link-time optimised: what the compile gate inspects is what runs
    return cuda.jit(function, launch_bounds=(threads, blocks), lto=False)


def launch(kernel: Any, grid: tuple[int, ...], threads: int, stream: int, *arguments: int) -> None:
    """Start a kernel on the stream of that handle."""
    if SIMULATOR:
        kernel[grid, threads](*arguments)
    else:
        _configured(kernel, grid, threads, stream, cuda.get_current_device().id)(*arguments)


@functools.lru_cache(maxsize=4096)
def _configured(kernel: Any, grid: tuple[int, ...], threads: int, stream: int, index: int) -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Grid size")  # small problems have no larger ones
        return kernel[grid, threads, cuda.external_stream(stream) if stream else 0]


# ---- device memory of our own


def upload(array: np.ndarray, stream: Any = 0) -> Any:
    """A copy of a contiguous array in device memory (in the simulator: the host's, as a plain array)."""
    return array.copy() if SIMULATOR else cuda.to_device(array, stream=stream)


def allocate(shape: Any, dtype: str, stream: Any = 0) -> Any:
    return np.empty(shape, dtype) if SIMULATOR else cuda.device_array(shape, dtype, stream=stream)


def address(buffer: Any) -> int:
    """Where a buffer made here starts."""
    return buffer.ctypes.data if SIMULATOR else buffer.device_ctypes_pointer.value or 0
