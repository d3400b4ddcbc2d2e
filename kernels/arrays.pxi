# What kernels ask of arrays.


cdef dict TYPES = {cnp.NPY_FLOAT: "float32", cnp.NPY_DOUBLE: "float64", cnp.NPY_INT64: "int64"}


# What kernels ask of an array: native elements of this type, aligned, whole ones apart; no two that are written in one place.
cdef int check_plain(str name, cnp.ndarray array, int type_, bint writable) except -1:
    cdef int i, size = cnp.PyArray_ITEMSIZE(array)
    if (cnp.PyArray_TYPE(array) != type_ or not cnp.PyArray_ISNOTSWAPPED(array)
            or not cnp.PyArray_CHKFLAGS(array, cnp.NPY_ARRAY_ALIGNED)):
        raise ValueError(f"{name} must be native and aligned {TYPES[type_]}, got {(<object> array).dtype!r}")
    if writable and not cnp.PyArray_CHKFLAGS(array, cnp.NPY_ARRAY_WRITEABLE):
        raise ValueError(f"{name} must be writable")
    for i in range(cnp.PyArray_NDIM(array)):
        if cnp.PyArray_DIM(array, i) > 1 and cnp.PyArray_SIZE(array) > 0 and (
                cnp.PyArray_STRIDE(array, i) % size or writable and cnp.PyArray_STRIDE(array, i) == 0):
            raise ValueError(f"{name} has an unusable stride of 0 bytes or of a part of an element: strides "
                             f"{(<object> array).strides}")
    return 0


cdef int float_type(str name, cnp.ndarray array) except -1:
    if cnp.PyArray_TYPE(array) != cnp.NPY_FLOAT and cnp.PyArray_TYPE(array) != cnp.NPY_DOUBLE:
        raise ValueError(f"{name} must be float32 or float64, got {(<object> array).dtype!r}")
    return cnp.PyArray_TYPE(array)


# Its data: `count` of them side by side.
cdef void* contiguous(str name, cnp.ndarray array, int type_, Py_ssize_t count) except? NULL:
    check_plain(name, array, type_, False)
    if not cnp.PyArray_IS_C_CONTIGUOUS(array) or cnp.PyArray_SIZE(array) != count:
        raise ValueError(f"{name} must be {count} contiguous {TYPES[type_]}, got shape {(<object> array).shape}")
    return cnp.PyArray_DATA(array)
