# Part of runtime.pyx: an algorithm bound to a problem, and packed weights.


cdef int check_given(str argument, value, bint wanted) except -1:
    if (value is not None) != wanted:
        raise ValueError(f"{argument} must be given" if wanted else f"{argument} must be None")
    return 0


# In elements; an axis of length 1 may have any stride in NumPy, here it is 0.
cdef inline bint set_stride(int64_t* stride, int64_t length, int64_t step, int64_t expected, int size,
                            bint writable) noexcept:
    if length != expected or length > 1 and (step % size != 0 or writable and step == 0):
        return False
    stride[0] = 0 if length == 1 else step // size
    return True


cdef class Kernel:
    """One algorithm of one ISA bound to one problem; channels are per group, sizes one value per spatial axis.

    tile: outputs per tile along each axis, for winograd. channels_last: the order of the axes of input, output and residual.
    unit: spatial axes of the arrays that the problem leaves out, as they are of length 1.
    """
    cdef readonly Module module
    cdef const Algorithm* algorithm
    cdef Problem problem
    cdef Problem packing_of
    cdef int axes  # of the arrays' space; `place` says where the problem has each: -1 where it leaves one out
    cdef int[AXES] place
    cdef bint channels_last
    cdef readonly bint in_place  # where calls share weights
    cdef readonly size_t packed_bytes

    def __cinit__(
            self, Module module not None, algorithm, *, str dtype not None, batch, groups, in_channels, out_channels,
            input, output, kernel, stride, dilation, pad_lo, pad_hi, str padding_mode="zeros", activation=None,
            double activation_parameter=0.0, bint has_bias=False, bint has_residual=False, bint strict=False,
            str direction="forward", tile=None, bint channels_last=False, unit=()):
        cdef Problem* p = &self.problem
        self.module = module
        self.algorithm = module.find(algorithm)
        cdef int i, stated = len(input), next_place = AXES - len(input)
        self.axes = stated + len(unit)
        self.channels_last = channels_last
        if not 1 <= self.axes <= AXES:
            raise ValueError(f"input must have 1 to {AXES} values, got {input!r}")
        for i in range(self.axes):
            self.place[i] = -1 if i in unit else next_place
            next_place += i not in unit
        if next_place != AXES:
            raise ValueError(f"unit must name axes of arrays with {self.axes}, each once, got {unit!r}")
        memset(p, 0, sizeof(Problem))
        p.dtype = <Dtype> index_in(DTYPES, dtype, "dtype")
        p.padding_mode = <PaddingMode> index_in(PADDING_MODES, padding_mode, "padding_mode")
        p.activation = <Activation> index_in(ACTIVATIONS, activation, "activation")
        p.direction = <Direction> index_in(DIRECTIONS, direction, "direction")
        p.activation_parameter = activation_parameter
        p.has_bias, p.has_residual, p.strict = has_bias, has_residual, strict
        fill_tile(p.tile, tile, stated)
        p.batch = checked(batch, 0, "batch")
        p.groups = checked(groups, 1, "groups")
        p.in_channels = checked(in_channels, 1, "in_channels")
        p.out_channels = checked(out_channels, 1, "out_channels")
        fill_axes(p.input, input, stated, 1, 1, "input")
        fill_axes(p.output, output, stated, 1, 1, "output")
        fill_axes(p.kernel, kernel, stated, 1, 1, "kernel")
        fill_axes(p.stride, stride, stated, 1, 1, "stride")
        fill_axes(p.dilation, dilation, stated, 1, 1, "dilation")
        fill_axes(p.pad_lo, pad_lo, stated, 0, 0, "pad_lo")
        fill_axes(p.pad_hi, pad_hi, stated, 0, -(1 << 48), "pad_hi")
        check_output(p)
        check_bytes(p)

    def __init__(self, *arguments, **fields):
        refusal = self.refusal()
        if refusal is not None:
            raise NotImplementedError(f"{self.name}: {refusal}")
        self.packing_of = packing_of(self.problem)
        self.in_place = self.algorithm.in_place(self.problem, False)
        self.packed_bytes = plain_bytes(self.packing_of) if self.in_place else self.algorithm.packed_bytes(self.packing_of)

    @property
    def name(self):
        return self.algorithm.name.decode()

    @property
    def isa(self):
        return self.module.isa

    @property
    def packing(self):
        """What the bytes of packed weights depend on: kernels of one algorithm and ISA that have the same accept each other's."""
        return (<char*> &self.packing_of)[:sizeof(Problem)]

    def workspace_bytes(self, int threads=1):
        check_threads(threads)
        return self.algorithm.workspace_bytes(self.problem, threads) if self.problem.batch else 0  # no batch, no run

    cdef refusal(self):
        cdef const char* reason = self.algorithm.refuses(self.problem)
        return None if reason == NULL else reason.decode()

    def pack(self, cnp.ndarray weight not None, bias=None, int threads=1, bint once=False):
        """Weights (out, in per group, *kernel), any strides, and bias, in the order the algorithm reads them. Where that is in place,
        read-only weights that lie so are not even copied: nobody changes them any more; nor are others for a run that comes
        `once`, before anybody changes them."""
        cdef Problem* p = &self.problem
        cdef Packed packed = Packed.__new__(Packed)
        cdef View view
        cdef PackCall call
        cdef bint done
        memset(&call, 0, sizeof(PackCall))
        check_threads(threads)
        if not self.sees_weight(&view, weight, False):
            self.reject(b"weight", weight, self.weight_shape(), False)
        call.bias = self.bias_data(bias)
        given = weight
        packed.algorithm = self.algorithm
        packed.packing_of = self.packing_of
        packed.in_place = self.algorithm.in_place(self.problem, True) if once else self.in_place
        if not self.algorithm.packs_any_order or packed.in_place and not once:
            weight = arranged(weight, threads)
        elif not cnp.PyArray_IS_C_CONTIGUOUS(weight):
            call.lie = &view
            packed.lie, packed.lies = view, packed.in_place
        call.weight = cnp.PyArray_DATA(weight)
        if packed.in_place and (once or weight is not given or not cnp.PyArray_ISWRITEABLE(weight)):
            packed.held = weight, bias if once or bias is None else bias.copy()
            packed.data, packed.bias = <void*> call.weight, self.bias_data(packed.held[1])
            return packed
        packed.data = Blocks.take(self.packed_bytes)
        if packed.data == NULL:
            raise MemoryError(f"cannot allocate {self.packed_bytes:,} bytes of packed weights")
        packed.nbytes, packed.owned = self.packed_bytes, True
        if packed.in_place:
            keep_plain(self.packing_of, call, packed.data)
            return packed
        call.shared = self.problem.batch > 0 and packed_is_shared(self.algorithm[0], self.problem, self.packed_bytes, threads)
        with nogil:
            call.packed, call.threads, call.parallel_for = packed.data, threads, <ParallelFor> &run_parallel
            done = pack_with_workspace(self.algorithm[0], self.packing_of, call)
        if not done:
            needed = self.algorithm.pack_workspace_bytes(self.packing_of, threads)
            raise MemoryError(f"cannot allocate {needed:,} bytes of workspace")
        return packed

    def run(self, cnp.ndarray input not None, Packed packed not None, cnp.ndarray out not None, residual=None,
            int threads=1):
        """Arrays (batch, channels, *space), or (batch, *space, channels), in this axis order, whatever their memory layout;
        `out` is overwritten."""
        cdef Problem* p = &self.problem
        cdef Call call
        check_threads(threads)
        memset(&call, 0, sizeof(Call))
        if not packed.fits(self):
            raise ValueError("packed must come from pack() of a kernel for the same algorithm, ISA and weights")
        check_given("residual", residual, p.has_residual)
        if not self.sees_input(&call.input, input, True):
            self.reject(b"input", input, self.shape(p.in_channels, p.input), False)
        if not self.sees_output(&call.output, out, True, True):
            self.reject(b"out", out, self.shape(p.out_channels, p.output), True)
        if residual is not None and not self.sees_output(&call.residual, residual, True, False):
            self.reject(b"residual", residual, self.shape(p.out_channels, p.output), False)
        call.packed, call.bias, call.in_place = packed.data, packed.bias, packed.in_place
        if packed.lies:
            call.lie = &packed.lie
        self.start(&call, threads, packed.held is not None)

    def run_weight(self, cnp.ndarray input not None, cnp.ndarray gradient not None, cnp.ndarray out not None, int threads=1):
        """The gradient of the weight, where that is the direction: `gradient` is the output's, `out` has the weight's shape."""
        cdef Problem* p = &self.problem
        cdef Call call
        check_threads(threads)
        memset(&call, 0, sizeof(Call))
        if not self.sees_input(&call.input, input, True):
            self.reject(b"input", input, self.shape(p.in_channels, p.input), False)
        if not self.sees_output(&call.gradient, gradient, True, False):
            self.reject(b"gradient", gradient, self.shape(p.out_channels, p.output), False)
        if not self.sees_weight(&call.output, out, True):
            self.reject(b"out", out, self.weight_shape(), True)
        self.start(&call, threads)

    def in_order(self, cnp.ndarray weight not None, int threads=1):
        """The weights as an algorithm reads them that packs none: C-contiguous, the array itself if it is."""
        cdef View view
        check_threads(threads)
        if not self.sees_weight(&view, weight, False):
            self.reject(b"weight", weight, self.weight_shape(), False)
        return arranged(weight, threads)

    def run_input(self, cnp.ndarray gradient not None, cnp.ndarray weight not None, bias, cnp.ndarray out not None, residual=None,
                  int threads=1):
        """The gradient of the input, where that is the direction: `gradient` is the output's, `weight` came from in_order(), and
        bias (of each input channel), residual and `out` are of the input."""
        cdef Problem* p = &self.problem
        cdef Call call
        cdef View view
        cdef int64_t channels = p.groups * p.in_channels
        check_threads(threads)
        memset(&call, 0, sizeof(Call))
        check_given("residual", residual, p.has_residual)
        if not self.sees_output(&call.gradient, gradient, True, False):
            self.reject(b"gradient", gradient, self.shape(p.out_channels, p.output), False)
        if not self.sees_weight(&view, weight, False) or not cnp.PyArray_IS_C_CONTIGUOUS(weight):
            self.reject(b"weight", weight, self.weight_shape(), False)
        if not self.sees(&call.output, out, p.batch, channels, p.input, True, self.channels_last, True):
            self.reject(b"out", out, self.shape(p.in_channels, p.input), True)
        if residual is not None and not self.sees_input(&call.residual, residual, True):
            self.reject(b"residual", residual, self.shape(p.in_channels, p.input), False)
        call.bias = self.bias_data(bias)
        call.packed = cnp.PyArray_DATA(weight)
        self.start(&call, threads)

    # ready: nothing of the call is packed.
    cdef int start(self, Call* call, int threads, bint ready=False) except -1:
        cdef Problem* p = &self.problem
        cdef size_t workspace
        cdef Outcome outcome
        if p.batch == 0:
            return 0
        call.threads = threads
        call.parallel_for = <ParallelFor> &run_parallel
        with nogil:
            workspace = self.algorithm.workspace_bytes(p[0], threads)
            if <int> p.direction == FORWARD and not ready:
                outcome = run_with_workspace(self.algorithm[0], p[0], call[0], workspace)
            else:
                outcome = run_ready(self.algorithm[0], p[0], call[0], workspace)
        if outcome == raised:
            propagate()
        if outcome == no_memory:
            raise MemoryError(f"cannot allocate {workspace:,} bytes of workspace")
        return 0

    # Which arrays the kernel can read or write as they are, and their views; `reject` says what is wrong with all others.
    # batched: the array has the batch axis (of one image, where it has not).

    cdef bint sees_input(self, View* view, cnp.ndarray array, bint batched) noexcept:
        cdef Problem* p = &self.problem
        return self.sees(view, array, p.batch, p.groups * p.in_channels, p.input, batched, self.channels_last, False)

    cdef bint sees_output(self, View* view, cnp.ndarray array, bint batched, bint writable) noexcept:
        cdef Problem* p = &self.problem
        return self.sees(view, array, p.batch, p.groups * p.out_channels, p.output, batched, self.channels_last, writable)

    cdef bint sees_weight(self, View* view, cnp.ndarray array, bint writable) noexcept:
        cdef Problem* p = &self.problem
        return self.sees(view, array, p.groups * p.out_channels, p.in_channels, p.kernel, True, False, writable)

    cdef int64_t biases(self) noexcept:
        cdef Problem* p = &self.problem
        return p.groups * (p.in_channels if <int> p.direction == OF_INPUT else p.out_channels)

    cdef bint sees_bias(self, cnp.ndarray array) noexcept:
        return (self.is_native(array, False) and cnp.PyArray_NDIM(array) == 1 and cnp.PyArray_IS_C_CONTIGUOUS(array)
                and cnp.PyArray_DIM(array, 0) == self.biases())

    # Null where the problem has none.
    cdef const void* bias_data(self, bias) except? NULL:
        cdef cnp.ndarray values
        check_given("bias", bias, self.problem.has_bias)
        if bias is None:
            return NULL
        values = bias
        if not self.sees_bias(values):
            self.reject(b"bias", values, (self.biases(),), False)
        return cnp.PyArray_DATA(values)

    cdef bint is_native(self, cnp.ndarray array, bint writable) noexcept:
        return (cnp.PyArray_TYPE(array) == (cnp.NPY_DOUBLE if <int> self.problem.dtype else cnp.NPY_FLOAT)
                and cnp.PyArray_ISNOTSWAPPED(array) and cnp.PyArray_CHKFLAGS(array, cnp.NPY_ARRAY_ALIGNED)
                and not (writable and not cnp.PyArray_CHKFLAGS(array, cnp.NPY_ARRAY_WRITEABLE)))

    cdef bint sees(self, View* view, cnp.ndarray array, int64_t first, int64_t second, const int64_t* space, bint batched,
                   bint last, bint writable) noexcept:
        cdef cnp.npy_intp* lengths = cnp.PyArray_DIMS(array)
        cdef cnp.npy_intp* steps = cnp.PyArray_STRIDES(array)
        cdef int size = 8 if <int> self.problem.dtype else 4
        cdef int i, channel = batched + (self.axes if last else 0), rest = batched + (0 if last else 1)
        if not self.is_native(array, writable) or cnp.PyArray_NDIM(array) != batched + 1 + self.axes:
            return False
        memset(view, 0, sizeof(View))
        view.data = cnp.PyArray_DATA(array)
        writable = writable and self.problem.batch > 0
        if batched and not set_stride(&view.batch, lengths[0], steps[0], first, size, writable):
            return False
        for i in range(self.axes):
            if self.place[i] < 0:
                if lengths[rest + i] != 1:
                    return False
            elif not set_stride(&view.space[self.place[i]], lengths[rest + i], steps[rest + i], space[self.place[i]], size,
                                writable):
                return False
        return set_stride(&view.channel, lengths[channel], steps[channel], second, size, writable)

    cdef tuple shape(self, int64_t channels, const int64_t* space):
        cdef tuple sizes = self.sizes(space)
        channels *= self.problem.groups
        return (self.problem.batch, *sizes, channels) if self.channels_last else (self.problem.batch, channels, *sizes)

    cdef tuple weight_shape(self):
        cdef Problem* p = &self.problem
        return (p.groups * p.out_channels, p.in_channels, *self.sizes(p.kernel))

    cdef tuple sizes(self, const int64_t* space):
        return tuple([1 if self.place[i] < 0 else space[self.place[i]] for i in range(self.axes)])

    cdef int reject(self, const char* argument, array, tuple expected, bint writable) except -1:
        cdef str name = argument.decode(), dtype = DTYPES[<int> self.problem.dtype]
        if array.dtype != dtype or not array.dtype.isnative:
            raise ValueError(f"{name} must be native {dtype}, got {array.dtype!r}")
        if not array.flags.aligned:
            raise ValueError(f"{name} must be aligned")
        if writable and not array.flags.writeable:
            raise ValueError(f"{name} must be writable")
        if array.shape != expected:
            raise ValueError(f"{name} must have shape {expected}, got {array.shape}")
        if name == "bias":
            raise ValueError("bias must be contiguous")
        raise ValueError(f"{name} has an unusable stride of 0 bytes or of a part of an element: strides {array.strides}")

    def __repr__(self):
        return f"<fastconv kernel {self.name} {self.isa}>"


