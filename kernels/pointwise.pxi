# Part of runtime.pyx: functions of single elements, batch normalisation, softmax and cross entropy. Arrays are checked here as well.

cdef extern from "pointwise_abi.hpp" namespace "fastconv" nogil:
    cdef enum Function "fastconv::Function":
        pass
    cdef enum RowsKind "fastconv::Rows::Kind":
        pass
    cdef enum UpdateRule "fastconv::Update::Rule":
        pass
    cdef struct Elements:
        Dtype dtype
        Function function
        int32_t has_gradient
        double parameter
        int32_t axes
        int64_t shape[64]
        int64_t stride[3][64]
        void* data[3]
    cdef struct Cube:
        void* data
        int64_t outer, middle, inner
    cdef struct Normalization:
        Dtype dtype
        int32_t training, channels_last, known
        int64_t batch, channels, space
        int32_t rectifies
        double limit, epsilon
        Cube input, gradient, result
        const double* weight
        const double* bias
        double* mean
        double* variance
        double* grad_weight
        double* grad_bias
    cdef struct LayerNormalization:
        Dtype dtype
        int32_t known
        int64_t rows, length
        double epsilon
        const void* input
        const void* gradient
        void* result
        const void* weight
        const void* bias
        double* mean
        double* inverse
        double* grad_weight
        double* grad_bias
    cdef struct Rows:
        Dtype dtype
        RowsKind kind
        int64_t outer, length, inner
        Cube input, gradient, result
        const int64_t* target
        const double* weight
        double weight_sum, smoothing
        int64_t ignored
        double* loss
    cdef struct Update:
        Dtype dtype
        UpdateRule rule
        int32_t nesterov
        int64_t count
        void* values
        void* first
        void* second
        const void* gradient
        double rate, decay, momentum, more, correction, epsilon, shrink

cdef extern from "merged_axes.hpp" namespace "fastconv" nogil:
    void merge_axes(Elements&, size_t) noexcept

cdef extern from "runtime.hpp" namespace "fastconv" nogil:
    Outcome run_elements(const CModule&, const Elements&, int) noexcept
    Outcome run_batch_norm(const CModule&, const Normalization&, int) noexcept
    Outcome run_layer_norm(const CModule&, const LayerNormalization&, int) noexcept
    Outcome run_rows(const CModule&, const Rows&, int) noexcept
    Outcome run_update(const CModule&, const Update&, int) noexcept

cdef tuple FUNCTIONS = (None, *ACTIVATIONS[1:], "exp", "erf")
cdef tuple KINDS = (
    "softmax", "log_softmax", "softmax_gradient", "log_softmax_gradient", "cross_entropy", "cross_entropy_gradient")


cdef int finished(Outcome outcome) except -1:
    if outcome == raised:
        propagate()
    if outcome == no_memory:
        raise MemoryError("cannot allocate the workspace of a pointwise function")
    return 0


cdef int check_array(str name, cnp.ndarray array, cnp.ndarray like, bint writable) except -1:
    """Of the shape and dtype of `like`, as kernels ask."""
    check_plain(name, array, float_type(name, like), writable)
    if not cnp.PyArray_SAMESHAPE(array, like):
        raise ValueError(f"{name} must have shape {(<object> like).shape}, got {(<object> array).shape}")
    return 0


cdef void set_elements(Elements* e, int which, cnp.ndarray array) noexcept:
    cdef int i, size = cnp.PyArray_ITEMSIZE(array)
    e.data[which] = cnp.PyArray_DATA(array)
    for i in range(e.axes):
        e.stride[which][i] = cnp.PyArray_STRIDE(array, i) // size if cnp.PyArray_DIM(array, i) > 1 else 0


def apply_function(Module module not None, str function not None, cnp.ndarray input not None, cnp.ndarray out not None,
                   grad_output=None, double parameter=0.0, int threads=1):
    """out = function(input), or grad_output * function'(input). Any strides; `out` may be one of the others, else it shares no
    memory with them."""
    cdef Elements e
    cdef Outcome outcome
    cdef int i
    memset(&e, 0, sizeof(Elements))
    check_threads(threads)
    e.function = <Function> index_in(FUNCTIONS, function, "function")
    check_array("input", input, input, False)
    check_array("out", out, input, True)
    e.dtype = <Dtype> (cnp.PyArray_TYPE(input) == cnp.NPY_DOUBLE)
    e.parameter, e.axes = parameter, cnp.PyArray_NDIM(input)
    for i in range(e.axes):
        e.shape[i] = cnp.PyArray_DIM(input, i)
        if e.shape[i] == 0:
            return
    set_elements(&e, 0, out)
    set_elements(&e, 1, input)
    if grad_output is not None:
        if function in ("exp", "erf"):
            raise ValueError(f"{function} has no gradient here")
        check_array("grad_output", grad_output, input, False)
        set_elements(&e, 2, grad_output)
        e.has_gradient = True
    with nogil:
        merge_axes(e, 8 if <int> e.dtype else 4)
        outcome = run_elements(module.module[0], e, threads)
    finished(outcome)


