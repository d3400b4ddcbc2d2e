"""The activations of the epilogue, each within 4 ulp of its exact value in its dtype; NaN passes through, infinities give the
limits.

Two forms of the same formulas: scalar functions on Python floats (readable; what Numba compiles), and `apply`, which
NumPy backends call on arrays. float32 is computed in float64 and rounded once. In float64 the exponentials of large
arguments amplify the argument's rounding error, so products that feed them carry their error term along
(T. J. Dekker, "A floating-point technique for extending the available precision", 1971).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

_SQRT_HALF = 0.7071067811865476  # 1/sqrt(2) rounded, and what rounding took off
_SQRT_HALF_LOW = -4.833646656726457e-17
_SQRT_HALF_OVER_PI = 0.3989422804014327  # 1/sqrt(2 pi)
_TWO_OVER_SQRT_PI = 1.1283791670955126
_TANH_SCALE = 1.5957691216057308  # 2 sqrt(2/pi), and its low part
_TANH_SCALE_LOW = -9.96930880911092e-17
_TANH_CUBE = 0.044715
_TANH_CUBE_LOW = 2.1960211427085595e-18
_DENORMAL = -700.0  # exp() below is (nearly) denormal; x times its rounding error would show: half the exponent, twice
_LIMIT = -1000.0  # every silu and gelu below is -0, -inf's too, where the formula would multiply it by 0
_SPLITTER = 134217729.0  # 2**27 + 1


def two_product(a: Any, b: Any) -> tuple[Any, Any]:
    """a·b as the rounded product and its error (exact unless it over- or underflows)."""
    product = a * b
    t = _SPLITTER * a
    a_high = t - (t - a)
    t = _SPLITTER * b
    b_high = t - (t - b)
    a_low = a - a_high
    b_low = b - b_high
    return product, ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low


def logistic(x: float, correction: float) -> float:
    """1 / (1 + exp(-(x + correction))) for a tiny correction; nothing overflows."""
    e = math.exp(-abs(x))
    e -= e * correction if x >= 0 else -e * correction
    return 1 / (1 + e) if x >= 0 else e / (1 + e)


def sigmoid(x: float) -> float:
    return logistic(x, 0.0)


def silu(x: float) -> float:
    if x < _DENORMAL:
        x = max(x, _LIMIT)
        half = math.exp(0.5 * x)
        return x * half * half
    return x * logistic(x, 0.0)


def gelu(x: float) -> float:
    """x·Φ(x) = x/2·erfc(-x/√2): erfc keeps the negative tail's relative accuracy."""
    if not abs(x) < 40.0:  # Φ is 0 or 1 in float64, or x is NaN
        return -0.0 if x < 0 else x
    if x < -37.0:  # erfc is denormal: -φ(x)·(1 - 1/x² + 3/x⁴ - 15/x⁶ + ...)
        square, error = two_product(x, x)
        half, t = math.exp(-0.25 * square), 1.0 / square
        series = 1.0 - t * (1.0 - 3.0 * t * (1.0 - 5.0 * t * (1.0 - 7.0 * t * (1.0 - 9.0 * t * (1.0 - 11.0 * t)))))
        return -_SQRT_HALF_OVER_PI * half * (1.0 - 0.5 * error) * series * half
    y, error = two_product(x, -_SQRT_HALF)
    error -= x * _SQRT_HALF_LOW
    return 0.5 * x * (math.erfc(y) - _TWO_OVER_SQRT_PI * math.exp(-y * y) * error)


def gelu_tanh(x: float) -> float:
    """x/2·(1 + tanh u) = x·logistic(2u), with 2u = 2·√(2/π)·(x + 0.044715 x³)."""
    if not abs(x) < 40.0:
        return -0.0 if x < 0 else x
    square, square_error = two_product(x, x)
    cube, cube_error = two_product(square, _TANH_CUBE)
    cube_error += square_error * _TANH_CUBE + square * _TANH_CUBE_LOW
    inner = 1.0 + cube
    inner_error = (1.0 - inner + cube if cube < 1.0 else cube - inner + 1.0) + cube_error
    scaled, scaled_error = two_product(x, _TANH_SCALE)
    scaled_error += x * _TANH_SCALE_LOW
    u, error = two_product(scaled, inner)
    error += scaled_error * inner + scaled * inner_error
    if u < _DENORMAL:
        half = math.exp(0.5 * u)
        return x * half * (1.0 + error) * half
    return x * logistic(u, error)


