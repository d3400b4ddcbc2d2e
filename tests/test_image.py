"""correlate and convolve, against scipy's results (stored, so that scipy is not needed)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import fastconv

STORED = np.load(Path(__file__).parent / "data" / "reference.npz")
IMAGE, ODD, EVEN = STORED["image/image"], STORED["image/odd"], STORED["image/even"]
KERNELS = {"odd": ODD, "even": EVEN}
NDIMAGE = {"constant": "constant", "reflect": "symmetric", "mirror": "reflect", "nearest": "edge", "wrap": "wrap"}


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", KERNELS)
@pytest.mark.parametrize("mode", ["same", "valid", "full"])
def test_as_scipy_signal(size, mode):
    close(fastconv.correlate(IMAGE, KERNELS[size], mode), STORED[f"image/correlate {size} {mode}"])
    close(fastconv.convolve(IMAGE, KERNELS[size], mode), STORED[f"image/convolve {size} {mode}"])


@pytest.mark.parametrize("size", KERNELS)
@pytest.mark.parametrize("mode", NDIMAGE)
def test_as_scipy_ndimage(size, mode):
    close(fastconv.correlate(IMAGE, KERNELS[size], boundary=NDIMAGE[mode], fill=0.5), STORED[f"image/ndimage {size} {mode}"])


def test_as_scipy_itself(rng):
    signal = pytest.importorskip("scipy.signal")
    for n, k in (((17,), (4,)), ((9, 8), (3, 3)), ((5, 6, 7), (2, 3, 1))):
        image, kernel = rng.standard_normal(n), rng.standard_normal(k)
        for mode in ("same", "valid", "full"):
            close(fastconv.correlate(image, kernel, mode), signal.correlate(image, kernel, mode, method="direct"))
            close(fastconv.convolve(image, kernel, mode), signal.convolve(image, kernel, mode, method="direct"))


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
        np.testing.assert_array_equal(y[..., c], fastconv.correlate(image[..., c], kernel))


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
    close(fastconv.correlate(IMAGE, ODD, boundary="zeros", fill=7), fastconv.correlate(IMAGE, ODD))


def test_fill_is_not_rounded_to_the_images_dtype():
    image = np.zeros((3, 3), np.uint8)
    y = fastconv.correlate(image, np.ones((3, 3)), boundary="constant", fill=-0.5)
    assert y.dtype == np.float64 and y[0, 0] == -2.5


def test_integer_images_promote():
    y = fastconv.correlate(np.ones((4, 4), np.uint8), np.ones((2, 2), np.float32), "valid")
    assert y.dtype == np.float32 and (y == 4).all()
    with pytest.raises(TypeError, match="float32 or float64"):
        fastconv.correlate(np.ones((4, 4), int), np.ones((2, 2), int))


def test_type_in_type_out():
    torch = pytest.importorskip("torch")
    y = fastconv.convolve(torch.tensor(IMAGE), torch.tensor(ODD))
    assert isinstance(y, torch.Tensor) and y.dtype == torch.float64 and y.is_contiguous()
    close(y.numpy(), fastconv.convolve(IMAGE, ODD))


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
    ((IMAGE[:2], ODD, "valid"), {}, ("kernel", "spans 3", "has 2")),
])
def test_errors(arguments, keywords, parts):
    for function in (fastconv.correlate, fastconv.convolve):
        with pytest.raises(ValueError) as caught:
            function(*arguments, **keywords)
        for part in parts:
            assert part in str(caught.value)