cdef Cube cube(cnp.ndarray array) noexcept:
    cdef int i, size = cnp.PyArray_ITEMSIZE(array)
    cdef int64_t[3] step
    for i in range(3):
        step[i] = cnp.PyArray_STRIDE(array, i) // size if cnp.PyArray_DIM(array, i) > 1 else 0
    return Cube(cnp.PyArray_DATA(array), step[0], step[1], step[2])


cdef double* per_channel(str name, cnp.ndarray array, Py_ssize_t count) except? NULL:
    return <double*> contiguous(name, array, cnp.NPY_DOUBLE, count)


cdef int check_adjacent(str name, cnp.ndarray array, int axis) except -1:
    if cnp.PyArray_DIM(array, axis) > 1 and cnp.PyArray_STRIDE(array, axis) != cnp.PyArray_ITEMSIZE(array):
        raise ValueError(f"{name} must be adjacent along axis {axis}, got strides {(<object> array).strides}")
    return 0


def batch_norm(Module module not None, cnp.ndarray input not None, cnp.ndarray out, cnp.ndarray weight not None,
               cnp.ndarray bias not None, cnp.ndarray mean not None, cnp.ndarray variance not None, *, bint training,
               double epsilon, bint channels_last=False, bint known=False, grad_output=None, grad_weight=None, grad_bias=None,
               str activation=None, int threads=1):
    """Arrays (batch, channels, space), adjacent along space, or, channels_last, along channels in one batch. Of each channel:
    float64; in training mean and variance are written, unless known. activation, of the result: None, relu or relu6. With grad_output: the gradients, to grad_weight, grad_bias and
    out, which may be None."""
    cdef Normalization n
    cdef Outcome outcome
    cdef int axis = 1 if channels_last else 2
    memset(&n, 0, sizeof(Normalization))
    check_threads(threads)
    if cnp.PyArray_NDIM(input) != 3 or cnp.PyArray_SIZE(input) == 0 or channels_last and cnp.PyArray_DIM(input, 0) != 1:
        raise ValueError(f"input must have three axes, none empty, got {(<object> input).shape}")
    n.dtype = <Dtype> (cnp.PyArray_TYPE(input) == cnp.NPY_DOUBLE)
    n.training, n.channels_last, n.known, n.epsilon = training, channels_last, known, epsilon
    if activation not in (None, "relu", "relu6"):
        raise ValueError(f"activation must be None, relu or relu6, got {activation!r}")
    n.rectifies, n.limit = activation is not None, 6.0 if activation == "relu6" else float("nan")
    n.batch, n.channels, n.space = cnp.PyArray_DIM(input, 0), cnp.PyArray_DIM(input, 1), cnp.PyArray_DIM(input, 2)
    for name, array in (("input", input), ("out", out), ("grad_output", grad_output)):
        if array is not None:
            check_array(name, array, input, name == "out")
            check_adjacent(name, array, axis)
    n.input = cube(input)
    if out is not None:
        n.result = cube(out)
    elif grad_output is None:
        raise ValueError("out must be an array, got None")
    n.weight, n.bias = per_channel("weight", weight, n.channels), per_channel("bias", bias, n.channels)
    n.mean, n.variance = per_channel("mean", mean, n.channels), per_channel("variance", variance, n.channels)
    if grad_output is not None:
        n.gradient = cube(grad_output)
        n.grad_weight = per_channel("grad_weight", grad_weight, n.channels)
        n.grad_bias = per_channel("grad_bias", grad_bias, n.channels)
    with nogil:
        outcome = run_batch_norm(module.module[0], n, threads)
    finished(outcome)


def layer_norm(Module module not None, cnp.ndarray input not None, cnp.ndarray out not None, weight, bias, cnp.ndarray mean not None,
               cnp.ndarray inverse not None, *, double epsilon, bint known=False, grad_output=None, grad_weight=None,
               grad_bias=None, int threads=1):
    """Contiguous arrays (rows, length); weight, bias: (length,), of their dtype, or None. Of each row, float64, written unless
    known: mean and inverse. With grad_output: the gradients, to out, which may be input or grad_output, and, float64, to
    grad_weight and grad_bias."""
    cdef LayerNormalization n
    cdef Outcome outcome
    memset(&n, 0, sizeof(LayerNormalization))
    check_threads(threads)
    if cnp.PyArray_NDIM(input) != 2 or cnp.PyArray_SIZE(input) == 0:
        raise ValueError(f"input must have two axes, none empty, got {(<object> input).shape}")
    n.input, n.result = flat_array("input", input, input, False), flat_array("out", out, input, True)
    n.dtype, n.known, n.epsilon = <Dtype> (cnp.PyArray_TYPE(input) == cnp.NPY_DOUBLE), known, epsilon
    n.rows, n.length = cnp.PyArray_DIM(input, 0), cnp.PyArray_DIM(input, 1)
    n.weight = NULL if weight is None else contiguous("weight", weight, cnp.PyArray_TYPE(input), n.length)
    n.bias = NULL if bias is None else contiguous("bias", bias, cnp.PyArray_TYPE(input), n.length)
    n.mean, n.inverse = per_channel("mean", mean, n.rows), per_channel("inverse", inverse, n.rows)
    if grad_output is not None:
        n.gradient = flat_array("grad_output", grad_output, input, False)
        n.grad_weight = per_channel("grad_weight", grad_weight, n.length)
        n.grad_bias = per_channel("grad_bias", grad_bias, n.length)
    with nogil:
        outcome = run_layer_norm(module.module[0], n, threads)
    finished(outcome)


