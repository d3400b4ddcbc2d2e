"""Batch normalisation: values, running statistics, gradients, layouts, the same bits for any number of threads, errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastconv
from fastconv import native

SHAPES = [(9, 5), (4, 33, 17), (3, 21, 6, 7), (2, 3, 60, 90), (2, 40, 3, 4, 5), (700, 3), (1, 2, 1, 9001)]


def _isas() -> list[dict[str, Any]]:
    return [dict(isa=isa) for isa in native.runnable_isas()] + [dict(no_native=True)]


def _given(shape: tuple[int, ...], dtype: Any, seed: int = 1) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    channels = shape[1]
    return dict(x=(rng.normal(size=shape) * 2 + 3).astype(dtype), g=rng.normal(size=shape).astype(dtype),
                weight=rng.normal(size=channels).astype(dtype), bias=rng.normal(size=channels).astype(dtype),
                mean=rng.normal(size=channels).astype(dtype), var=rng.uniform(0.5, 2, channels).astype(dtype))


def _reference(x: np.ndarray, weight: Any, bias: Any, mean: Any, var: Any, training: bool, eps: float = 1e-5) -> np.ndarray:
    """In long double, channels second."""
    wide = np.moveaxis(x.astype(np.longdouble), 1, -1)
    if training:
        mean, var = wide.mean(tuple(range(x.ndim - 1))), wide.var(tuple(range(x.ndim - 1)))
    return np.moveaxis((wide - mean) / np.sqrt(var + np.longdouble(eps)) * weight + bias, -1, 1)


def _last(a: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(a, 1, -1))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_values_and_running_statistics(shape, dtype):
    a = _given(shape, dtype)
    tolerance = 3e-6 if dtype == np.float32 else 2e-14
    axes = (0, *range(2, len(shape)))
    count = a["x"].size // shape[1]
    for training in (False, True):
        expected = _reference(a["x"], a["weight"], a["bias"], a["mean"], a["var"], training)
        for setting in _isas():
            for layout in ("channels_first", "channels_last"):
                if layout == "channels_last" and len(shape) == 2:
                    continue
                mean, var = a["mean"].copy(), a["var"].copy()
                x = _last(a["x"]) if layout == "channels_last" else a["x"]
                out = np.full_like(x, np.nan)
                with fastconv.config(**setting):
                    y = fastconv.batch_norm(x, mean, var, a["weight"], a["bias"], training, 0.3, layout=layout, out=out)
                assert y is out and y.dtype == dtype
                y = np.moveaxis(y, -1, 1) if layout == "channels_last" else y
                assert np.max(np.abs(y - expected)) <= tolerance * 4
                if training:
                    wide = a["x"].astype(np.float64)
                    np.testing.assert_allclose(mean, 0.7 * a["mean"] + 0.3 * wide.mean(axes), rtol=tolerance, atol=tolerance)
                    unbiased = wide.var(axes) * count / (count - 1)
                    np.testing.assert_allclose(var, 0.7 * a["var"] + 0.3 * unbiased, rtol=tolerance, atol=tolerance)
                else:
                    assert np.array_equal(mean, a["mean"]) and np.array_equal(var, a["var"])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gradients_against_differences(shape, dtype):
    """Of a float64 reference along random directions."""
    a = _given(shape, dtype, 2)
    rng = np.random.default_rng(3)
    step = 1e-5
    wide = {key: value.astype(np.float64) for key, value in a.items()}
    for training in (False, True):
        def loss(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, training: bool = training) -> float:
            return float((wide["g"] * _reference(x, weight, bias, wide["mean"], wide["var"], training)).sum())

        directions = [rng.normal(size=wide[key].shape) for key in ("x", "weight", "bias")]
        slopes = []
        for i, direction in enumerate(directions):
            up, down = ([wide[key] + (size * direction if i == j else 0) for j, key in enumerate(("x", "weight", "bias"))]
                        for size in (step, -step))
            slopes.append((loss(*up) - loss(*down)) / (2 * step))
        for setting in _isas():
            for layout in ("channels_first", "channels_last"):
                if layout == "channels_last" and len(shape) == 2:
                    continue
                last = layout == "channels_last"
                x, g = (_last(a[key]) if last else a[key] for key in "xg")
                out = np.full_like(x, np.nan)
                with fastconv.config(**setting):
                    dx, dw, db = fastconv.batch_norm_backward(g, x, a["mean"], a["var"], a["weight"], training, layout=layout,
                                                              out=out)
                assert dx is out and dx.dtype == dw.dtype == db.dtype == dtype and dw.shape == db.shape == (shape[1],)
                dx = np.moveaxis(dx, -1, 1) if last else dx
                for found, direction, slope in zip((dx, dw, db), directions, slopes):
                    scale = np.abs(found * direction).sum()
                    assert abs((found * direction).sum() - slope) <= (1e-5 if dtype == np.float32 else 1e-7) * scale


@pytest.mark.parametrize("no_native", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_as_torch(training, no_native):
    torch = pytest.importorskip("torch")
    a = _given((3, 7, 5, 6), np.float64, 4)
    theirs = {key: torch.tensor(value, requires_grad=key in ("x", "weight", "bias")) for key, value in a.items()}
    arguments = [theirs[key] for key in ("x", "mean", "var", "weight", "bias")]
    y = torch.nn.functional.batch_norm(*arguments, training, 0.2)
    y.backward(theirs["g"])
    mine = {key: torch.tensor(value) for key, value in a.items()}
    with fastconv.config(no_native=no_native):
        for memory in (torch.contiguous_format, torch.channels_last):
            x, g, mean, var = mine["x"].contiguous(memory_format=memory), mine["g"], mine["mean"].clone(), mine["var"].clone()
            found = fastconv.batch_norm(x, mean, var, mine["weight"], mine["bias"], training, 0.2)
            assert found.stride() == x.stride()
            torch.testing.assert_close(found, y.detach(), rtol=1e-11, atol=1e-11)
            torch.testing.assert_close(mean, theirs["mean"], rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(var, theirs["var"], rtol=1e-12, atol=1e-12)
            grads = fastconv.batch_norm_backward(g, x, mine["mean"], mine["var"], mine["weight"], training)
            for mine_, key in zip(grads, ("x", "weight", "bias")):
                torch.testing.assert_close(mine_, theirs[key].grad, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
@pytest.mark.parametrize("shape", [(3, 37, 30, 31), (2, 3, 90, 100), (1, 70, 9, 5), (600, 40)], ids=str)
def test_threads_change_no_bit(shape, layout):
    a = _given(shape, np.float32, 5)
    x, g = (a[key] if layout == "channels_first" or len(shape) == 2 else _last(a[key]) for key in "xg")
    for setting in _isas():
        def run(threads: int, setting: dict[str, Any] = setting) -> list[np.ndarray]:
            mean, var = a["mean"].copy(), a["var"].copy()
            with fastconv.config(num_threads=threads, **setting):
                y = fastconv.batch_norm(x, mean, var, a["weight"], a["bias"], True, layout=layout)
                return [y, mean, var, *fastconv.batch_norm_backward(g, x, None, None, a["weight"], True, layout=layout)]

        whole = run(1)
        for threads in (2, 3, 8):
            for found, expected in zip(run(threads), whole):
                np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("dtype, offset", [(np.float32, 1e4), (np.float64, 1e8)])
def test_statistics_far_from_zero(dtype, offset):
    """Where the mean is large beside the deviation, a sum of squares would have no digits left."""
    x = (np.random.default_rng(6).normal(size=(4, 3, 50, 41)) + offset).astype(dtype)
    for setting in _isas():
        for layout in ("channels_first", "channels_last"):
            mean, var = np.zeros(3), np.zeros(3)
            with fastconv.config(**setting):
                fastconv.batch_norm(x if layout == "channels_first" else _last(x), mean, var, training=True, momentum=1.0,
                                    layout=layout)
            wide = x.astype(np.longdouble)
            count = x.size // 3
            u = np.finfo(dtype).eps / 2
            apart = np.abs(wide - wide[0, :, 0, 0][None, :, None, None]).mean((0, 2, 3))
            exact = wide.mean((0, 2, 3))
            assert (np.abs(mean - exact) <= 17 * u * apart + 2**-52 * np.abs(exact)).all()
            variance = wide.var((0, 2, 3)) * count / (count - 1)
            assert (np.abs(var - variance) <= (17 * u + count * 2**-53) * variance).all()


@pytest.mark.parametrize("shape", [(2, 3, 90, 100), (300, 3, 7, 8), (40_000, 3)], ids=str)
def test_statistics_of_blocks_that_differ(shape):
    """A trend, one far block first, or last, one far value: squares are summed about a mean of what came before."""
    rng = np.random.default_rng(8)
    size = int(np.prod(shape)) // 3
    far = np.where(np.arange(size) < 4096, 1e3, 0)
    spike = np.where(np.arange(size) == 0, 1e4, 0)
    steps = 1e3 + 100 * np.sign(np.sin(np.arange(size) / 5000))
    for values in (np.linspace(-50, 50, size), far, far[::-1], spike, spike[::-1], steps):
        wide = np.broadcast_to(values + rng.normal(size=size), (3, size)).reshape(3, shape[0], *shape[2:])
        x = np.ascontiguousarray(np.moveaxis(wide, 0, 1)).astype(np.float32)
        exact = x.astype(np.longdouble).var((0, *range(2, len(shape))))
        for setting in _isas():
            for layout in ("channels_first", "channels_last"):
                if layout == "channels_last" and len(shape) == 2:
                    continue
                given = x if layout == "channels_first" else _last(x)
                with fastconv.config(**setting):
                    _, _, inverse = fastconv.batch_norm(given, None, None, training=True, return_stats=True, layout=layout,
                                                        eps=0)
                assert np.abs(1 / inverse.astype(np.longdouble) ** 2 / exact - 1).max() <= (3 * 17 + 4) * 2**-24


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(4, 33, 17), (3, 21, 6, 7), (700, 70)], ids=str)
def test_saved_statistics(shape, dtype):
    """The forward pass returns them; the backward one takes them, others as well, instead of its own."""
    a, axes = _given(shape, dtype, 9), (0, *range(2, len(shape)))
    tolerance = dict(rtol=3e-6, atol=3e-6) if dtype == np.float32 else dict(rtol=1e-13, atol=1e-13)
    wide = {key: np.moveaxis(a[key].astype(np.float64), 1, -1) for key in "xg"}
    for setting in _isas():
        for layout in ("channels_first",) if len(shape) == 2 else ("channels_first", "channels_last"):
            x, g = (a[key] if layout == "channels_first" else _last(a[key]) for key in "xg")
            with fastconv.config(**setting):
                plain = fastconv.batch_norm(x, None, None, a["weight"], a["bias"], True, layout=layout)
                y, mean, inverse = fastconv.batch_norm(x, None, None, a["weight"], a["bias"], True, return_stats=True,
                                                       layout=layout)
                kept = fastconv.batch_norm(x, a["mean"], a["var"], return_stats=True, layout=layout)[1:]
                again = fastconv.batch_norm_backward(g, x, weight=a["weight"], training=True, layout=layout)
                saved = fastconv.batch_norm_backward(g, x, weight=a["weight"], training=True, save_mean=mean,
                                                     save_invstd=inverse, layout=layout)
                others = [fastconv.batch_norm_backward(g, x, weight=a["weight"], training=training, save_mean=a["mean"],
                                                       save_invstd=a["var"], layout=layout, out=np.full_like(x, np.nan))
                          for training in (True, False)]
            np.testing.assert_array_equal(y, plain)
            assert mean.dtype == inverse.dtype == dtype and mean.shape == inverse.shape == (shape[1],)
            np.testing.assert_allclose(mean, a["x"].astype(np.longdouble).mean(axes).astype(dtype), **tolerance)
            np.testing.assert_allclose(inverse, (a["x"].astype(np.longdouble).var(axes) + 1e-5) ** -0.5, **tolerance)
            np.testing.assert_allclose(kept[0], a["mean"], rtol=1e-12)
            np.testing.assert_allclose(kept[1], (a["var"].astype(np.longdouble) + 1e-5) ** -0.5, **tolerance)
            for found, wanted in zip(saved, again):
                np.testing.assert_allclose(found, wanted, rtol=2e-5 if dtype == np.float32 else 1e-11, atol=1e-5)
            normal = (wide["x"] - a["mean"]) * a["var"].astype(np.float64)
            of_weight, of_bias = ((wide["g"] * each).sum(tuple(range(normal.ndim - 1))) for each in (normal, 1))
            for training, (dx, dw, db) in zip((True, False), others):
                count = x.size // shape[1]
                exact = wide["g"] - (of_bias + normal * of_weight) / count if training else wide["g"]
                exact = exact * a["weight"].astype(np.float64) * a["var"]
                dx = np.moveaxis(dx, 1, -1) if layout == "channels_first" else dx
                np.testing.assert_allclose(dx, exact, rtol=2e-4, atol=2e-5 if dtype == np.float32 else 1e-11)
                np.testing.assert_allclose(dw, of_weight, rtol=2e-5, atol=2e-4)
                np.testing.assert_allclose(db, of_bias, rtol=2e-5, atol=2e-4)


def test_saved_statistics_are_those_of_torch():
    torch = pytest.importorskip("torch")
    a = _given((3, 7, 5, 6), np.float32, 10)
    given = [torch.tensor(a[key]) for key in ("x", "weight", "bias")]
    theirs = torch.native_batch_norm(*given, None, None, True, 0.1, 1e-5)
    mine = fastconv.batch_norm(given[0], None, None, *given[1:], training=True, return_stats=True)
    for found, wanted in zip(mine, theirs):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    backward = torch.ops.aten.native_batch_norm_backward
    grads = backward(torch.tensor(a["g"]), *given[:2], None, None, *theirs[1:], True, 1e-5, [True] * 3)
    found = fastconv.batch_norm_backward(torch.tensor(a["g"]), given[0], weight=given[1], training=True, save_mean=theirs[1],
                                         save_invstd=theirs[2])
    for mine_, wanted in zip(found, grads):
        torch.testing.assert_close(mine_, wanted, rtol=1e-4, atol=1e-5)


def test_strides_in_place_and_nan():
    a = _given((4, 6, 9, 10), np.float32, 7)
    expected = fastconv.batch_norm(a["x"], a["mean"], a["var"], a["weight"], a["bias"])
    made = {
        "reversed": a["x"][::-1].copy()[::-1], "apart": np.repeat(a["x"], 2, 3)[..., ::2], "fortran": np.asfortranarray(a["x"]),
        "channels last": np.moveaxis(_last(a["x"]), -1, 1),
        "turned": a["x"].transpose(0, 1, 3, 2).copy().transpose(0, 1, 3, 2),
    }
    for kind, x in made.items():
        y = fastconv.batch_norm(x, a["mean"], a["var"], a["weight"], a["bias"])
        np.testing.assert_array_equal(y, expected, kind)
        out = np.full((4, 6, 9, 20), np.nan, np.float32)[..., ::2]
        fastconv.batch_norm(x, a["mean"], a["var"], a["weight"], a["bias"], out=out)
        np.testing.assert_array_equal(out, expected, kind)
        full = fastconv.batch_norm_backward(a["g"], a["x"], weight=a["weight"], training=True)
        odd = fastconv.batch_norm_backward(a["g"], x, weight=a["weight"], training=True)
        for found, wanted in zip(odd, full):
            np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-5)
    for layout in ("channels_first", "channels_last"):
        same = a["x"].copy() if layout == "channels_first" else _last(a["x"])
        trained = fastconv.batch_norm(same.copy(), None, None, training=True, layout=layout)
        assert fastconv.batch_norm(same, None, None, training=True, layout=layout, out=same) is same
        np.testing.assert_array_equal(same, trained)
    x = a["x"].copy()
    x[1, 2, 3, 4], x[2, 4, 0, 0] = np.nan, np.inf
    y = fastconv.batch_norm(x, None, None, training=True)
    assert np.isnan(y[:, 2]).all() and np.isnan(y[:, 4]).any() and np.isfinite(y[:, [0, 1, 3, 5]]).all()


def test_empty_batches():
    x = np.zeros((0, 3, 4, 4), np.float32)
    assert fastconv.batch_norm(x, np.zeros(3), np.ones(3)).shape == x.shape
    grads = fastconv.batch_norm_backward(x, x, np.zeros(3), np.ones(3))
    assert grads[0].shape == x.shape and not grads[1].any() and not grads[2].any()


def _frozen(values: np.ndarray) -> np.ndarray:
    values.flags.writeable = False
    return values


@pytest.mark.parametrize("arguments, error, words", [
    (dict(input=np.ones((2, 3, 4), int)), TypeError, "input must be float32 or float64, got int64"),
    (dict(input=np.ones(3)), ValueError, r"input must have 2 to 5 axes.*got shape \(3,\)"),
    (dict(running_mean=None), ValueError, "running_mean and running_var must be given unless training is True, got None"),
    (dict(running_var=np.ones(4)), ValueError, r"running_var must have shape \(3,\), one value per channel, got \(4,\)"),
    (dict(weight=np.ones((3, 1))), ValueError, r"weight must have shape \(3,\), one value per channel, got \(3, 1\)"),
    (dict(bias=np.ones(3, complex)), TypeError, "bias must be float32 or float64, got complex128"),
    (dict(running_mean=np.ones(3, int)), TypeError, "running_mean must be float32 or float64, got int64"),
    (dict(eps=-1.0), ValueError, r"eps must not be negative, got -1\.0"),
    (dict(eps="1"), ValueError, "eps must be a finite number"),
    (dict(momentum=None), ValueError, "momentum must be a finite number, got None"),
    (dict(training=1), TypeError, "training must be True or False, got 1"),
    (dict(layout="NHWC"), ValueError, "layout for 1 spatial axes must be one of"),
    (dict(input=np.ones((1, 3)), training=True), ValueError, "input must have more than one value per channel in training"),
    (dict(training=True, running_mean=_frozen(np.zeros(3))), ValueError, "running_mean must be writeable in training"),
    (dict(out=np.ones((2, 3, 5))), ValueError, r"out must have the shape of input, \(2, 3, 4\), got \(2, 3, 5\)"),
])
def test_what_is_refused(arguments, error, words):
    given = dict(input=np.ones((2, 3, 4)), running_mean=np.zeros(3), running_var=np.ones(3))
    with pytest.raises(error, match=words):
        fastconv.batch_norm(**{**given, **arguments})


def test_what_backward_refuses():
    x = np.ones((2, 3, 4))
    with pytest.raises(ValueError, match=r"grad_output must have the shape of input, \(2, 3, 4\), got \(2, 4, 3\)"):
        fastconv.batch_norm_backward(np.ones((2, 4, 3)), x, training=True)
    with pytest.raises(TypeError, match="grad_output must have the dtype of input, float64, got float32"):
        fastconv.batch_norm_backward(x.astype(np.float32), x, training=True)
    saved = dict(save_mean=np.zeros(3), save_invstd=np.ones(3))
    for wrong, error, words in (
            (dict(save_invstd=None), ValueError, "save_mean and save_invstd must both be given, or none of them, got one"),
            (dict(save_mean=np.zeros(4)), ValueError, r"save_mean must have shape \(3,\), one value per channel, got \(4,\)"),
            (dict(save_invstd=np.ones(3, int)), TypeError, "save_invstd must be float32 or float64, got int64")):
        with pytest.raises(error, match=words):
            fastconv.batch_norm_backward(x, x, training=True, **{**saved, **wrong})
    with pytest.raises(TypeError, match="return_stats must be True or False, got 1"):
        fastconv.batch_norm(x, None, None, training=True, return_stats=1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("activation", ["relu", "relu6"])
@pytest.mark.parametrize("shape", [*SHAPES[:2], (8, 70, 3, 3), (2, 3, 60, 90), (5, 40, 2, 2, 5), (1, 2, 1, 9001)], ids=str)
def test_an_activation_at_once_is_one_after_the_other(shape, activation, dtype):
    a = _given(shape, dtype)
    for training in (False, True):
        for setting in _isas():
            for layout in ("channels_first", "channels_last"):
                if layout == "channels_last" and len(shape) == 2:
                    continue
                x, g = (_last(a[name]) if layout == "channels_last" else a[name] for name in ("x", "g"))
                given = dict(training=training, eps=1e-3, layout=layout)
                with fastconv.config(**setting):
                    after, mean, inverse = fastconv.batch_norm(x, a["mean"].copy(), a["var"].copy(), 3 * a["weight"], a["bias"],
                                                               return_stats=True, **given)
                    expected = getattr(fastconv, activation)(after)
                    made = fastconv.batch_norm(x, a["mean"].copy(), a["var"].copy(), 3 * a["weight"], a["bias"],
                                               activation=activation, out=np.full_like(x, np.nan), **given)
                    np.testing.assert_array_equal(made, expected)
                    back = dict(save_mean=mean, save_invstd=inverse, weight=3 * a["weight"], **given)
                    reached = getattr(fastconv, f"{activation}_input")(g, after)
                    wanted = fastconv.batch_norm_backward(reached, x, **back)
                    found = fastconv.batch_norm_backward(g, x, bias=a["bias"], activation=activation,
                                                         out=np.full_like(x, np.nan), **back)
                near = 2e-5 if dtype == np.float32 else 1e-12
                for one, other in zip(found, wanted):
                    assert np.max(np.abs(one - other)) <= near * max(1.0, np.max(np.abs(other)))


def test_no_gradient_where_an_activation_is_flat():
    """Whatever the gradient of its output is there."""
    x = np.array([[-1.0], [1.0], [3.0], [-3.0]], np.float32)
    g = np.array([[np.inf], [1.0], [1.0], [np.nan]], np.float32)
    for setting in _isas():
        with fastconv.config(**setting):
            found, _, of_bias = fastconv.batch_norm_backward(g, x, np.zeros(1), np.ones(1), activation="relu")
        assert np.array_equal(found[:, 0] == 0, [True, False, False, True]) and of_bias[0] == 2


def test_other_activations_are_refused():
    x = np.ones((2, 3), np.float32)
    for wrong, error in (("tanh", ValueError), (1, TypeError), (("relu", 0.0), TypeError)):
        with pytest.raises(error, match="activation must be"):
            fastconv.batch_norm(x, None, None, training=True, activation=wrong)
        with pytest.raises(error, match="activation must be"):
            fastconv.batch_norm_backward(x, x, training=True, activation=wrong)
