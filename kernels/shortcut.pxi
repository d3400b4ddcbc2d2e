# Part of runtime.pyx: calls that were validated once, taken again.


cdef class Shortcut:
    """A validated call with everything fixed but the arrays. Immutable; shared by threads.

    It knows no rules and raises no errors: what is not plainly the same call again, `take` leaves to whoever validated the
    first one. Of `settings`, what plans depend on must be equal, and `arguments` must be unchangeable; as many threads are used
    as the settings of each call say. packed None: the weights are packed in every call.
    """
    cdef Kernel kernel
    cdef Packed packed
    cdef object settings
    cdef tuple planning, arguments
    cdef bint batched, held
    cdef int threads, dtype, axes
    cdef size_t workspace
    cdef cnp.npy_intp[2 + AXES] output_shape

    def __cinit__(self, Kernel kernel not None, settings, tuple arguments not None, bint batched, Packed packed):
        cdef tuple shape = kernel.shape(kernel.problem.out_channels, kernel.problem.output)
        if packed is not None and not packed.fits(kernel):
            raise ValueError("packed must come from pack() of a kernel for the same algorithm, ISA and weights")
        self.kernel, self.packed, self.settings, self.arguments = kernel, packed, settings, arguments
        self.planning, self.batched, self.threads = settings.planning, batched, settings.num_threads
        self.workspace = kernel.workspace_bytes(self.threads)
        self.held = packed is not None and packed.held is not None
        self.dtype = cnp.NPY_DOUBLE if <int> kernel.problem.dtype else cnp.NPY_FLOAT
        self.axes = kernel.axes + 1 + batched
        for i in range(self.axes):
            self.output_shape[i] = shape[i + (not batched)]

    def take(self, settings, tuple arguments not None, input, weight, bias, residual, out):
        """The output, or None where this is not that call again with plain arrays. weight, bias: None where packed."""
        cdef Call call
        cdef cnp.ndarray y
        cdef Outcome outcome
        cdef int threads = self.threads
        cdef size_t workspace = self.workspace
        cdef const void* weight_data
        cdef const void* bias_data
        if not same_tuples(arguments, self.arguments):
            return None
        if settings is not self.settings:
            if settings.planning != self.planning:
                return None
            threads = settings.num_threads
            if threads != self.threads:
                workspace = self.kernel.workspace_bytes(threads)
        if not self.reads(&call, input, weight, bias, residual):
            return None
        if out is None:
            y = cnp.PyArray_EMPTY(self.axes, self.output_shape, self.dtype, 0)
        elif cnp.PyArray_CheckExact(out):
            y = <cnp.ndarray> out
        else:
            return None
        if not self.kernel.sees_output(&call.output, y, self.batched, True):
            return None
        if out is not None and meets(y, input, weight, bias, residual):
            return None
        if self.kernel.problem.batch == 0:
            return y
        weight_data = NULL if weight is None else cnp.PyArray_DATA(<cnp.ndarray> weight)
        bias_data = NULL if bias is None else cnp.PyArray_DATA(<cnp.ndarray> bias)
        with nogil:
            outcome = self.run(&call, weight_data, bias_data, threads, workspace)
        if outcome == raised:
            propagate()
        return y if outcome == done else None  # no memory: whoever validates says how much

    # The arrays but the output.
    cdef bint reads(self, Call* call, input, weight, bias, residual) noexcept:
        cdef Kernel kernel = self.kernel
        cdef Problem* p = &kernel.problem
        cdef View view
        if not cnp.PyArray_CheckExact(input) or not kernel.sees_input(&call.input, <cnp.ndarray> input, self.batched):
            return False
        if (weight is None) != (self.packed is not None) or (residual is not None) != (p.has_residual != 0):
            return False
        if weight is not None:
            if not (cnp.PyArray_CheckExact(weight) and cnp.PyArray_IS_C_CONTIGUOUS(<cnp.ndarray> weight)
                    and kernel.sees_weight(&view, <cnp.ndarray> weight, False)):
                return False
            if (bias is not None) != (p.has_bias != 0):
                return False
        if bias is not None and not (cnp.PyArray_CheckExact(bias) and kernel.sees_bias(<cnp.ndarray> bias)):
            return False
        if residual is None:
            memset(&call.residual, 0, sizeof(View))
            return True
        return (cnp.PyArray_CheckExact(residual)
                and kernel.sees_output(&call.residual, <cnp.ndarray> residual, self.batched, False))

    cdef Outcome run(self, Call* call, const void* weight, const void* bias, int threads, size_t workspace) noexcept nogil:
        call.threads = threads
        call.lie = NULL
        call.parallel_for = <ParallelFor> &run_parallel
        if weight == NULL:
            call.packed, call.bias, call.in_place = self.packed.data, self.packed.bias, self.packed.in_place
            if self.held:
                return run_ready(self.kernel.algorithm[0], self.kernel.problem, call[0], workspace)
            return run_with_workspace(self.kernel.algorithm[0], self.kernel.problem, call[0], workspace)
        return pack_and_run(self.kernel.algorithm[0], self.kernel.problem, weight, bias, self.kernel.packed_bytes, call[0],
                            workspace)


# Whether equal means equal meaning: 1, 1.0 and True compare equal, but only one of them is a stride.
cdef bint same_tuples(tuple a, tuple b) except -1:
    cdef Py_ssize_t i
    if a is b:
        return True
    if len(a) != len(b):
        return False
    for i in range(len(a)):
        if not same(a[i], b[i]):
            return False
    return True


cdef bint same(a, b) except -1:
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if type(a) is tuple:
        return same_tuples(a, b)
    return (type(a) is int or type(a) is str or type(a) is float) and a == b


# Whether writing `out` would change what is still read; a residual may be `out` itself.
cdef bint meets(cnp.ndarray out, input, weight, bias, residual) noexcept:
    if may_share_memory(out, <cnp.ndarray> input):
        return True
    if weight is not None and may_share_memory(out, <cnp.ndarray> weight):
        return True
    if bias is not None and may_share_memory(out, <cnp.ndarray> bias):
        return True
    return (residual is not None and may_share_memory(out, <cnp.ndarray> residual)
            and not same_elements(out, <cnp.ndarray> residual))


# By the bounds, as np.may_share_memory does it.
cdef bint may_share_memory(cnp.ndarray a, cnp.ndarray b) noexcept:
    cdef uintptr_t[2] first, second
    return bounds(a, first) and bounds(b, second) and first[0] < second[1] and second[0] < first[1]


# The addresses of the first byte and of the one behind the last; False: the array has none.
cdef bint bounds(cnp.ndarray array, uintptr_t* found) noexcept:
    cdef cnp.npy_intp span
    cdef int i
    found[0] = found[1] = <uintptr_t> cnp.PyArray_DATA(array)
    for i in range(cnp.PyArray_NDIM(array)):
        if cnp.PyArray_DIM(array, i) == 0:
            return False
        span = (cnp.PyArray_DIM(array, i) - 1) * cnp.PyArray_STRIDE(array, i)
        found[span > 0] += <uintptr_t> span
    found[1] += cnp.PyArray_ITEMSIZE(array)
    return True


# Of arrays of one shape.
cdef bint same_elements(cnp.ndarray a, cnp.ndarray b) noexcept:
    cdef int i
    if cnp.PyArray_DATA(a) != cnp.PyArray_DATA(b):
        return False
    for i in range(cnp.PyArray_NDIM(a)):
        if cnp.PyArray_STRIDE(a, i) != cnp.PyArray_STRIDE(b, i):
            return False
    return True
