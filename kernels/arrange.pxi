# Arrays in another order: see arrange.hpp.


# Weights as the kernels take them: in the order of their axes, native and aligned.
cdef cnp.ndarray arranged(cnp.ndarray weight, int threads):
    if cnp.PyArray_IS_C_CONTIGUOUS(weight):
        return weight
    cdef cnp.ndarray made = cnp.PyArray_EMPTY(cnp.PyArray_NDIM(weight), cnp.PyArray_DIMS(weight), cnp.PyArray_TYPE(weight), 0)
    copy_arranged(weight, made, threads)
    return made


cdef int copy_arranged(cnp.ndarray source, cnp.ndarray target, int threads) except -1:
    cdef Arranged axes
    cdef int i, size = cnp.PyArray_ITEMSIZE(source)
    for i in range(WEIGHT_AXES):
        axes.size[i] = cnp.PyArray_DIM(source, i) if i < cnp.PyArray_NDIM(source) else 1
        axes.from_[i] = cnp.PyArray_STRIDE(source, i) // size if axes.size[i] > 1 else 0
        axes.to[i] = cnp.PyArray_STRIDE(target, i) // size if axes.size[i] > 1 else 0
    with nogil:
        if size == 4:
            do_arrange[float](<const float*> cnp.PyArray_DATA(source), axes, <float*> cnp.PyArray_DATA(target), threads)
        else:
            do_arrange[double](<const double*> cnp.PyArray_DATA(source), axes, <double*> cnp.PyArray_DATA(target), threads)
    return 0


def arrange(cnp.ndarray source not None, cnp.ndarray target not None, int threads=1):
    """Copy `source` to `target`: up to 5 axes, equal shapes and dtypes, any strides, no common memory."""
    check_threads(threads)
    check_plain("source", source, float_type("source", source), False)
    check_plain("target", target, float_type("target", target), True)
    if (<object> source).shape != (<object> target).shape or source.dtype != target.dtype or cnp.PyArray_NDIM(source) > WEIGHT_AXES:
        raise ValueError(f"target must be as source, with up to {WEIGHT_AXES} axes: {source.dtype} {(<object> source).shape}, got "
                         f"{target.dtype} {(<object> target).shape}")
    copy_arranged(source, target, threads)


def join_phases(cnp.ndarray source not None, cnp.ndarray target not None, stride, offsets, bint channels_last, int threads=1):
    """Write every phase to its place: target[n, c, x] = source[n, g, phase of x, c of g, x // stride + offset of the phase].

    source: (batch, groups, phases of all axes, channels of a group, *positions), or (batch, *positions, groups, phases, channels);
    target: (batch, channels, *space), or (batch, *space, channels). offsets: those of each phase, by axis.

    Returns (batch,): whether a source element that was read is not finite.
    """
    cdef Phases p
    cdef int i, axis, axes = len(stride), size = cnp.PyArray_ITEMSIZE(source)
    cdef int first = 1 if channels_last else 4, groups = 1 + axes if channels_last else 1, space = 1 if channels_last else 2
    cdef int channel = 1 + axes if channels_last else 1
    cdef cnp.ndarray steps, spoiled
    cdef list kept = []
    check_threads(threads)
    check_plain("source", source, float_type("source", source), False)
    check_plain("target", target, float_type("target", target), True)
    if not 1 <= axes <= AXES or cnp.PyArray_NDIM(source) != axes + 4 or cnp.PyArray_NDIM(target) != axes + 2 or len(offsets) != axes:
        raise ValueError(f"source must have {axes + 4} axes, target {axes + 2}, and offsets {axes}")
    if source.dtype != target.dtype or cnp.PyArray_DIM(source, 0) != cnp.PyArray_DIM(target, 0):
        raise ValueError("target must be of the source's dtype, and of as many images")
    memset(&p, 0, sizeof(Phases))
    p.batch, p.groups, p.channels = (
        cnp.PyArray_DIM(source, 0), cnp.PyArray_DIM(source, groups), cnp.PyArray_DIM(source, groups + 2))
    if cnp.PyArray_DIM(target, channel) != p.groups * p.channels:
        raise ValueError(f"target must have {p.groups * p.channels} channels, got {cnp.PyArray_DIM(target, channel)}")
    p.from_batch, p.to_batch = cnp.PyArray_STRIDE(source, 0) // size, cnp.PyArray_STRIDE(target, 0) // size
    p.from_group, p.from_phase = cnp.PyArray_STRIDE(source, groups) // size, cnp.PyArray_STRIDE(source, groups + 1) // size
    p.from_channel, p.to_channel = cnp.PyArray_STRIDE(source, groups + 2) // size, cnp.PyArray_STRIDE(target, channel) // size
    phases = 1
    for i in range(AXES):
        axis = i - (AXES - axes)
        steps = cnp.PyArray_Cast(cnp.PyArray_FROM_O(offsets[axis] if axis >= 0 else [0]), cnp.NPY_INT64)
        kept.append(steps)
        p.offset[i] = <const int64_t*> cnp.PyArray_DATA(steps)
        p.phases[i] = len(steps)
        p.stride[i] = checked(stride[axis], 1, "stride") if axis >= 0 else 1
        p.size[i] = cnp.PyArray_DIM(target, space + axis) if axis >= 0 else 1
        p.from_space[i] = cnp.PyArray_STRIDE(source, first + axis) // size if axis >= 0 else 0
        p.to_space[i] = cnp.PyArray_STRIDE(target, space + axis) // size if axis >= 0 else 0
        phases *= p.phases[i]
        if p.phases[i] != min(p.stride[i], p.size[i]) or p.phases[i] > MOST_PHASES:
            raise ValueError(f"offsets must be one for each phase, up to {MOST_PHASES}, got {len(steps)} on axis {axis}")
        positions = cnp.PyArray_DIM(source, first + axis) if axis >= 0 else 1
        for r, offset in enumerate(steps.tolist()):
            if offset < 0 or offset + (p.size[i] - r + p.stride[i] - 1) // p.stride[i] > positions:
                raise ValueError(f"source must have all positions of a phase, got {positions} on axis {axis} with offset {offset}")
    if cnp.PyArray_DIM(source, groups + 1) != phases:
        raise ValueError(f"source must have {phases} phases, got {cnp.PyArray_DIM(source, groups + 1)}")
    spoiled = cnp.PyArray_ZEROS(1, cnp.PyArray_DIMS(source), cnp.NPY_UINT8, 0)
    with nogil:
        if size == 4:
            do_join[float](<const float*> cnp.PyArray_DATA(source), p, <float*> cnp.PyArray_DATA(target),
                           <unsigned char*> cnp.PyArray_DATA(spoiled), threads)
        else:
            do_join[double](<const double*> cnp.PyArray_DATA(source), p, <double*> cnp.PyArray_DATA(target),
                            <unsigned char*> cnp.PyArray_DATA(spoiled), threads)
    return spoiled
