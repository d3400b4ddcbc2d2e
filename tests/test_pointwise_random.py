"""Random calls of the functions beside convolution: arrays of any strides flush against forbidden memory, any ISA and number of
threads, compared with NumPy in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers import Guarded

import fastconv
from fastconv import native

pytestmark = pytest.mark.skipif(fastconv.backends()["cython"] is not None, reason="no native kernels")
MOST = (2000, 60, 20, 9, 6)  # the longest axis, by the number of axes
ACTIVATIONS = ("relu", "relu6", "leaky_relu", "sigmoid", "tanh", "gelu", "silu", "hardswish")


class Draw:
    """What a random call needs; arrays that are made here end or start at forbidden memory, and outputs are NaN."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.single = bool(self.rng.integers(2))
        self.dtype = np.float32 if self.single else np.float64
        self.guarded = Guarded(str(self.rng.choice(["end", "start"])))
        axes = int(self.rng.integers(1, 6))
        self.shape = tuple(self.rng.integers(1, MOST[axes - 1], axes).tolist())
        self.setting = dict(isa=str(self.rng.choice(native.runnable_isas())), num_threads=int(self.rng.integers(1, 5)))

    def array(self) -> np.ndarray:
        a = (self.rng.normal(size=self.shape) * 3).astype(self.dtype)
        how = self.rng.integers(5)
        if how == 1:
            order = self.rng.permutation(a.ndim)
            return self.guarded.copy(np.ascontiguousarray(a.transpose(order))).transpose(np.argsort(order))
        if how == 2:
            turned = tuple(slice(None, None, -1 if self.rng.random() < 0.5 else None) for _ in self.shape)
            return self.guarded.copy(np.ascontiguousarray(a[turned]))[turned]
        if how == 3:
            return self.guarded.copy(np.repeat(a, 2, axis=-1))[..., ::2]
        if how == 4:
            return np.broadcast_to(a.take([0], int(self.rng.integers(a.ndim))), self.shape)
        return self.guarded.copy(a)

    def out(self) -> np.ndarray:
        how = self.rng.integers(3)
        if how == 2:
            return self.guarded.copy(np.full(self.shape[::-1], np.nan, self.dtype), False).T
        wide = (*self.shape[:-1], self.shape[-1] * (1 + how))
        return self.guarded.copy(np.full(wide, np.nan, self.dtype), False)[..., how::1 + how]

    def check(self, function: Callable[..., Any], *given: Any, rtol: float = 3e-5, atol: float = 3e-5, scale: float = 1.0,
              **more: Any) -> Any:
        """The native result, in an `out`, is NumPy's; that is returned."""
        with fastconv.config(no_native=True):
            expected = function(*given, **more)
        with fastconv.config(**self.setting):
            found = function(*given, **more, out=self.out())
        for mine, right in zip(*((r if isinstance(r, tuple) else (r,)) for r in (found, expected)), strict=True):
            unit = 1.0 if self.single else 1e-4
            np.testing.assert_allclose(mine, right, rtol=rtol * unit, atol=atol * scale * unit * max(1.0, np.abs(right).max()))
        return expected


def _activation(draw: Draw) -> None:
    name, x = str(draw.rng.choice(ACTIVATIONS)), draw.array()
    draw.check(getattr(fastconv, name), x)
    draw.check(getattr(fastconv, name + "_input"), draw.array(), x)


def _batch_norm(draw: Draw) -> None:
    if len(draw.shape) < 2:
        return
    x, layout = draw.array(), "channels_first"
    channels = draw.shape[1]
    if x.ndim > 2 and draw.rng.random() < 0.5:
        channels, layout = draw.shape[-1], "channels_last"
    training = bool(draw.rng.random() < 0.5) and x.size // channels > 1
    w, b, mean, var = (draw.rng.uniform(0.5, 2, channels) for _ in range(4))
    draw.check(fastconv.batch_norm, x, mean.copy(), var.copy(), w, b, training, 0.1, 0.1, layout=layout)
    draw.check(fastconv.batch_norm_backward, draw.array(), x, mean, var, w, training, 0.1, layout=layout, rtol=1e-3,
               scale=max(1.0, x.size / channels))


def _layer_norm(draw: Draw) -> None:
    x, along = draw.array(), draw.shape[int(draw.rng.integers(len(draw.shape))):]
    w, b = (draw.guarded.copy(draw.rng.uniform(0.5, 2, along).astype(draw.dtype)) for _ in range(2))
    draw.check(fastconv.layer_norm, x, along, w, b, 0.1)
    draw.check(fastconv.layer_norm_backward, draw.array(), x, along, w, 0.1, rtol=1e-3, scale=max(1.0, x.size / w.size))


def _softmax(draw: Draw) -> None:
    x, g, axis = draw.array(), draw.array(), int(draw.rng.integers(len(draw.shape)))
    draw.check(fastconv.softmax_input, g, draw.check(fastconv.softmax, x, axis), axis)
    draw.check(fastconv.log_softmax_input, g, draw.check(fastconv.log_softmax, x, axis), axis, rtol=1e-4, atol=1e-4)


def _cross_entropy(draw: Draw) -> None:
    x = draw.array()
    if x.ndim < 2:
        return
    target = draw.rng.integers(0, draw.shape[1], (draw.shape[0], *draw.shape[2:]))
    target[draw.rng.random(target.shape) < 0.2] = -100
    weight = draw.rng.uniform(0.1, 2, draw.shape[1]) if draw.rng.random() < 0.5 else None
    more: dict[str, Any] = dict(reduction=str(draw.rng.choice(["sum", "none"])))
    more["label_smoothing"] = float(draw.rng.choice([0, 0.2]))
    with fastconv.config(no_native=True):
        expected = fastconv.cross_entropy(x, target, weight, **more)
    with fastconv.config(**draw.setting):
        np.testing.assert_allclose(fastconv.cross_entropy(x, target, weight, **more), expected, rtol=2e-5, atol=1e-4)
    g = draw.rng.normal(size=target.shape) if more["reduction"] == "none" else 1.3
    draw.check(fastconv.cross_entropy_input, g, x, target, weight, **more, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [_activation, _batch_norm, _layer_norm, _softmax, _cross_entropy])
def test_random_calls(kind):
    for seed in range(250):
        try:
            kind(Draw(seed))
        except Exception as error:
            raise AssertionError(f"seed {seed}") from error
