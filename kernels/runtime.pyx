# cython: language_level=3, freethreading_compatible=True, binding=False, embedsignature=True
# cython: boundscheck=False, wraparound=False, cdivision=True
"""What the native kernels share: which CPU this is, the thread pool, and kernels bound to a problem.

Private to fastconv. Shapes, types and strides are checked here as well, so that a mistake above is a ValueError.
"""
import operator

cimport numpy as cnp
from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.stdint cimport int32_t, int64_t, uintptr_t
from libc.string cimport memcmp, memset

cnp.import_array()


cdef extern from "abi.hpp" namespace "fastconv" nogil:
    int abi_version
    cdef enum Dtype "fastconv::Dtype":
        pass
    cdef enum PaddingMode "fastconv::PaddingMode":
        pass
    cdef enum Direction "fastconv::Direction":
        pass
    cdef enum Activation "fastconv::Activation":
        pass
    cdef struct Problem:
        Dtype dtype
        PaddingMode padding_mode
        Activation activation
        Direction direction
        int32_t has_bias, has_residual, strict
        int32_t tile[3]
        double activation_parameter
        int64_t batch, groups, in_channels, out_channels
        int64_t[3] input, output, kernel, stride, dilation, pad_lo, pad_hi
    Problem packing_of(const Problem&) noexcept
    cdef struct View:
        void* data
        int64_t batch, channel
        int64_t[3] space
    ctypedef void (*Body)(void*, int64_t) noexcept nogil
    ctypedef void (*ParallelFor)(int64_t, Body, void*) noexcept nogil
    cdef struct Call:
        View input, output, residual, gradient
        const void* packed
        const void* bias
        bint in_place
        int32_t threads
        ParallelFor parallel_for
        const View* lie
    cdef struct CPool "fastconv::Pool":
        pass
    ctypedef const char* (*Refuses)(const Problem&) noexcept nogil
    ctypedef size_t (*PackedBytes)(const Problem&) noexcept nogil
    ctypedef size_t (*WorkspaceBytes)(const Problem&, int) noexcept nogil
    cdef struct PackCall:
        const void* weight
        const void* bias
        void* packed
        int32_t threads
        ParallelFor parallel_for
        bint shared
        const View* lie
    cdef struct Algorithm:
        const char* name
        Refuses refuses
        PackedBytes packed_bytes
        WorkspaceBytes workspace_bytes, pack_workspace_bytes
        bint (*in_place)(const Problem&, bint) noexcept nogil
        bint packs_any_order
    cdef struct CModule "fastconv::Module":
        int32_t abi
        const char* isa
        int32_t float32_lanes
        int32_t algorithm_count
        const Algorithm* algorithms
        const CPool* pool

cdef extern from "regions.hpp" namespace "fastconv" nogil:
    cppclass Regions:
        @staticmethod
        double computed(const Problem&) noexcept

cdef extern from "runtime.hpp" namespace "fastconv" nogil:
    void run_parallel "fastconv::parallel_for"(int64_t, Body, void*) noexcept
    int count_workers "fastconv::worker_count"() noexcept
    int count_cpus "fastconv::available_cpus"() noexcept
    void set_cpu_limit "fastconv::limit_cpus"(int count) noexcept
    bint runs_avx2() noexcept
    bint runs_avx512() noexcept
    cppclass Blocks:
        @staticmethod
        void* take(size_t) noexcept
        @staticmethod
        void release(void*, size_t) noexcept
    cdef enum Outcome "fastconv::Outcome":
        raised, no_memory, done, outside, spoilt
    bint packed_is_shared(const Algorithm&, const Problem&, size_t, int) noexcept
    Outcome run_with_workspace(const Algorithm&, const Problem&, Call&, size_t) noexcept
    Outcome run_ready(const Algorithm&, const Problem&, Call&, size_t) noexcept
    size_t plain_bytes(const Problem&) noexcept
    void keep_plain(const Problem&, const PackCall&, void*) noexcept
    bint pack_with_workspace(const Algorithm&, const Problem&, PackCall) noexcept
    Outcome pack_and_run(const Algorithm&, const Problem&, const void*, const void*, size_t, Call&, size_t) noexcept
    cdef struct JobHead:
        int64_t x, weights, bias, out, parts
    Outcome run_job(Body, JobHead, const void*, size_t, size_t, size_t) noexcept
    double measure_peak "fastconv::peak_flops"(const CModule&, Dtype, int, double) noexcept
    double measure_copy "fastconv::copy_bandwidth"(size_t, int, double) noexcept

