# Part of runtime.pyx: the sizes of a problem as the kernels see it; what is no problem is refused.


cdef int index_in(tuple names, name, str argument) except -1:
    if name not in names:
        raise ValueError(f"{argument} must be one of {names}, got {name!r}")
    return names.index(name)


cdef int fill_axes(int64_t* axes, values, Py_ssize_t count, int64_t missing, low, str argument) except -1:
    cdef Py_ssize_t i
    if len(values) != count:
        raise ValueError(f"{argument} must have {count} values, got {values!r}")
    for i in range(AXES):
        axes[i] = missing
    for i in range(count):
        axes[AXES - count + i] = checked(values[i], low, argument)
    return 0


cdef int fill_tile(int32_t* tile, values, Py_ssize_t count) except -1:
    cdef int64_t axes[AXES]
    cdef int i
    if values is not None:
        fill_axes(axes, values, count, 1, 1, "tile")
        for i in range(AXES):
            tile[i] = <int32_t> min(axes[i], 1 << 30)
    return 0


cdef int64_t checked(value, low, str argument) except? -1:
    value = operator.index(value)
    if not low <= value < 1 << 48:
        raise ValueError(f"{argument} must be at least {low} and below 2**48, got {value}")
    return value


cdef int check_output(Problem* p) except -1:
    cdef int i
    for i in range(AXES):
        span = p.input[i] + p.pad_lo[i] + p.pad_hi[i] - <object> p.dilation[i] * (p.kernel[i] - 1) - 1
        if span < 0 or p.output[i] != span // p.stride[i] + 1:
            raise ValueError(f"output must follow from the other sizes, got {p.output[i]} on axis {i} of {AXES}")
    return 0


cdef int check_bytes(Problem* p) except -1:
    cdef int i
    inputs, outputs, weights = 8, 8, 8
    for i in range(AXES):
        inputs, outputs, weights = inputs * p.input[i], outputs * p.output[i], weights * p.kernel[i]
    inputs *= p.groups * <object> p.in_channels * max(p.batch, 1)
    outputs *= p.groups * <object> p.out_channels * max(p.batch, 1)
    weights *= p.groups * <object> p.out_channels * p.in_channels
    if max(inputs, outputs, weights) >= 1 << 62:
        raise ValueError("sizes must make arrays of less than 2**62 bytes")
    return 0
