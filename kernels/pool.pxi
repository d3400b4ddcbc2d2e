# Part of runtime.pyx: pooling.

cdef extern from "pool_abi.hpp" namespace "fastconv" nogil:
    cdef enum Pooling "fastconv::Pooling":
        pass
    cdef struct PoolAxis:
        int64_t input, output, dilation, taps
        const int64_t* first
        const int64_t* count
        const int64_t* divisor
    cdef struct CPoolProblem "fastconv::PoolProblem":
        Dtype dtype
        Pooling operation
        double norm, divisor
        int64_t batch, channels
        PoolAxis[3] axis
    cdef struct PoolCall:
        View input, output, grad_output, grad_input, indices
        int32_t threads
        ParallelFor parallel_for
    cdef struct PoolKernel:
        size_t (*workspace_bytes)(const CPoolProblem&, const PoolCall&) noexcept nogil
    cdef struct PoolKernels "fastconv::Pool":
        PoolKernel forward, gradient, add, put

    bint are_apart(const CPoolProblem&) noexcept
    void find_grid(PoolAxis&) noexcept

cdef extern from "runtime.hpp" namespace "fastconv" nogil:
    Outcome run_pool(const PoolKernel&, const CPoolProblem&, PoolCall&) noexcept

cdef tuple POOLINGS = ("max", "min", "average", "lp")