cdef extern from "arrange.hpp" namespace "fastconv" nogil:
    const int WEIGHT_AXES "fastconv::weight_axes"
    const int64_t MOST_PHASES "fastconv::most_phases"
    cdef struct Arranged:
        int64_t[5] size, to
        int64_t from_ "from"[5]
    void do_arrange "fastconv::arrange"[T](const T*, const Arranged&, T*, int) noexcept
    cdef struct Phases:
        int64_t batch, groups, channels
        int64_t[3] size, stride, phases
        const int64_t* offset[3]
        int64_t from_batch, from_group, from_phase, from_channel
        int64_t[3] from_space
        int64_t to_batch, to_channel
        int64_t[3] to_space
    void do_join "fastconv::join_phases"[T](const T*, const Phases&, T*, unsigned char*, int) noexcept

cdef enum:
    AXES = 3


# What a signal handler raised in the middle of a call.
cdef int propagate() except -1:
    return -1

cdef tuple DTYPES = ("float32", "float64")
cdef tuple PADDING_MODES = ("zeros", "reflect", "symmetric", "replicate", "circular")
cdef enum:
    FORWARD, OF_INPUT
cdef tuple DIRECTIONS = ("forward", "backward_input", "backward_weight")
cdef tuple ACTIVATIONS = (
    None, "relu", "relu6", "leaky_relu", "sigmoid", "tanh", "gelu", "gelu_tanh", "silu", "hardswish")


# ------------------------------------------------------------------------------------------------ machine and threads


def supported_isas():
    """The builds that this CPU and its system can run, best last."""
    isas = ["baseline"]
    if runs_avx2():
        isas.append("avx2")
    if runs_avx512():
        isas.append("avx512")
    return tuple(isas)


def available_cpus():
    """CPUs this process may run on, at most as many as `limit_cpus` says."""
    return count_cpus()


def limit_cpus(int count):
    """More threads than that at a time would only wait: a container's quota. 0: no limit."""
    set_cpu_limit(count)


def worker_count():
    """Threads the pool has started in this process."""
    return count_workers()


def parallel_for(int64_t parts, address_of_body, address_of_context=0):
    """Call the C function void(void* context, int64 part) once for each part, on up to `parts` threads."""
    cdef uintptr_t body = address_of_body
    cdef uintptr_t context = address_of_context
    if body == 0:
        raise ValueError("address_of_body must not be 0")
    with nogil:
        run_parallel(parts, <Body> body, <void*> context)


def address_of(cnp.ndarray array not None):
    """Where the elements of an array begin: `array.ctypes.data`, which takes a microsecond."""
    return <uintptr_t> cnp.PyArray_DATA(array)


def copy_bandwidth(size_t nbytes, int threads, double seconds):
    """Bytes read plus bytes written per second while `threads` threads copy one buffer of nbytes to another."""
    cdef double rate
    check_threads(threads)
    with nogil:
        rate = measure_copy(nbytes, threads, seconds)
    if rate < 0:
        raise MemoryError(f"cannot allocate two buffers of {nbytes:,} bytes")
    return rate


cdef int check_threads(int threads) except -1:
    if threads < 1 or threads > 65536:
        raise ValueError(f"threads must be between 1 and 65536, got {threads}")
    return 0


cdef class Module:
    """The kernels of one ISA, from the capsule of its extension module."""
    cdef const CModule* module
    cdef object capsule
    cdef readonly str isa
    cdef readonly tuple algorithms
    cdef readonly int lanes

    def __cinit__(self, capsule):
        self.module = <const CModule*> PyCapsule_GetPointer(capsule, "fastconv.Module")
        if self.module.abi != abi_version:
            raise ImportError(f"kernels of version {self.module.abi}, expected {abi_version}: rebuild fastconv")
        self.capsule = capsule
        self.isa = self.module.isa.decode()
        self.lanes = self.module.float32_lanes
        self.algorithms = tuple([self.module.algorithms[i].name.decode() for i in range(self.module.algorithm_count)])

    def peak_flops(self, str dtype, int threads, double seconds):
        """Floating-point operations per second of independent multiply-adds in registers."""
        cdef Dtype kind = <Dtype> index_in(DTYPES, dtype, "dtype")
        cdef double rate
        check_threads(threads)
        with nogil:
            rate = measure_peak(self.module[0], kind, threads, seconds)
        return rate

    def __repr__(self):
        return f"<fastconv kernels {self.isa}: {', '.join(self.algorithms)}>"

    cdef const Algorithm* find(self, algorithm) except NULL:
        cdef Py_ssize_t index
        if isinstance(algorithm, str):
            if algorithm not in self.algorithms:
                raise ValueError(f"algorithm must be one of {self.algorithms}, got {algorithm!r}")
            index = self.algorithms.index(algorithm)
        else:
            index = operator.index(algorithm)
            if not 0 <= index < len(self.algorithms):
                raise ValueError(f"algorithm must be below {len(self.algorithms)}, got {index}")
        return &self.module.algorithms[index]


include "arrays.pxi"
include "arrange.pxi"
include "problem.pxi"
include "kernel.pxi"
include "shortcut.pxi"
include "job.pxi"
include "pool.pxi"
include "pointwise.pxi"