def refuses(Module module not None, algorithm, **fields):
    """Why the algorithm does not compute this problem, in one line, or None. Arguments as for Kernel."""
    cdef Kernel kernel = Kernel.__new__(Kernel, module, algorithm, **fields)
    return kernel.refusal()


def computed(Module module not None, algorithm, **fields):
    """The share of the products that gemm and direct compute: where the padding is zero, they leave out taps that only lie in it.
    Arguments as for Kernel."""
    cdef Kernel kernel = Kernel.__new__(Kernel, module, algorithm, **fields)
    return Regions.computed(kernel.problem)


cdef class Packed:
    """Packed weights and bias; constant, and shared by threads and by kernels with the same `packing`."""
    cdef void* data
    cdef readonly size_t nbytes
    cdef const Algorithm* algorithm
    cdef Problem packing_of
    cdef bint in_place, lies
    cdef View lie  # of weights in place, if it lies: in another order than C's
    cdef tuple held  # weight and bias, where they are neither packed nor copied
    cdef bint owned  # data is of Blocks; held says nothing in the end: a collection of garbage clears it first
    cdef const void* bias

    cdef bint fits(self, Kernel kernel):
        return (self.data != NULL and self.algorithm == kernel.algorithm
                and memcmp(&self.packing_of, &kernel.packing_of, sizeof(Problem)) == 0
                and (not self.in_place or kernel.algorithm.in_place(kernel.problem, True)))

    def __dealloc__(self):
        if self.owned:
            Blocks.release(self.data, self.nbytes)