cdef class Pool:
    """A pooling of one ISA, bound to one problem: see `pool_problem` for the tables, one of each per spatial axis.

    taps: of a whole window, one per axis. divisor_override: 0, or what averages divide by; scale: 0, or what lp multiplies the
    quotient of a sum and the divisors by. channels_last: the order of the axes of all arrays.
    """
    cdef readonly Module module
    cdef CPoolProblem problem
    cdef int axes
    cdef bint channels_last
    cdef list tables  # what the problem points to

    def __cinit__(self, Module module not None, *, str op not None, str dtype not None, batch, channels, input, output, taps, dilation,
                  first, count, divisor, double norm_type=0, double divisor_override=0, double scale=0, bint channels_last=False):
        cdef CPoolProblem* p = &self.problem
        cdef int i, skipped
        self.module, self.channels_last, self.axes, self.tables = module, channels_last, len(input), []
        skipped = AXES - self.axes
        if not 1 <= self.axes <= AXES:
            raise ValueError(f"input must have 1 to {AXES} values, got {input!r}")
        memset(p, 0, sizeof(CPoolProblem))
        p.dtype = <Dtype> index_in(DTYPES, dtype, "dtype")
        p.operation = <Pooling> index_in(POOLINGS, op, "op")
        p.norm, p.divisor = norm_type, scale if op == "lp" else divisor_override
        p.batch, p.channels = checked(batch, 0, "batch"), checked(channels, 1, "channels")
        for i in range(skipped):
            self.fill_axis(i, 1, 1, 1, 1, (0,), (1,), (1,))
        for values, name in ((output, "output"), (taps, "taps"), (dilation, "dilation"), (first, "first"), (count, "count"),
                             (divisor, "divisor")):
            if len(values) != self.axes:
                raise ValueError(f"{name} must have {self.axes} entries, got {len(values)}")
        for i in range(self.axes):
            self.fill_axis(skipped + i, input[i], output[i], taps[i], dilation[i], first[i], count[i], divisor[i])
        self.check_bytes()

    cdef int check_bytes(self) except -1:
        cdef int i
        inputs = outputs = 8 * <object> self.problem.channels * max(self.problem.batch, 1)
        for i in range(AXES):
            inputs, outputs = inputs * self.problem.axis[i].input, outputs * self.problem.axis[i].output
        if max(inputs, outputs) >= 1 << 62:
            raise ValueError("sizes must make arrays of less than 2**62 bytes")
        return 0

    cdef int fill_axis(self, int i, input, output, taps, dilation, first, count, divisor) except -1:
        cdef PoolAxis* axis = &self.problem.axis[i]
        axis.input, axis.output = checked(input, 1, "input"), checked(output, 1, "output")
        axis.taps, axis.dilation = checked(taps, 1, "taps"), checked(dilation, 1, "dilation")
        axis.first = self.table(first, axis.output, "first")
        axis.count = self.table(count, axis.output, "count")
        axis.divisor = self.table(divisor, axis.output, "divisor")
        cdef int64_t o, last, before = 0
        for o in range(axis.output):
            if not 1 <= axis.count[o] <= axis.taps:
                raise ValueError(f"count must be 1 to {axis.taps} on axis {i} of {AXES}, got {axis.count[o]}")
            if not 0 <= axis.first[o] < axis.input or axis.count[o] - 1 > (axis.input - 1 - axis.first[o]) // axis.dilation:
                raise ValueError(f"windows must lie within the {axis.input} inputs of axis {i} of {AXES}, got {axis.count[o]} "
                                 f"taps from {axis.first[o]} on")
            last = axis.first[o] + (axis.count[o] - 1) * axis.dilation
            if axis.dilation == 1 and (last < before or o > 0 and axis.first[o] < axis.first[o - 1]):
                raise ValueError(f"windows must follow each other on axis {i} of {AXES}, got one that goes back at {o}")
            before = last
            if axis.divisor[o] < 1:
                raise ValueError(f"divisor must be positive, got {axis.divisor[o]}")
        find_grid(axis[0])
        return 0

    cdef const int64_t* table(self, values, int64_t length, str name) except NULL:
        cdef cnp.ndarray table = cnp.PyArray_FROMANY(values, cnp.NPY_INT64, 1, 1, cnp.NPY_ARRAY_CARRAY | cnp.NPY_ARRAY_ENSURECOPY)
        if cnp.PyArray_DIM(table, 0) != length:
            raise ValueError(f"{name} must have {length} entries, got {cnp.PyArray_DIM(table, 0)}")
        self.tables.append(table)
        return <const int64_t*> cnp.PyArray_DATA(table)

    @property
    def isa(self):
        return self.module.isa

    @property
    def apart(self):
        """Whether no input is in two windows, all of which are whole."""
        return are_apart(self.problem)

    def forward(self, cnp.ndarray input not None, cnp.ndarray out not None, indices=None, int threads=1):
        """Overwrites `out` and, of max and min, `indices` (int64, flat within the spatial axes of the input)."""
        cdef PoolCall call
        memset(&call, 0, sizeof(PoolCall))
        self.see(&call.input, input, b"input", True, False)
        self.see(&call.output, out, b"out", False, True)
        if indices is not None:
            if <int> self.problem.operation > 1:
                raise ValueError("indices are those of max and min")
            self.see(&call.indices, indices, b"indices", False, True)
        self.run(&kernels_of(self.module).forward, &call, threads)

    def gradient(self, cnp.ndarray grad_output not None, cnp.ndarray grad_input not None, input=None, output=None, int threads=1):
        """Overwrites `grad_input` with the gradient of averages; of max and min whose windows are apart, which have seen `input`;
        or of lp, which has made `output` of it."""
        cdef PoolCall call
        cdef int i
        memset(&call, 0, sizeof(PoolCall))
        if <int> self.problem.operation < 2 and not self.apart:
            raise ValueError("the gradient of max and min whose windows overlap is found by their indices")
        for i in range(AXES):
            if self.problem.axis[i].dilation != 1:
                raise ValueError("dilation must be 1 in a gradient")
        self.see(&call.grad_output, grad_output, b"grad_output", False, False)
        self.see(&call.grad_input, grad_input, b"grad_input", True, True)
        if <int> self.problem.operation != 2:
            self.see(&call.input, input, b"input", True, False)
        if <int> self.problem.operation == 3:
            self.see(&call.output, output, b"output", False, False)
        self.run(&kernels_of(self.module).gradient, &call, threads)

    def scatter(self, cnp.ndarray values not None, cnp.ndarray indices not None, cnp.ndarray result not None, bint add=True,
                int threads=1):
        """Overwrites `result`, of the input's shape: with the sums of the values (of the output's shape) that have a place's
        index, or with the last of these; else 0."""
        cdef PoolCall call
        memset(&call, 0, sizeof(PoolCall))
        self.see(&call.grad_output, values, b"values", False, False)
        self.see(&call.indices, indices, b"indices", False, False)
        self.see(&call.grad_input, result, b"result", True, True)
        self.run(&kernels_of(self.module).add if add else &kernels_of(self.module).put, &call, threads)

    cdef int run(self, const PoolKernel* kernel, PoolCall* call, int threads) except -1:
        cdef Outcome outcome
        check_threads(threads)
        if self.problem.batch == 0:
            return 0
        call.threads, call.parallel_for = threads, <ParallelFor> &run_parallel
        with nogil:
            outcome = run_pool(kernel[0], self.problem, call[0])
        if outcome == raised:
            propagate()
        if outcome == no_memory:
            raise MemoryError(f"cannot allocate {kernel.workspace_bytes(self.problem, call[0]):,} bytes of workspace")
        if outcome == outside:
            raise ValueError("indices must lie within the spatial axes of the input")
        return 0

    cdef int see(self, View* view, cnp.ndarray array, const char* argument, bint of_input, bint writable) except -1:
        """An array as the kernels see it: `of_input` in size, or of the outputs."""
        cdef int i, count = self.axes + 2, skipped = AXES - self.axes, rest = 1 if self.channels_last else 2
        cdef bint places = argument == b"indices"
        cdef int kind = cnp.NPY_INT64 if places else cnp.NPY_DOUBLE if <int> self.problem.dtype else cnp.NPY_FLOAT
        cdef int size = 8 if places or <int> self.problem.dtype else 4
        cdef str name = argument.decode()
        check_plain(name, array, kind, writable)
        sizes = tuple([self.problem.axis[i].input if of_input else self.problem.axis[i].output for i in range(skipped, AXES)])
        batch, channels = self.problem.batch, self.problem.channels
        expected = (batch, *sizes, channels) if self.channels_last else (batch, channels, *sizes)
        if (<object> array).shape != expected:
            raise ValueError(f"{name} must have shape {expected}, got {(<object> array).shape}")
        cdef cnp.npy_intp* lengths = cnp.PyArray_DIMS(array)
        cdef cnp.npy_intp* steps = cnp.PyArray_STRIDES(array)
        cdef int64_t step
        view.data = cnp.PyArray_DATA(array)
        for i in range(count):
            step = steps[i] // size if lengths[i] > 1 else 0
            if i == 0:
                view.batch = step
            elif i == (count - 1 if self.channels_last else 1):
                view.channel = step
            else:
                view.space[skipped + i - rest] = step
        return 0

    def __repr__(self):
        return f"<fastconv pooling {POOLINGS[<int> self.problem.operation]} {self.isa}>"


cdef const PoolKernels* kernels_of(Module module) noexcept:
    return <const PoolKernels*> module.module.pool
