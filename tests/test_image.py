"""correlate and convolve, against scipy's results (stored, so that scipy is not needed)."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

import fastconv
from fastconv.backends import cython_native
from fastconv.image import BOUNDARIES, ELSEWHERE, _planes

STORED = np.load(Path(__file__).parent / "data" / "reference.npz")
IMAGE, ODD, EVEN = STORED["image/image"], STORED["image/odd"], STORED["image/even"]
KERNELS = {"odd": ODD, "even": EVEN}
NDIMAGE = {"constant": "constant", "reflect": "symmetric", "mirror": "reflect", "nearest": "edge", "wrap": "wrap"}


NUMPY = {"zeros": "constant", "constant": "constant"}  # what numpy.pad calls a boundary, where it has another word


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-12)


def by_loops(image, kernel, low, high, boundary, fill=0):
    """correlate by numpy.pad and loops, in float64: the image continued by `low` and `high` elements per axis."""
    keywords = {"constant_values": fill} if NUMPY.get(boundary) else {}
    padded = np.pad(np.array(image, np.float64), list(zip(low, high)), NUMPY.get(boundary, boundary), **keywords)
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel.shape)
    y = np.zeros(windows.shape[:kernel.ndim])
    for index in np.ndindex(y.shape):
        y[index] = sum(float(a) * float(b) for a, b in zip(windows[index].ravel(), kernel.ravel()))
    return y


@pytest.mark.parametrize("size", KERNELS)
@pytest.mark.parametrize("mode", ["same", "valid", "full"])
def test_as_scipy_signal(size, mode):
    close(fastconv.correlate(IMAGE, KERNELS[size], mode), STORED[f"image/correlate {size} {mode}"])
    close(fastconv.convolve(IMAGE, KERNELS[size], mode), STORED[f"image/convolve {size} {mode}"])


@pytest.mark.parametrize("size", KERNELS)
@pytest.mark.parametrize("mode", NDIMAGE)
def test_as_scipy_ndimage(size, mode):
    fill = {"fill": 0.5} if mode == "constant" else {}
    close(fastconv.correlate(IMAGE, KERNELS[size], boundary=NDIMAGE[mode], **fill), STORED[f"image/ndimage {size} {mode}"])


def test_as_scipy_itself(rng):
    signal = pytest.importorskip("scipy.signal")
    for n, k in (((17,), (4,)), ((9, 8), (3, 3)), ((5, 6, 7), (2, 3, 1))):
        image, kernel = rng.standard_normal(n), rng.standard_normal(k)
        for mode in ("same", "valid", "full"):
            close(fastconv.correlate(image, kernel, mode), signal.correlate(image, kernel, mode, method="direct"))
            close(fastconv.convolve(image, kernel, mode), signal.convolve(image, kernel, mode, method="direct"))


@pytest.mark.parametrize("size", KERNELS)
@pytest.mark.parametrize("mode", NDIMAGE)
def test_origin_as_scipy_ndimage(mode, size):
    ndimage = pytest.importorskip("scipy.ndimage")
    kernel = KERNELS[size]
    for origin in (0, -1, (1, 0), (-1, -1)):
        for function in ("correlate", "convolve"):
            expected = getattr(ndimage, function)(IMAGE, kernel, mode=mode, origin=origin)
            close(getattr(fastconv, function)(IMAGE, kernel, boundary=NDIMAGE[mode], origin=origin), expected)


def test_correlate2d_has_another_centre():
    signal = pytest.importorskip("scipy.signal")
    close(fastconv.correlate(IMAGE, EVEN, origin=-1), signal.correlate2d(IMAGE, EVEN, "same"))


CONSTANT = dict(boundary="constant", fill=5)
TABLE = {  # the left column of README's table: function, what it is in terms of by_loops
    "scipy.ndimage.correlate(im, k)": dict(boundary="symmetric"),
    'scipy.ndimage.correlate(im, k, mode="mirror")': dict(boundary="reflect"),
    'scipy.ndimage.correlate(im, k, mode="nearest")': dict(boundary="edge"),
    'scipy.ndimage.correlate(im, k, mode="constant", cval=5)': CONSTANT,
    "scipy.ndimage.correlate1d(im, v, axis=1)": dict(boundary="symmetric", kernel="v[None]"),
    'scipy.ndimage.convolve(im, k, mode="wrap")': dict(boundary="wrap", flip=True, low=lambda k: (k - 1) // 2),
    "scipy.signal.correlate(im, k)": dict(boundary="zeros", low=lambda k: k - 1, high=lambda k: k - 1),
    'scipy.signal.convolve(im, k, "same")': dict(boundary="zeros", flip=True),
    'scipy.signal.convolve2d(im, k, "same", "symm")': dict(boundary="symmetric", flip=True),
    'scipy.signal.correlate2d(im, k, "full", "fill", 5)': dict(CONSTANT, low=lambda k: k - 1, high=lambda k: k - 1),
    "numpy.convolve(s, v)": dict(boundary="zeros", image="s", kernel="v", flip=True, low=lambda k: k - 1, high=lambda k: k - 1),
    "cv2.filter2D(im, -1, k)": dict(boundary="reflect"),
    "cv2.filter2D(im, -1, k, borderType=cv2.BORDER_REFLECT)": dict(boundary="symmetric"),
    "cv2.filter2D(im, -1, k, borderType=cv2.BORDER_CONSTANT)": dict(boundary="zeros"),
    "skimage.filters.correlate_sparse(im, k)": dict(boundary="symmetric", only_odd=True)}


def rows_of_the_readme():
    """{what another library calls: what fastconv calls}, as README's table has them."""
    text = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1:3] for line in text.partition("| there | here |")[2].partition("\n\n")[0].splitlines()[2:]]
    return {there.split("`")[1]: here.split("`")[1] for there, here in rows}


