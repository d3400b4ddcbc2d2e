# Part of runtime.pyx: calls of code that was compiled elsewhere, as the Numba backend does it, validated once and taken again.


cdef class Job:
    """A `Shortcut` for such code: a function void(void* context, int64 part), and the context, whose head differs between calls.

    For calls under the very same settings, of C-contiguous arrays, without a residual. `packed` has `weights_address` and
    `bias_address`. `plan(False)` says what is to be done: `entry.address` of the function, `template` of the context in int64
    fields, `workspace_bytes` of scratch memory, which lies `context_bytes` behind the context, and in how many `parts`. Calls of
    several `rounds`, between which Python handles signals, it leaves to whoever validated the first one; where the function marks
    a call as spoilt that one as well, and goes on by `plan(True)`.
    """
    cdef Body body
    cdef JobHead head
    cdef cnp.ndarray template
    cdef size_t context_bytes, scratch_bytes
    cdef bint short
    cdef object settings, packed, plan, planned
    cdef int dtype, axes
    cdef cnp.npy_intp[2 + AXES] input_shape, output_shape

    def __cinit__(self, settings, tuple input_shape, tuple output_shape, int dtype, packed, plan, size_t context_bytes):
        self.axes = len(input_shape)
        if not 0 < self.axes <= 2 + AXES or len(output_shape) != self.axes:
            raise ValueError(f"shapes must have as many axes, at most {2 + AXES}, got {input_shape} and {output_shape}")
        self.settings, self.packed, self.plan, self.dtype, self.context_bytes = settings, packed, plan, dtype, context_bytes
        for i in range(self.axes):
            self.input_shape[i], self.output_shape[i] = input_shape[i], output_shape[i]
        self.head.weights, self.head.bias = packed.weights_address, packed.bias_address
        self.follow(plan(False))

    cdef int follow(self, planned) except -1:
        cdef cnp.ndarray template = planned.template
        cdef uintptr_t body = planned.entry.address
        cdef int64_t parts = planned.parts
        contiguous("template", template, cnp.NPY_INT64, cnp.PyArray_SIZE(template))
        if body == 0 or parts < 1 or self.context_bytes % 64:
            raise ValueError("a job must have a function, a part at least, and a context of whole lines")
        if not sizeof(JobHead) <= <size_t> cnp.PyArray_NBYTES(template) <= self.context_bytes:
            raise ValueError(f"template must have {sizeof(JobHead)} to {self.context_bytes} bytes")
        self.scratch_bytes = planned.workspace_bytes
        self.short = planned.rounds == 1
        self.body, self.template, self.head.parts, self.planned = <Body> body, template, parts, planned
        return 0

    def take(self, settings, tuple arguments not None, input, weight, bias, residual, out):
        """As that of `Shortcut`."""
        cdef cnp.ndarray x, y, template = self.template
        cdef JobHead head = self.head
        cdef Outcome outcome
        cdef Body body = self.body
        cdef const void* fields = cnp.PyArray_DATA(template)
        cdef size_t size = cnp.PyArray_NBYTES(template), scratch_bytes = self.scratch_bytes
        planned = self.planned  # all of one plan, which stays until this is done: another thread may follow another one
        if (not self.short or settings is not self.settings or arguments or weight is not None or bias is not None
                or residual is not None or not self.fits(input, self.input_shape)):
            return None
        x = <cnp.ndarray> input
        if out is None:
            y = cnp.PyArray_EMPTY(self.axes, self.output_shape, self.dtype, 0)
        elif self.fits(out, self.output_shape) and cnp.PyArray_ISWRITEABLE(<cnp.ndarray> out) and not meets(out, x, None, None, None):
            y = <cnp.ndarray> out
        else:
            return None
        head.x, head.out = <int64_t> cnp.PyArray_DATA(x), <int64_t> cnp.PyArray_DATA(y)
        with nogil:
            outcome = run_job(body, head, fields, size, self.context_bytes, scratch_bytes)
        if outcome == done:
            return y
        if outcome == spoilt:
            self.follow(self.plan(True))
        return None

    cdef bint fits(self, array, const cnp.npy_intp* shape) noexcept:
        cdef cnp.ndarray a
        if not cnp.PyArray_CheckExact(array):
            return False
        a = <cnp.ndarray> array
        return (cnp.PyArray_NDIM(a) == self.axes and cnp.PyArray_TYPE(a) == self.dtype and cnp.PyArray_ISNOTSWAPPED(a)
                and cnp.PyArray_IS_C_CONTIGUOUS(a) and cnp.PyArray_CHKFLAGS(a, cnp.NPY_ARRAY_ALIGNED)
                and memcmp(cnp.PyArray_DIMS(a), shape, self.axes * sizeof(cnp.npy_intp)) == 0)