def rows(Module module not None, str kind not None, cnp.ndarray input not None, out=None, grad_output=None, target=None, weight=None,
         double smoothing=0.0, int64_t ignored=-100, loss=None, int threads=1):
    """Arrays (outer, length, inner), adjacent along inner, or, where that is 1, along length. target: int64, loss: float64, one for
    each row, in order; weight: float64, one for each element of a row, or None. Targets must be below length, or the ignored."""
    cdef Rows r
    cdef Outcome outcome
    memset(&r, 0, sizeof(Rows))
    check_threads(threads)
    if cnp.PyArray_NDIM(input) != 3 or cnp.PyArray_SIZE(input) == 0:
        raise ValueError(f"input must have three axes, none empty, got {(<object> input).shape}")
    r.kind = <RowsKind> index_in(KINDS, kind, "kind")
    r.dtype = <Dtype> (cnp.PyArray_TYPE(input) == cnp.NPY_DOUBLE)
    r.outer, r.length, r.inner = cnp.PyArray_DIM(input, 0), cnp.PyArray_DIM(input, 1), cnp.PyArray_DIM(input, 2)
    if (grad_output is None) == (kind in ("softmax_gradient", "log_softmax_gradient")) or (out is None) != (kind == "cross_entropy"):
        raise ValueError(f"{kind} takes other arrays than these")
    for name, array in (("input", input), ("out", out), ("grad_output", grad_output)):
        if array is not None:
            check_array(name, array, input, name == "out")
            check_adjacent(name, array, 1 if r.inner == 1 else 2)
    r.input = cube(input)
    if out is not None:
        r.result = cube(out)
    if grad_output is not None:
        r.gradient = cube(grad_output)
    if kind.startswith("cross_entropy"):
        r.target = targets(target, r.outer * r.inner, r.length, ignored)
        r.loss = per_channel("loss", loss, r.outer * r.inner)
        r.weight_sum = r.length
        if weight is not None:
            r.weight, r.weight_sum = per_channel("weight", weight, r.length), weight.sum()
        r.smoothing, r.ignored = smoothing, ignored
    with nogil:
        outcome = run_rows(module.module[0], r, threads)
    finished(outcome)


cdef const int64_t* targets(cnp.ndarray target, int64_t count, int64_t length, int64_t ignored) except? NULL:
    cdef const int64_t* data = <const int64_t*> contiguous("target", target, cnp.NPY_INT64, count)
    cdef int64_t i
    for i in range(count):
        if (data[i] < 0 or data[i] >= length) and data[i] != ignored:
            raise ValueError(f"target must be at least 0 and below {length}, got {data[i]}")
    return data


cdef void* flat_array(str name, cnp.ndarray array, cnp.ndarray like, bint writable) except NULL:
    """The memory of a C-contiguous array of the shape and dtype of `like`."""
    check_array(name, array, like, writable)
    if not cnp.PyArray_IS_C_CONTIGUOUS(array):
        raise ValueError(f"{name} must be contiguous, got strides {(<object> array).strides}")
    return cnp.PyArray_DATA(array)


def update(Module module not None, str rule not None, cnp.ndarray values not None, cnp.ndarray gradient not None, first=None,
           second=None, *, double rate, double decay=0.0, double momentum=0.0, double more=1.0, bint nesterov=False,
           double shrink=1.0, double correction=1.0, double epsilon=0.0, int threads=1):
    """A step of an optimiser, "sgd" or "adam" (see `Update` in pointwise_abi.hpp): writes values, first and second, which share no
    memory. All are C-contiguous and alike."""
    cdef Update u
    cdef Outcome outcome
    memset(&u, 0, sizeof(Update))
    check_threads(threads)
    u.rule = <UpdateRule> index_in(("sgd", "adam"), rule, "rule")
    if (rule == "adam") != (second is not None) or (second is not None and first is None):
        raise ValueError(f"{rule} takes other arrays than these")
    u.values = flat_array("values", values, values, True)
    u.gradient = flat_array("gradient", gradient, values, False)
    u.first = NULL if first is None else flat_array("first", first, values, True)
    u.second = NULL if second is None else flat_array("second", second, values, True)
    u.dtype, u.count = <Dtype> (cnp.PyArray_TYPE(values) == cnp.NPY_DOUBLE), cnp.PyArray_SIZE(values)
    u.rate, u.decay, u.momentum, u.more, u.nesterov = rate, decay, momentum, more, nesterov
    u.correction, u.epsilon, u.shrink = correction, epsilon, shrink
    with nogil:
        outcome = run_update(module.module[0], u, threads)
    finished(outcome)