ROWS = rows_of_the_readme()


def names(size, dtype, rng):
    """What the table's expressions speak of: integers, so that float32 is exact."""
    kernel = {"odd": (3, 5), "even": (4, 2)}[size]
    shapes = {"im": (9, 8), "k": kernel, "s": (19,), "v": kernel[:1]}
    return {name: rng.integers(-8, 9, shape).astype(dtype) for name, shape in shapes.items()}


def test_the_readmes_table_is_tested():
    assert set(ROWS) == set(TABLE)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", KERNELS)
@pytest.mark.parametrize("there", TABLE)
def test_calls_of_other_libraries(there, size, dtype, rng):
    """Each row of README's table against loops, and against the library itself where it is installed."""
    row, given = TABLE[there], names(size, dtype, rng)
    actual = eval(ROWS[there], {"correlate": fastconv.correlate, "convolve": fastconv.convolve}, given)
    assert actual.dtype == dtype
    kernel = eval(row.get("kernel", "k"), None, given)
    low = [row.get("low", lambda k: k // 2)(k) for k in kernel.shape]
    high = [row["high"](k) if "high" in row else k - 1 - n for k, n in zip(kernel.shape, low)]
    flipped = np.flip(kernel) if row.get("flip") else kernel
    expected = by_loops(given[row.get("image", "im")], flipped, low, high, row["boundary"], row.get("fill", 0))
    np.testing.assert_array_equal(actual, expected)
    if size == "even" and row.get("only_odd"):
        return
    library, _, function = there.partition("(")[0].rpartition(".")
    pytest.importorskip(library)
    close(eval(there, {library.partition(".")[0]: __import__(library)}, given), expected)


def test_as_numpy_in_one_dimension(rng):
    signal, kernel = rng.standard_normal(20), rng.standard_normal(6)
    for mode in ("same", "valid", "full"):
        close(fastconv.convolve(signal, kernel, mode), np.convolve(signal, kernel, mode))
    for mode in ("valid", "full"):
        close(fastconv.correlate(signal, kernel, mode), np.correlate(signal, kernel, mode))


@pytest.mark.parametrize("boundary", ["reflect", "symmetric", "edge", "wrap"])
def test_boundaries_are_numpys(boundary):
    padded = np.pad(IMAGE, [(1, 1), (2, 2)], mode=boundary)
    close(fastconv.correlate(IMAGE, ODD, boundary=boundary), fastconv.correlate(padded, ODD, "valid"))


def test_colour_images_filter_each_channel(rng):
    image = rng.standard_normal((8, 9, 3)).astype(np.float32)
    kernel = rng.standard_normal((3, 3)).astype(np.float32)
    y = fastconv.correlate(image, kernel)
    assert y.shape == image.shape and y.dtype == np.float32 and y.flags.c_contiguous
    for c in range(3):
        np.testing.assert_allclose(y[..., c], fastconv.correlate(image[..., c], kernel), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mode, boundary, fill", [
    *(("same", boundary, 0) for boundary in BOUNDARIES), ("full", "constant", 3), ("full", "wrap", 0), ("valid", "zeros", 0)])
@pytest.mark.parametrize("size, kernel_size", [
    ((9, 11, 3), (3, 5)), ((2, 3, 4), (4, 7)), ((12, 5, 2, 2), (2, 2)), ((17, 3), (4,)), ((5, 6, 7, 3), (3, 2, 3)),
    ((20, 41, 3), (33, 34)), ((6, 7, 1), (3, 3))])
def test_colours_side_by_side(size, kernel_size, mode, boundary, fill, rng):
    image, kernel = rng.integers(0, 9, size), rng.integers(-4, 5, kernel_size).astype(np.float32)
    if mode == "valid" and any(k > n for k, n in zip(kernel_size, size)):
        return
    low = [{"same": k // 2, "full": k - 1, "valid": 0}[mode] for k in kernel_size]
    high = [{"same": k - 1 - k // 2, "full": k - 1, "valid": 0}[mode] for k in kernel_size]
    for view in (image, image[::-1], image[..., ::-1], image[1:], np.asfortranarray(image)):
        if mode == "valid" and len(view) < kernel_size[0]:
            continue
        expected = np.empty((*(n + a + b - k + 1 for n, a, b, k in zip(view.shape, low, high, kernel_size)),
                             *view.shape[kernel.ndim:]))
        for colour in np.ndindex(view.shape[kernel.ndim:]):
            plane = view[(..., *colour)]
            expected[(..., *colour)] = fastconv.correlate(plane.astype(float), kernel, mode, boundary, fill, backend="im2col")
        for dtype in (np.float32, np.uint8):
            y = fastconv.correlate(view.astype(dtype, order="K"), kernel, mode, boundary, fill)
            np.testing.assert_allclose(y, expected, rtol=1e-4, atol=2e-2 if kernel.size > 1000 else 1e-4)
            out = np.full(y.shape[::-1], np.nan, np.float32).T
            fastconv.correlate(view.astype(dtype, order="K"), kernel, mode, boundary, fill, out=out)
            np.testing.assert_allclose(out, expected, rtol=1e-4, atol=2e-2 if kernel.size > 1000 else 1e-4)


@pytest.mark.parametrize("k", [3, 7, 21])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_stays_in_its_colour(value, k):
    image = np.ones((50, 50, 3), np.float32)
    image[25, 25, 1] = value
    finite = np.isfinite(fastconv.correlate(image, np.ones((k, k), np.float32), boundary="edge"))
    reach = slice(25 - k // 2, 26 + k // 2)
    assert not finite[reach, reach, 1].any() and (~finite).sum() == k * k


def test_colours_may_be_overwritten(rng):
    image = rng.integers(0, 9, (9, 8, 3)).astype(np.float32)
    expected = fastconv.correlate(image, ODD.astype(np.float32), boundary="edge")
    assert fastconv.correlate(image, ODD.astype(np.float32), boundary="edge", out=image) is image
    np.testing.assert_array_equal(image, expected)


def test_axes(rng):
    image, kernel = rng.standard_normal((2, 7, 3, 8)), rng.standard_normal((3, 2))
    y = fastconv.correlate(image, kernel, axes=(1, 3))
    for i, j in np.ndindex(2, 3):
        close(y[i, :, j], fastconv.correlate(image[i, :, j], kernel))
    close(fastconv.correlate(image, kernel, axes=(-3, -1)), y)
    close(fastconv.correlate(image, kernel.T, axes=(3, 1)), y)  # the kernel's axes in that order
    close(fastconv.correlate(image, kernel[0], axes=1)[0, :, 0, 0], fastconv.correlate(image[0, :, 0, 0], kernel[0]))


def test_fill(rng):
    expected = fastconv.correlate(np.pad(IMAGE, [(1, 1), (2, 2)], constant_values=-1.5), ODD, "valid")
    close(fastconv.correlate(IMAGE, ODD, boundary="constant", fill=-1.5), expected)
    close(fastconv.correlate(IMAGE, ODD, boundary="constant"), fastconv.correlate(IMAGE, ODD))
    for fill in (2, True, np.uint8(3), np.float32(0.5), np.float64(-4)):  # no number widens the result
        y = fastconv.correlate(IMAGE.astype(np.float32), ODD.astype(np.float32), boundary="constant", fill=fill)
        assert y.dtype == np.float32
        close(y, by_loops(IMAGE, ODD, (1, 2), (1, 2), "constant", fill))


@pytest.mark.parametrize("fill", [np.nan, np.inf, -np.inf])
def test_a_fill_that_is_not_finite_reaches_what_touches_the_border(fill):
    for image in (IMAGE, IMAGE.astype(np.float32), (IMAGE * 8).astype(np.int16)):
        y = fastconv.correlate(image, [[1, 1, 1]] * 3, boundary="constant", fill=fill)
        inner = (slice(1, -1), slice(1, -1))
        np.testing.assert_allclose(y[inner], fastconv.correlate(image, [[1, 1, 1]] * 3)[inner], rtol=1e-5)
        y[inner] = fill
        np.testing.assert_array_equal(y, np.full(y.shape, fill))


@pytest.mark.parametrize("fill, boundary, error, part", [
    (1, "zeros", ValueError, "fill must go with boundary='constant', got fill=1 and boundary='zeros'"),
    (np.nan, "reflect", ValueError, "fill must go with boundary='constant', got fill=nan and boundary='reflect'"),
    (1e300, "constant", ValueError, "fill must be a number that the result's dtype float32 holds, got 1e+300"),
    (-10**400, "constant", ValueError, "fill must be a number that the result's dtype float32 holds, got "),
    (None, "constant", TypeError, "fill must be one real number, got None"),
    (None, "zeros", TypeError, "fill must be one real number, got None"),
    ([1, 2], "constant", TypeError, "fill must be one real number, got [1, 2]"),
    (np.ones(3), "constant", TypeError, "fill must be one real number, got array("),
    ("edge", "constant", TypeError, "fill must be one real number, got 'edge'"),
    (1j, "constant", TypeError, "fill must be one real number, got 1j"),
])
def test_errors_of_fill(fill, boundary, error, part):
    with pytest.raises(error) as caught:
        fastconv.correlate(IMAGE.astype(np.float32), np.float32(ODD), boundary=boundary, fill=fill)
    assert str(caught.value).startswith(part) and len(str(caught.value)) < 300


def test_float64_holds_what_float32_does_not():
    assert fastconv.correlate(np.zeros(3), [1, 0, 0], boundary="constant", fill=1e300)[0] == 1e300


def test_fill_is_not_rounded_to_the_images_dtype():
    image = np.zeros((3, 3), np.uint8)
    y = fastconv.correlate(image, np.ones((3, 3)), boundary="constant", fill=-0.5)
    assert y.dtype == np.float64 and y[0, 0] == -2.5


SOBEL = [[1, 0, -1], [2, 0, -2], [1, 0, -1]]
SMALL = (np.bool_, np.int8, np.uint8, np.int16, np.uint16)
LARGE = (np.int32, np.uint32, np.int64, np.uint64)


@pytest.mark.parametrize("dtype", SMALL + LARGE)
def test_integers_give_floats(dtype, rng):
    image = rng.integers(0, 2, (7, 8)).astype(dtype)
    expected = by_loops(image, np.array(SOBEL), (1, 1), (1, 1), "edge")
    wanted = np.float32 if dtype in SMALL else np.float64
    for kernel in (SOBEL, tuple(map(tuple, SOBEL)), np.array(SOBEL), np.array(SOBEL, np.int8), np.array(SOBEL, np.int16)):
        y = fastconv.correlate(image, kernel, boundary="edge")
        assert y.dtype == wanted
        np.testing.assert_array_equal(y, expected)
        np.testing.assert_array_equal(fastconv.convolve(image, kernel, boundary="edge"), -expected)
    for kernel in (np.array(SOBEL, np.float32), np.array(SOBEL, np.float64)):  # with a floating kernel, as NumPy does it
        assert fastconv.correlate(image, kernel).dtype == np.result_type(dtype, kernel)


def test_lists_follow_the_image():
    for kernel in ([[0.25, 0.5]], [[1, 2]], ((1, 2.5),), [np.float64([1, 2])]):
        assert fastconv.correlate(np.ones((4, 5), np.float32), kernel).dtype == np.float32
        assert fastconv.correlate(np.ones((4, 5)), kernel).dtype == np.float64
        assert fastconv.correlate(np.ones((4, 5), np.uint8), kernel).dtype == np.float32
        assert fastconv.correlate(np.ones((4, 5), int), kernel).dtype == np.float64
    assert fastconv.correlate([1, 2, 3], [1, 1]).tolist() == [1.0, 3.0, 5.0]
    assert fastconv.correlate([1, 2, 3], np.float32([1, 1])).dtype == np.float64  # an image that is a list is NumPy's
    assert fastconv.correlate(np.ones((4, 4), np.float32), np.ones((2, 2), int)).dtype == np.float64


@pytest.mark.parametrize("image, kernel, error, part", [
    (np.ones((4, 4), np.float16), SOBEL, TypeError, "image and kernel must promote to float32 or float64, got float16 and a "
                                                   "list: pass image.astype(np.float32)"),
    (np.ones((4, 4), np.uint8), np.ones((2, 2), np.float16), TypeError, "pass kernel.astype(np.float32)"),
    (np.ones((4, 4), complex), SOBEL, TypeError, "image must be of a real dtype of at most 64 bits, got complex128"),
    (None, np.ones((2, 2), np.complex64), TypeError, "kernel must be of a real dtype of at most 64 bits, got complex64"),
    (None, [[1j, 2]], TypeError, "kernel must be of a real dtype of at most 64 bits, got complex128"),
    (np.ones((4, 4), np.longdouble), SOBEL, TypeError, "image must be of a real dtype of at most 64 bits, got "),
    (np.zeros((4, 4), "M8[s]"), SOBEL, TypeError, "image must be of a real dtype of at most 64 bits, got datetime64[s]"),
    (None, np.zeros((4, 4), "m8[s]"), TypeError, "kernel must be of a real dtype of at most 64 bits, got timedelta64[s]"),
    (np.zeros((4, 4), [("r", "f4")]), SOBEL, TypeError, "image must be of a real dtype of at most 64 bits, got [('r'"),
    (np.ones((4, 4), object), SOBEL, TypeError, "image must be numeric, got ndarray"),
    (None, np.ones((4, 4), object), TypeError, "kernel must be numeric, got ndarray"),
    ("photo.png", SOBEL, TypeError, "image must be of a real dtype of at most 64 bits, got <U9"),
    (None, None, TypeError, "kernel must be numeric, got NoneType"),
    (np.ma.ones((4, 4)), SOBEL, TypeError, "image is a masked array"),
    (None, np.ma.ones((2, 2)), TypeError, "kernel is a masked array"),
    (None, [[1, 2], [3]], TypeError, "kernel must be an array, got list"),
    ([[1, 2], [3]], SOBEL, TypeError, "image must be an array, got list"),
    (None, 3, ValueError, "kernel must have 1, 2 or 3 axes and not be empty, got shape ()"),
    (None, [], ValueError, "kernel must have 1, 2 or 3 axes and not be empty, got shape (0,)"),
    (np.float64(3), [1], ValueError, "image must have at least as many axes as the kernel (1), got shape ()"),
    (np.ones((0, 4)), SOBEL, ValueError, "image must not be empty along the axes of the kernel, (0, 1), got shape (0, 4)"),
    (np.ones((4, 0), np.uint8), SOBEL, ValueError, "image must not be empty along the axes of the kernel"),
    ([], [1], ValueError, "image must not be empty"),
])
def test_errors_name_image_and_kernel(image, kernel, error, part):
    for function in (fastconv.correlate, fastconv.convolve):
        with pytest.raises(error) as caught:
            function(np.ones((4, 4)) if image is None else image, kernel)
        message = str(caught.value)
        assert part in message and "input" not in message and "weight" not in message and len(message) < 300


# ---- borders

@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("mode", ["same", "full"])
@pytest.mark.parametrize("image_size, kernel_size", [
    ((1,), (7,)), ((2,), (9,)), ((3,), (8,)), ((5,), (40,)), ((1, 1), (4, 3)), ((2, 3), (7, 8)), ((3, 1), (2, 6)),
    ((4, 9), (11, 3)), ((3, 3), (21, 20)), ((2, 1, 3), (5, 4, 3))])
def test_a_kernel_larger_than_the_image(image_size, kernel_size, mode, boundary, rng):
    """The border goes around the image several times, as numpy.pad does it."""
    image, kernel = rng.integers(-8, 9, image_size).astype(float), rng.integers(-8, 9, kernel_size).astype(float)
    low = [k - 1 if mode == "full" else k // 2 for k in kernel_size]
    high = [k - 1 if mode == "full" else k - 1 - k // 2 for k in kernel_size]
    fill = {"fill": 3} if boundary == "constant" else {}
    expected = by_loops(image, kernel, low, high, boundary, **fill)
    close(fastconv.correlate(image, kernel, mode, boundary, **fill), expected)
    close(fastconv.convolve(image, np.flip(kernel), mode, boundary, **fill), expected)


STRIDES = {
    "reversed rows": lambda a: a[::-1], "reversed columns": lambda a: a[:, ::-1], "both reversed": lambda a: a[::-1, ::-1],
    "transposed": lambda a: a.T, "Fortran": np.asfortranarray, "every second": lambda a: a[::2, 1::2],
    "backward, every third": lambda a: a[::-3, ::-2], "byte-swapped": lambda a: a.astype(a.dtype.newbyteorder()),
    "one row": lambda a: np.broadcast_to(a[3], a.shape), "one column": lambda a: np.broadcast_to(a[:, :1], a.shape),
    "unaligned": lambda a: np.frombuffer(b"." + a.tobytes(), np.uint8)[1:].view(a.dtype).reshape(a.shape)}


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("strides", STRIDES)
def test_any_strides(strides, boundary, backend, rng):
    whole = rng.integers(0, 9, (13, 20))
    kernel = rng.integers(-4, 5, (3, 5))
    expected = by_loops(STRIDES[strides](whole), kernel, (1, 2), (1, 2), boundary)
    for dtype in (np.float32, np.float64, np.uint8, np.int32):
        image = STRIDES[strides](whole.astype(dtype))
        for w in (kernel.astype(np.float32), np.flip(np.flip(kernel).astype(np.float32)), kernel.tolist()):
            np.testing.assert_array_equal(fastconv.correlate(image, w, boundary=boundary, backend=backend), expected)


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_backward_images_of_every_size(dtype, boundary, rng):
    for size, k in ((4, 3), (7, 3), (9, 5), (17, 3), (33, 2), (40, 7)):
        image, kernel = rng.integers(0, 9, (size, size + 1)).astype(dtype), rng.integers(-4, 5, (k, k)).astype(dtype)
        for view in (image[::-1], image[:, ::-1], image[::-1, ::-1], image.T[::-1]):
            expected = fastconv.correlate(view.copy(), kernel, boundary=boundary)
            np.testing.assert_array_equal(fastconv.correlate(view, kernel, boundary=boundary), expected)


def test_an_image_is_not_copied():
    image = np.ones((6, 7))
    for view in (image, image[::-1], image.T, image[1:, ::2], np.ones((5, 6, 3)), np.ones((2, 5, 6)).transpose(2, 0, 1)):
        assert np.shares_memory(_planes(view, (0, 1)), view)
    volume = np.ones((3, 4, 5))
    assert all(np.shares_memory(_planes(volume, (axis,)), volume) for axis in (0, 2))


# ---- origin, out, backend, algorithm, accuracy

@pytest.mark.parametrize("size", KERNELS)
def test_origin(size, rng):
    kernel = KERNELS[size]
    ranges = [range(-(k // 2), (k - 1) // 2 + 1) for k in kernel.shape]
    for origin in itertools.product(*ranges):
        for boundary in ("edge", "reflect"):
            low = [k // 2 + o for k, o in zip(kernel.shape, origin)]
            high = [k - 1 - n for k, n in zip(kernel.shape, low)]
            expected = by_loops(IMAGE, kernel, low, high, boundary)
            close(fastconv.correlate(IMAGE, kernel, boundary=boundary, origin=origin), expected)
            close(fastconv.correlate(IMAGE.T, kernel, boundary=boundary, origin=origin, axes=(1, 0)), expected.T)
            low = [(k - 1) // 2 - o for k, o in zip(kernel.shape, origin)]  # the flipped kernel's centre, moved the other way
            high = [k - 1 - n for k, n in zip(kernel.shape, low)]
            expected = by_loops(IMAGE, np.flip(kernel), low, high, boundary)
            close(fastconv.convolve(IMAGE, kernel, boundary=boundary, origin=list(origin)), expected)
    close(fastconv.correlate(IMAGE, kernel, origin=0), fastconv.correlate(IMAGE, kernel))
    close(fastconv.correlate(IMAGE, kernel, origin=np.int64(-1)), fastconv.correlate(IMAGE, kernel, origin=(-1, -1)))
    close(fastconv.correlate(IMAGE, kernel, "valid", origin=0), fastconv.correlate(IMAGE, kernel, "valid"))


@pytest.mark.parametrize("mode, boundary, fill", [("same", "zeros", 0), ("full", "constant", 2), ("valid", "zeros", 0),
                                                  ("same", "symmetric", 0)])
def test_out(mode, boundary, fill):
    expected = fastconv.correlate(IMAGE, ODD, mode, boundary, fill)
    n, m = expected.shape
    for out in (np.empty((n, m)), np.empty((n, m), order="F"), np.empty((2 * n, 2 * m))[::2, ::2], np.empty((n, m))[::-1, ::-1],
                np.empty((m, n)).T, np.empty((n, m), np.dtype(float).newbyteorder())):
        out[...] = np.nan
        assert fastconv.correlate(IMAGE, ODD, mode, boundary, fill, out=out) is out
        np.testing.assert_array_equal(out, expected)


def test_out_across_axes_that_cannot_be_merged(rng):
    image, kernel = rng.integers(-4, 5, (2, 7, 3, 8)).astype(float), rng.integers(-4, 5, (3, 2)).astype(float)
    expected = fastconv.correlate(image, kernel, axes=(1, 3))
    for out in (np.full(image.shape, np.nan), np.full(image.shape[::-1], np.nan).T):
        assert fastconv.correlate(image, kernel, axes=(1, 3), out=out) is out
        np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("function", [fastconv.correlate, fastconv.convolve])
def test_out_may_overlap(function):
    for view in (lambda a: a, lambda a: a[::-1], lambda a: a.T, lambda a: a[1:, 2:]):
        image = IMAGE.copy()
        read = view(image)
        written = image[:read.shape[0], :read.shape[1]] if read.shape <= image.shape else read
        expected = function(read.copy(), ODD, boundary="wrap")
        np.testing.assert_array_equal(function(read, ODD, boundary="wrap", out=written), expected)
    kernel = np.arange(9.0).reshape(3, 3)
    expected = function(IMAGE[:3, :3].copy(), kernel.copy())
    np.testing.assert_array_equal(function(IMAGE[:3, :3], kernel, out=kernel), expected)


def test_backend_algorithm_and_accuracy(backend):
    expected = by_loops(IMAGE, ODD, (1, 2), (1, 2), "edge")
    close(fastconv.correlate(IMAGE, ODD, boundary="edge", backend=backend), expected)
    close(fastconv.correlate(IMAGE, ODD, boundary="edge", backend=backend, accuracy="strict"), expected)
    close(fastconv.convolve(IMAGE, np.flip(ODD), boundary="edge", backend="im2col", algorithm="im2col"), expected)
    with pytest.raises(ValueError, match="nosuch"):
        fastconv.correlate(IMAGE, ODD, backend="nosuch")
    with pytest.raises(ValueError, match="accuracy must be one of"):
        fastconv.convolve(IMAGE, ODD, accuracy="exact")


def test_a_faint_background_beside_a_star():
    """What the docstring says of accuracy="strict"."""
    image = np.ones((64, 64), np.float32)
    image[20, 20] = 1e8
    box = np.full((15, 15), 1 / 225, np.float32)
    far = np.ones(image.shape, bool)
    far[13:28, 13:28] = False  # here the star is in the box
    y = fastconv.correlate(image, box, boundary="edge", accuracy="strict")
    assert np.abs(y - 1)[far].max() < 1e-5


@pytest.mark.parametrize("boundary", ["symmetric", "reflect", "edge", "wrap"])
def test_a_derivative_of_a_flat_image_is_zero(boundary):
    """What the docstring says of accuracy="strict"."""
    if cython_native.backend.unavailable():
        pytest.skip("promised by the native kernels")
    derivative, smooth = np.array([0.3, 0.7, 0, -0.7, -0.3]), np.array([0.1, 0.2, 0.4, 0.2, 0.1])
    for kernel in (derivative, np.outer(derivative, smooth), np.outer(smooth, derivative), np.array(SOBEL) / 8):
        for image in (np.full((21, 34), 0.1), np.full((7, 40), 1 / 3, np.float32), np.full((33, 9), 200, np.uint8)):
            for function in (fastconv.correlate, fastconv.convolve):
                assert not function(image, kernel.tolist(), boundary=boundary, accuracy="strict").any()


def test_type_in_type_out():
    torch = pytest.importorskip("torch")
    for kernel in (torch.tensor(ODD), ODD.tolist()):
        y = fastconv.convolve(torch.tensor(IMAGE), kernel)
        assert isinstance(y, torch.Tensor) and y.dtype == torch.float64 and y.is_contiguous()
        close(y.numpy(), fastconv.convolve(IMAGE, ODD))
    out = torch.full((9, 8), torch.nan).T
    assert fastconv.convolve(torch.tensor(IMAGE * 8).to(torch.uint8), ODD.tolist(), boundary="constant", fill=2, out=out) is out
    close(out.numpy(), fastconv.convolve((IMAGE * 8).astype(int).astype(np.uint8), ODD.tolist(), boundary="constant", fill=2))
    with pytest.raises(TypeError, match="image is torch on cpu, kernel is numpy on cpu"):
        fastconv.correlate(torch.tensor(IMAGE), ODD)


def test_empty_stack():
    assert fastconv.correlate(np.ones((5, 6, 0)), np.ones((3, 3))).shape == (5, 6, 0)


@pytest.mark.parametrize("arguments, keywords, parts", [
    ((IMAGE, ODD, "middle"), {}, ("mode", "'middle'", "same")),
    ((IMAGE, ODD), {"boundary": "mirror"}, ("boundary", "'mirror'", "symmetric")),
    ((IMAGE, np.ones((2, 2, 2))), {}, ("image", "(8, 9)")),
    ((IMAGE, np.ones((1, 1, 1, 1))), {}, ("kernel", "(1, 1, 1, 1)")),
    ((IMAGE, np.ones((0, 2))), {}, ("kernel", "(0, 2)")),
    ((IMAGE, ODD), {"axes": (0, 0)}, ("axes", "(0, 0)")),
    ((IMAGE, ODD), {"axes": (0, 2)}, ("axes", "(0, 2)")),
    ((IMAGE, ODD), {"axes": 0}, ("axes", "0")),
    ((IMAGE, ODD), {"axes": (0, 1, 0)}, ("axes", "(0, 1, 0)")),
    ((IMAGE[:2], ODD, "valid"), {}, ("kernel", "'valid'", "axis 0", "spans 3", "has 2")),
    ((IMAGE, ODD), {"origin": 3}, ("origin", "-1 to 1", "3 elements", "got 3")),
    ((IMAGE, ODD), {"origin": (0, -3)}, ("origin", "-2 to 2", "got (0, -3)")),
    ((IMAGE, EVEN), {"origin": (2, 0)}, ("origin", "-2 to 1", "got (2, 0)")),
    ((IMAGE, ODD), {"origin": (0, 0, 0)}, ("origin", "2 of them", "got (0, 0, 0)")),
    ((IMAGE, ODD, "valid"), {"origin": 1}, ("origin", "'same'", "'valid'", "origin=1")),
    ((IMAGE, ODD, "full"), {"origin": (0, 1)}, ("origin", "'same'", "'full'", "origin=(0, 1)")),
    ((IMAGE, ODD), {"out": np.zeros((8, 8))}, ("out", "(8, 9)", "(8, 8)")),
    ((IMAGE, ODD, "full"), {"out": np.zeros((8, 9))}, ("out", "(10, 13)", "(8, 9)")),
    ((IMAGE, ODD), {"out": np.broadcast_to(0.0, (8, 9))}, ("out", "writeable")),
])
def test_errors(arguments, keywords, parts):
    for function in (fastconv.correlate, fastconv.convolve):
        with pytest.raises(ValueError) as caught:
            function(*arguments, **keywords)
        for part in parts:
            assert part in str(caught.value)


@pytest.mark.parametrize("keywords, part", [
    ({"origin": 0.5}, "origin must be an integer or several of them, got 0.5"),
    ({"origin": True}, "origin must be an integer or several of them, got True"),
    ({"origin": "0"}, "origin must be an integer or several of them, got '0'"),
    ({"origin": (0, None)}, "origin must be an integer or several of them, got (0, None)"),
    ({"axes": 1.0}, "axes must be an integer or several of them, got 1.0"),
    ({"axes": "01"}, "axes must be an integer or several of them, got '01'"),
    ({"out": np.zeros((8, 9), np.float32)}, "out must have the result's dtype float64, got float32"),
    ({"out": [[0]]}, "out must be an array to write into, got list"),
])
def test_errors_of_type(keywords, part):
    with pytest.raises(TypeError) as caught:
        fastconv.correlate(IMAGE, ODD, **keywords)
    assert str(caught.value) == part


@pytest.mark.parametrize("word", ELSEWHERE)
def test_a_boundary_by_another_librarys_name(word):
    whose, ours = ELSEWHERE[word]
    with pytest.raises(ValueError) as caught:
        fastconv.correlate(IMAGE, ODD, boundary=word)
    known = ", ".join(BOUNDARIES)
    assert ours in BOUNDARIES
    assert str(caught.value) == f"boundary must be one of {known}, got {word!r}; {whose}'s {word!r} is {ours!r} here"


def test_opencvs_numbers():
    cv2 = pytest.importorskip("cv2")
    for word, (whose, ours) in ELSEWHERE.items():
        if str(word).startswith("BORDER"):
            assert whose == "OpenCV" and ELSEWHERE[getattr(cv2, word)][1] == ours


@pytest.mark.parametrize("mode, boundary", [
    ("reflect", "symmetric"), ("mirror", "reflect"), ("constant", "constant"), ("nearest", "edge"), ("grid-wrap", "wrap"),
    ("wrap", "wrap"), ("symm", "symmetric"), ("edge", "edge")])
def test_a_boundary_given_as_mode(mode, boundary):
    with pytest.raises(ValueError, match=f"mode must be one of same, valid, full, got '{mode}'; how the image is continued is "
                                         f"boundary='{boundary}' here"):
        fastconv.correlate(IMAGE, ODD, mode=mode)


@pytest.mark.parametrize("value", [None, [], {}, 5, "linear_ramp", np.ones(3), "x" * 10000, 10**400])
def test_words_that_nobody_knows(value):
    for name in ("mode", "boundary"):
        with pytest.raises(ValueError, match=f"^{name} must be one of ") as caught:
            fastconv.correlate(IMAGE, ODD, **{name: value})
        assert len(str(caught.value)) < 300 and ";" not in str(caught.value)