def hardswish(x: float) -> float:
    return max(x, -3.0) * (min(max(x + 3.0, 0.0), 6.0) / 6.0) if x == x else x


def relu(x: float) -> float:
    return x if not x < 0 else 0.0


def relu6(x: float) -> float:
    return 0.0 if x < 0 else 6.0 if x > 6 else x


SCALAR = {"relu": relu, "relu6": relu6, "sigmoid": sigmoid, "tanh": math.tanh, "gelu": gelu, "gelu_tanh": gelu_tanh,
          "silu": silu, "hardswish": hardswish}


def scalar(activation: tuple[str, float] | None) -> Any:
    """The activation as a function of one float."""
    if activation is None:
        return lambda x: x
    name, parameter = activation
    return SCALAR[name] if name != "leaky_relu" else lambda x: x * parameter if x < 0 else x


def apply(activation: tuple[str, float] | None, array: np.ndarray) -> None:
    """Apply the activation to a float32 or float64 array in place."""
    if activation is None:
        return
    name, parameter = activation
    if name == "relu":
        np.maximum(array, 0, out=array)
    elif name == "relu6":
        np.clip(array, 0, 6, out=array)
    elif name == "leaky_relu":
        np.multiply(array, parameter, out=array, where=array < 0, dtype=np.float64, casting="same_kind")
    elif name == "tanh":
        array[...] = np.tanh(array.astype(np.float64))
    elif name == "hardswish":
        wide = array.astype(np.float64)
        array[...] = np.maximum(wide, -3) * (np.clip(wide + 3, 0, 6) / 6)
    elif name == "sigmoid":
        array[...] = _logistic(array.astype(np.float64))
    elif name == "silu":
        wide = np.maximum(array.astype(np.float64), _LIMIT)
        half = np.exp(0.5 * np.minimum(wide, 0))
        array[...] = np.where(wide < _DENORMAL, wide * half * half, wide * _logistic(wide))
    else:
        array[...] = np.frompyfunc(SCALAR[name], 1, 1)(array.astype(np.float64))


def _logistic(x: np.ndarray) -> np.ndarray:
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, e) / (1.0 + e)


# ---- derivatives


def gradient(activation: tuple[str, float], grad_output: np.ndarray, array: np.ndarray) -> np.ndarray:
    """grad_output times the activation's derivative at `array`, in float64. Where a function is flat there is none, whatever
    grad_output is."""
    with np.errstate(all="ignore"):
        slope = _derivative(activation, array.astype(np.float64))
        product = grad_output * slope
    return np.where(slope == 0, 0.0, product) if activation[0] in ("relu", "relu6", "hardswish") else product


def _derivative(activation: tuple[str, float], x: np.ndarray) -> np.ndarray:
    name, parameter = activation
    if name == "relu":
        return np.where(x <= 0, 0.0, 1.0)
    if name == "relu6":
        return np.where((x <= 0) | (x >= 6), 0.0, 1.0)
    if name == "leaky_relu":
        return np.where(x <= 0, parameter, 1.0)
    if name == "hardswish":
        return np.where(x <= -3, 0.0, np.where(x >= 3, 1.0, x / 3 + 0.5))
    x = np.clip(x, _LIMIT, -_LIMIT)
    if name in ("sigmoid", "tanh"):
        e = np.exp(-np.abs(x) * (1 if name == "sigmoid" else 2))
        return (1 if name == "sigmoid" else 4) * e / (1 + e) ** 2
    if name == "gelu":
        below = 0.5 * np.array(np.frompyfunc(math.erfc, 1, 1)(-_SQRT_HALF * x), np.float64)
        return below + x * _SQRT_HALF_OVER_PI * np.exp(-0.5 * x * x)
    inner = x if name == "silu" else _TANH_SCALE * (x + _TANH_CUBE * x**3)
    slope = 1.0 if name == "silu" else _TANH_SCALE * (1 + 3 * _TANH_CUBE * x * x)
    s = _logistic(inner)
    return s * (1 + x * _logistic(-inner) * slope)
