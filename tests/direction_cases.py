"""Convolutions and transposed convolutions as callers state them, and what their gradients must be: by definition, one tap at
a time, and by torch's autograd. Nothing here lowers one direction to another, or knows phases: the library may get those wrong.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

import fastconv
from fastconv.problem import ConvProblem
from fastconv.window import NUMPY_MODES, PADDING_MODES, normalize_padding

DTYPES = ("float32", "float64")
LAYOUTS = ("channels_first", "channels_last")
INDEX = {"backward_input": 0, "backward_weight": 1}  # of a gradient among what `gradients` gives
ROUNDOFF = {"float32": 2.0**-24, "float64": 2.0**-53}


class Sum(NamedTuple):
    """Expected sums of products."""

    value: np.ndarray
    magnitude: np.ndarray  # the sums of the products' absolute values
    terms: int  # products in the longest of them


class Case(NamedTuple):
    """One convolution y = conv(x, w). What the padding leaves unread at the far end stays as it is stated."""

    size: tuple[int, ...]
    kernel: tuple[int, ...]
    channels: tuple[int, int] = (2, 3)  # of input and output
    batch: int = 2
    groups: int = 1
    stride: Any = 1
    padding: Any = 0
    dilation: Any = 1
    mode: str = "zeros"
    layout: str = "channels_first"

    @property
    def ndim(self) -> int:
        return len(self.size)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        return (self.channels[1], self.channels[0] // self.groups, *self.kernel)

    @property
    def input_shape(self) -> tuple[int, ...]:
        return shaped((self.batch, self.channels[0], *self.size), self.layout)

    @property
    def output_shape(self) -> tuple[int, ...]:
        return self.problem().output_shape

    @property
    def keywords(self) -> dict[str, Any]:
        return dict(stride=self.stride, padding=self.padding, dilation=self.dilation, groups=self.groups,
                    padding_mode=self.mode, layout=self.layout)

    def problem(self, direction: str = "forward", dtype: str = "float32") -> ConvProblem:
        p = ConvProblem.from_shapes(self.input_shape, self.weight_shape, ndim=self.ndim, dtype=dtype, **self.keywords)
        return dataclasses.replace(p, direction=direction)

    @property
    def widths(self) -> tuple[tuple[int, int], ...]:
        return normalize_padding(self.padding, self.size, self.kernel, per_axis(self.stride, self.ndim),
                                 per_axis(self.dilation, self.ndim))


class Transposed(NamedTuple):
    """One transposed convolution; its weight is (in, out / groups, *kernel)."""

    size: tuple[int, ...]
    kernel: tuple[int, ...]
    channels: tuple[int, int] = (3, 2)
    batch: int = 2
    groups: int = 1
    stride: Any = 1
    padding: Any = 0
    output_padding: Any = 0
    dilation: Any = 1
    layout: str = "channels_first"

    @property
    def ndim(self) -> int:
        return len(self.size)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        return (self.channels[0], self.channels[1] // self.groups, *self.kernel)

    @property
    def input_shape(self) -> tuple[int, ...]:
        return shaped((self.batch, self.channels[0], *self.size), self.layout)

    @property
    def widths(self) -> tuple[tuple[int, int], ...]:
        return tuple((p, p) if isinstance(p, int) else tuple(p) for p in per_axis(self.padding, self.ndim))

    @property
    def spread_size(self) -> tuple[int, ...]:
        """Before the padding is cut off."""
        axes = zip(self.size, self.kernel, *(per_axis(v, self.ndim) for v in (self.stride, self.dilation, self.output_padding)))
        return tuple((n - 1) * s + d * (k - 1) + 1 + extra for n, k, s, d, extra in axes)

    @property
    def output_size(self) -> tuple[int, ...]:
        return tuple(n - low - high for n, (low, high) in zip(self.spread_size, self.widths))

    @property
    def output_shape(self) -> tuple[int, ...]:
        return shaped((self.batch, self.channels[1], *self.output_size), self.layout)

    def problem(self, dtype: str = "float32") -> ConvProblem:
        """As a gradient; only where the output padding is below the stride, which a forward problem can state."""
        p = ConvProblem.from_shapes(self.output_shape, self.weight_shape, ndim=self.ndim, dtype=dtype, stride=self.stride,
                                    padding=self.padding, dilation=self.dilation, groups=self.groups, layout=self.layout)
        assert p.output_shape == self.input_shape
        return dataclasses.replace(p, direction="backward_input")

    @property
    def keywords(self) -> dict[str, Any]:
        return dict(stride=self.stride, padding=self.padding, output_padding=self.output_padding, groups=self.groups,
                    dilation=self.dilation, layout=self.layout)


def per_axis(value: Any, ndim: int) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,) * ndim


def shaped(shape: tuple[int, ...], layout: str) -> tuple[int, ...]:
    return (shape[0], *shape[2:], shape[1]) if layout == "channels_last" else shape


def placed(array: np.ndarray, layout: str) -> np.ndarray:
    """An array with its channels first, in that layout."""
    return np.ascontiguousarray(np.moveaxis(array, 1, -1)) if layout == "channels_last" else array


def channels_first(array: np.ndarray, layout: str) -> np.ndarray:
    return np.moveaxis(array, -1, 1) if layout == "channels_last" else array


# ---- data


def data(case: Case | Transposed, seed: int = 0, integers: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(x, w, gradient of the output) of a case, in its layout. All are exact in float32; integers are so small that every sum
    of products is exact, too. Of a transposed convolution (x, w, residual)."""
    rng = np.random.default_rng(seed)
    shapes = case.input_shape, case.weight_shape, case.output_shape
    if integers:
        x, w, g = (rng.integers(-4, 5, shape).astype(np.float32) for shape in shapes)
    else:
        x, w, g = (rng.standard_normal(shape).astype(np.float32) for shape in shapes)
    return x, w, g


def typed(arrays: Iterable[np.ndarray], dtype: str) -> list[np.ndarray]:
    return [a.astype(dtype) for a in arrays]


def bias_of(case: Transposed) -> np.ndarray:
    return np.random.default_rng(9).standard_normal(case.channels[1]).astype(np.float32)


# ---- by definition


def _grouped(array: np.ndarray, groups: int) -> np.ndarray:
    """(batch, groups, channels of a group, pixels)"""
    n, channels, *space = array.shape
    return array.reshape(n, groups, channels // groups, math.prod(space))


def _read(tap: tuple[int, ...], outputs: tuple[int, ...], stride: Any, dilation: Any) -> tuple[slice, ...]:
    """What that tap of all windows reads of the padded input."""
    axes = zip(tap, outputs, per_axis(stride, len(tap)), per_axis(dilation, len(tap)))
    return (slice(None), slice(None), *(slice(t * d, t * d + (n - 1) * s + 1, s) for t, n, s, d in axes))


def spread(g: np.ndarray, w: np.ndarray, groups: int, stride: Any, dilation: Any, size: tuple[int, ...]) -> np.ndarray:
    """The gradient of a padded input of that size: each output's, times each tap, is added to what the tap read."""
    taps = w.reshape(groups, len(w) // groups, *w.shape[1:])
    result = np.zeros((len(g), groups * w.shape[1], *size))
    for tap in np.ndindex(*w.shape[2:]):
        part = np.einsum("ngop,goc->ngcp", _grouped(g, groups), taps[(..., *tap)])
        result[_read(tap, g.shape[2:], stride, dilation)] += part.reshape(len(g), -1, *g.shape[2:])
    return result


def _folded(padded: np.ndarray, case: Case) -> np.ndarray:
    """The gradient of the input: that of each padded element goes to the one that it repeats."""
    for axis, (size, widths) in enumerate(zip(case.size, case.widths), 2):
        if case.mode == "zeros":
            source = np.pad(np.arange(size), widths, constant_values=size)
        else:
            source = np.pad(np.arange(size), widths, mode=NUMPY_MODES[case.mode])
        moved = np.moveaxis(padded, axis, 0)
        whole = np.zeros((size + 1, *moved.shape[1:]))  # the last one collects what belongs to the zeros
        np.add.at(whole, source, moved)
        padded = np.moveaxis(whole[:size], 0, axis)
    return padded


@np.errstate(all="ignore")
def gradients(case: Case, x: np.ndarray, w: np.ndarray, g: np.ndarray) -> list[np.ndarray]:
    """The gradients of input, weight and bias, in float64: the input's in the case's layout."""
    x, g = (channels_first(np.asarray(a, np.float64), case.layout) for a in (x, g))
    padded = np.pad(x, ((0, 0), (0, 0), *case.widths), mode=NUMPY_MODES[case.mode])
    outputs, groups = g.shape[2:], case.groups
    of_input = _folded(spread(g, np.asarray(w, np.float64), groups, case.stride, case.dilation, padded.shape[2:]), case)
    of_weight = np.zeros(w.shape)
    for tap in np.ndindex(*case.kernel):
        seen = padded[_read(tap, outputs, case.stride, case.dilation)]
        part = np.einsum("ngop,ngcp->goc", _grouped(g, groups), _grouped(seen, groups))
        of_weight[(..., *tap)] = part.reshape(w.shape[:2])
    return [placed(of_input, case.layout), of_weight, np.einsum("ncp->c", _grouped(g, 1)[:, 0])]


@np.errstate(all="ignore")
def transposed(case: Transposed, x: np.ndarray, w: np.ndarray, b: np.ndarray | None = None,
               residual: np.ndarray | None = None) -> np.ndarray:
    """conv_transpose + bias + residual, in float64, in the case's layout."""
    x = channels_first(np.asarray(x, np.float64), case.layout)
    whole = spread(x, np.asarray(w, np.float64), case.groups, case.stride, case.dilation, case.spread_size)
    cut = tuple(slice(low, low + n) for n, (low, _) in zip(case.output_size, case.widths))
    result = whole[(slice(None), slice(None), *cut)]
    if b is not None:
        result = result + np.asarray(b, np.float64).reshape(-1, *[1] * case.ndim)
    result = placed(result, case.layout)
    return result if residual is None else result + residual


def sums(of: Callable[..., Any], case: Case | Transposed, *arrays: np.ndarray | None) -> list[Sum]:
    """What `of` gives, with what its rounding depends on."""
    def results(change: Callable[[np.ndarray], np.ndarray]) -> list[np.ndarray]:
        found = of(case, *(None if a is None else change(a) for a in arrays))
        return found if isinstance(found, list) else [found]

    return [Sum(value, magnitude, int(count.max(initial=0))) for value, magnitude, count in
            zip(results(lambda a: a), results(np.abs), results(np.ones_like))]


@functools.lru_cache(maxsize=256)
def expected(case: Case) -> tuple[Sum, ...]:
    """The three gradients of the case's data."""
    return tuple(sums(gradients, case, *data(case)))


# ---- by torch


def torch_gradients(case: Case, x: np.ndarray, w: np.ndarray, g: np.ndarray) -> list[np.ndarray]:
    """The same by torch's autograd, through torch's padding where torch has that mode and takes that much of it."""
    import torch

    x, w, g = (torch.tensor(np.ascontiguousarray(a), dtype=torch.float64) for a in
               (channels_first(x, case.layout), w, channels_first(g, case.layout)))
    b = torch.zeros(len(w), dtype=torch.float64, requires_grad=True)
    x.requires_grad_(), w.requires_grad_()
    convolve = getattr(torch.nn.functional, f"conv{case.ndim}d")
    y = convolve(_torch_padded(x, case), w, b, case.stride, 0, case.dilation, case.groups)
    of_input, of_weight, of_bias = (a.numpy() for a in torch.autograd.grad(y, (x, w, b), g))
    return [placed(of_input, case.layout), of_weight, of_bias]


def _torch_padded(x: Any, case: Case) -> Any:
    import torch

    flat = [width for pair in case.widths[::-1] for width in pair]
    most = {"zeros": math.inf, "replicate": math.inf, "circular": min(case.size), "reflect": min(case.size) - 1}
    if max(flat) <= most.get(case.mode, -1):
        return torch.nn.functional.pad(x, flat, mode="constant" if case.mode == "zeros" else case.mode)
    for axis, (size, widths) in enumerate(zip(case.size, case.widths), 2):
        x = x.index_select(axis, torch.tensor(np.pad(np.arange(size), widths, mode=NUMPY_MODES[case.mode])))
    return x


def torch_transposed(case: Transposed, x: np.ndarray, w: np.ndarray, b: np.ndarray | None = None) -> np.ndarray:
    """By torch; where the padding of an axis has two sides, by cutting off what torch gives without any."""
    import torch

    x, w, b = (None if a is None else torch.tensor(np.ascontiguousarray(a), dtype=torch.float64) for a in
               (channels_first(x, case.layout), w, b))
    convolve = getattr(torch.nn.functional, f"conv_transpose{case.ndim}d")
    if all(low == high for low, high in case.widths):
        low = tuple(low for low, _ in case.widths)
        y = convolve(x, w, b, case.stride, low, case.output_padding, case.groups, case.dilation)
    else:
        y = convolve(x, w, b, case.stride, 0, case.output_padding, case.groups, case.dilation)
        for axis, (n, (low, _)) in enumerate(zip(case.output_size, case.widths), 2):
            y = y.narrow(axis, low, n)
    return placed(y.numpy(), case.layout)


# ---- the verdict


def near(actual: np.ndarray, sum_: Sum, strict: bool = False, what: Any = "") -> None:
    """Each result within its own rounding error: 2·(terms + 4)·u·S, which no wrong tap hides in.

    Not strict: what may be a Winograd algorithm or an FFT, whose errors spread over neighbours (see `verify.bounds`).
    """
    assert actual.shape == sum_.value.shape, f"{what}: {actual.shape} is not {sum_.value.shape}"
    if not actual.size:
        return
    u = ROUNDOFF[actual.dtype.name]
    allowed = 2 * (sum_.terms + 4) * u * sum_.magnitude
    if not strict:
        around = np.maximum(sum_.magnitude, sum_.magnitude.mean())
        allowed = allowed + 32 * math.sqrt(max(sum_.terms, 64)) * u * around
    wrong = ~(np.abs(actual - sum_.value) <= allowed)  # a NaN is wrong
    assert not wrong.any(), (f"{what}: {wrong.sum()} of {wrong.size} are wrong, first at {np.argwhere(wrong)[0].tolist()}: "
                             f"{actual[wrong][0]!r} instead of {sum_.value[wrong][0]!r}")


# ---- the functions under test


def conv_input(case: Case, w: Any, g: Any, **more: Any) -> Any:
    return getattr(fastconv, f"conv{case.ndim}d_input")(case.input_shape, w, g, **case.keywords, **more)


def conv_weight(case: Case, x: Any, g: Any, **more: Any) -> Any:
    return getattr(fastconv, f"conv{case.ndim}d_weight")(x, case.weight_shape, g, **case.keywords, **more)


def conv_backward(case: Case, g: Any, x: Any, w: Any, **more: Any) -> Any:
    return getattr(fastconv, f"conv{case.ndim}d_backward")(g, x, w, **case.keywords, **more)


def compute(direction: str, case: Case, x: Any, w: Any, g: Any, **more: Any) -> Any:
    return conv_input(case, w, g, **more) if direction == "backward_input" else conv_weight(case, x, g, **more)


def conv(case: Case, x: Any, w: Any, **more: Any) -> Any:
    return getattr(fastconv, f"conv{case.ndim}d")(x, w, **case.keywords, **more)


def conv_transpose(case: Transposed, x: Any, w: Any, b: Any = None, **more: Any) -> Any:
    return getattr(fastconv, f"conv_transpose{case.ndim}d")(x, w, b, **case.keywords, **more)


# ---- the cases

GRID = {
    "one pixel, one channel": Case((1,), (1,), (1, 1), 1),
    "1d": Case((9,), (3,)),
    "1d pointwise": Case((13,), (1,), (5, 7)),
    "1d stride": Case((11,), (3,), stride=2),
    "1d stride over kernel": Case((13,), (2,), stride=4),
    "1d far apart": Case((23,), (1,), stride=4, padding=((1, 3),)),
    "1d dilation is stride": Case((17,), (3,), stride=3, dilation=3),
    "1d dilation half the stride": Case((23,), (4,), stride=4, dilation=2, padding=1),
    "1d dilation over stride": Case((19,), (3,), stride=2, dilation=3, padding=((4, 1),)),
    "1d kernel over output": Case((5,), (5,), padding=1),
    "1d kernel is input": Case((7,), (7,), (3, 2)),
    "1d kernel over input": Case((3,), (7,), (1, 2), padding=((2, 3),)),
    "1d windows on padding only": Case((4,), (2,), padding=5, stride=2),
    "1d window before the input": Case((1,), (1,), stride=3, padding=((2, 0),)),
    **{f"2d windows before the input, {mode}": Case((2, 3), (1, 2), stride=(6, 4), padding=((4, 0), (3, 1)), mode=mode)
       for mode in PADDING_MODES},
    "1d one tap over padding": Case((5,), (1,), padding=2, stride=3),
    "1d unread end": Case((12,), (3,), stride=4),
    "1d unread end and padding": Case((12,), (3,), stride=4, padding=((0, 1),)),
    "1d unread padding repeats": Case((11,), (2,), stride=4, padding=((2, 3),), mode="reflect"),
    "1d long": Case((211,), (11,), (1, 1), 1, padding=5),
    "1d groups": Case((10,), (3,), (6, 4), groups=2, stride=2, padding=1),
    "2d": Case((5, 6), (3, 3), padding=1),
    "2d valid": Case((6, 5), (3, 2), padding="valid"),
    "2d full": Case((4, 5), (3, 2), padding="full", dilation=(1, 2)),
    "2d same": Case((7, 8), (3, 4), padding="same", stride=(2, 3)),
    "2d same lower": Case((7, 8), (4, 2), padding="same_lower", stride=(2, 1)),
    "2d sides of padding": Case((5, 6), (3, 2), padding=((1, 2), (0, 3)), stride=(2, 1)),
    "2d strides": Case((11, 13), (3, 5), stride=(3, 2), padding=(1, 2)),
    "2d stride and dilation": Case((13, 11), (3, 2), stride=(2, 4), dilation=(3, 2), padding=2),
    "2d row": Case((7, 9), (1, 4), stride=(2, 3)),
    "2d column": Case((9, 7), (4, 1), stride=(3, 2), padding=(2, 0)),
    "2d pointwise": Case((4, 5), (1, 1), (7, 5)),
    "2d pointwise, stride": Case((6, 7), (1, 1), (4, 9), stride=2),
    "2d patches": Case((8, 12), (4, 4), (3, 5), stride=4),
    "2d stem": Case((17, 19), (7, 7), (3, 4), 1, stride=2, padding=3),
    "2d one output": Case((5, 4), (5, 4), (3, 4), 3),
    "2d one channel": Case((7, 5), (3, 3), (1, 1), padding=1),
    "2d prime": Case((7, 11), (3, 3), (13, 17), 1, padding=1),
    "2d tails": Case((6, 6), (3, 3), (17, 33), 1, padding=1),
    "2d batch": Case((3, 4), (2, 2), (2, 3), 11),
    "2d large kernel": Case((17, 16), (9, 11), (2, 2), 1, padding=(4, 2)),
    "2d groups": Case((6, 7), (3, 3), (6, 9), groups=3, padding=1),
    "2d groups of two": Case((5, 7), (3, 3), (6, 6), groups=3, padding=1),
    "2d groups, stride": Case((7, 8), (3, 2), (4, 10), groups=2, stride=(2, 3), padding=1),
    "2d depthwise": Case((7, 8), (3, 3), (19, 19), 1, groups=19, padding=1),
    "2d depthwise, stride": Case((9, 7), (5, 3), (6, 6), groups=6, stride=2, padding=2),
    "2d multiplier": Case((6, 5), (3, 3), (5, 15), groups=5, padding=1, stride=(1, 2)),
    "2d many in one out": Case((5, 6), (3, 3), (12, 3), groups=3),
    **{f"2d {mode}": Case((5, 6), (3, 4), stride=(1, 2), padding=((2, 1), (3, 2)), mode=mode) for mode in PADDING_MODES},
    **{f"2d {mode}, groups": Case((7, 4), (3, 3), (4, 6), groups=2, padding=(1, 3), dilation=(3, 1), mode=mode)
       for mode in PADDING_MODES},
    **{f"1d {mode}, far beyond": Case((3,), (4,), padding=((7, 8),), stride=2, mode=mode) for mode in PADDING_MODES},
    "3d": Case((4, 3, 5), (2, 3, 3), padding=(0, 1, 1)),
    "3d strides": Case((5, 6, 7), (2, 3, 3), (3, 2), 1, stride=(1, 2, 3), padding=((1, 0), (0, 2), (2, 1))),
    "3d stride over kernel": Case((7, 6, 9), (2, 1, 3), stride=(4, 2, 3), batch=1),
    "3d dilation": Case((6, 5, 7), (2, 3, 2), stride=(2, 1, 2), dilation=(3, 2, 2), padding=(1, 2, 0)),
    "3d groups": Case((3, 4, 5), (2, 2, 3), (4, 6), groups=2, padding=1),
    "3d depthwise": Case((4, 5, 3), (3, 3, 2), (5, 5), groups=5, stride=2, padding=1),
    "3d circular": Case((3, 4, 5), (2, 3, 3), padding=((1, 0), (2, 1), (0, 2)), mode="circular"),
    "3d symmetric": Case((2, 4, 3), (3, 2, 3), padding=(2, 1, (0, 3)), stride=(1, 2, 1), mode="symmetric"),
}

TRANSPOSED = {
    "one pixel, one channel": Transposed((1,), (1,), (1, 1), 1),
    "one pixel": Transposed((1, 1), (3, 4), stride=2),
    "1d": Transposed((7,), (3,)),
    "1d padding": Transposed((7,), (3,), padding=1),
    "1d stride": Transposed((6,), (3,), stride=2, padding=1, output_padding=1),
    "1d holes": Transposed((5,), (2,), stride=4, output_padding=3),
    "1d holes, one tap": Transposed((5,), (1,), stride=3, padding=2),
    "1d dilation is stride": Transposed((6,), (3,), stride=3, dilation=3, output_padding=2),
    "1d output padding over stride": Transposed((6,), (3,), stride=1, dilation=3, output_padding=2),
    "1d output padding is stride": Transposed((5,), (2,), stride=2, dilation=4, output_padding=2, padding=1),
    "1d output padding far over stride": Transposed((4,), (3,), stride=2, dilation=5, output_padding=4, padding=3),
    "1d padding over kernel": Transposed((9,), (2,), padding=3),
    "1d padding over kernel, stride": Transposed((6,), (2,), stride=3, padding=5, output_padding=1),
    "1d sides of padding": Transposed((6,), (3,), stride=2, padding=((0, 2),)),
    "1d sides of padding, output padding": Transposed((6,), (4,), stride=3, padding=((3, 1),), output_padding=2),
    "1d groups": Transposed((6,), (3,), (6, 4), groups=2, stride=2, padding=1, output_padding=1),
    "2d": Transposed((4, 5), (3, 3), padding=1),
    "2d decoder": Transposed((4, 5), (4, 4), (5, 3), stride=2, padding=1),
    "2d patches": Transposed((3, 4), (2, 2), (7, 5), stride=2),
    "2d strides": Transposed((4, 3), (3, 2), stride=(2, 3), padding=(1, 0), output_padding=(1, 2)),
    "2d dilation": Transposed((4, 5), (3, 2), stride=(3, 2), dilation=(2, 3), output_padding=(2, 1)),
    "2d output padding over one stride": Transposed((4, 3), (2, 3), stride=(1, 3), dilation=(3, 2), output_padding=(2, 2)),
    "2d sides of padding": Transposed((5, 4), (3, 3), stride=(2, 1), padding=((2, 0), (1, 2)), output_padding=(1, 0)),
    "2d pointwise": Transposed((4, 5), (1, 1), (7, 9)),
    "2d pointwise, stride": Transposed((4, 5), (1, 1), (5, 6), stride=2, output_padding=1),
    "2d groups": Transposed((4, 5), (3, 3), (6, 9), groups=3, stride=2, padding=1),
    "2d groups of two": Transposed((4, 5), (3, 2), (4, 4), groups=2, stride=(1, 2)),
    "2d depthwise": Transposed((5, 4), (3, 3), (7, 7), groups=7, stride=2, padding=1, output_padding=1),
    "2d multiplier": Transposed((4, 5), (3, 2), (3, 12), groups=3, padding=1),
    "2d many channels": Transposed((6, 7), (3, 3), (19, 17), 1, padding=1),
    "2d large kernel": Transposed((9, 8), (7, 9), (2, 1), 1, padding=3),
    "3d": Transposed((3, 4, 2), (2, 3, 3), padding=(0, 1, 1)),
    "3d strides": Transposed((3, 2, 4), (2, 3, 3), (2, 3), 1, stride=(3, 2, 1), output_padding=(1, 1, 0), padding=(0, 1, 2)),
    "3d groups": Transposed((2, 3, 3), (2, 2, 3), (4, 6), groups=2, stride=2, dilation=(1, 3, 2), output_padding=(1, 2, 0)),
}


def _few(case: Any, largest: int = 15_000) -> Any:
    """The case with so few channels and images that plain loops take milliseconds."""
    def work(case: Any) -> int:
        return math.prod(case.output_shape) * math.prod(case.weight_shape[1:]) * math.prod(per_axis(case.stride, case.ndim))

    while work(case) > largest and (case.channels != (case.groups, case.groups) or case.batch > 1):
        smaller = tuple(case.groups * -(-c // case.groups // 2) for c in case.channels)
        case = case._replace(channels=smaller, batch=1)
    return case


def _axes(rng: np.random.Generator, ndim: int, low: int, high: int) -> tuple[int, ...]:
    return tuple(int(v) for v in rng.integers(low, high + 1, ndim))


def _channels(rng: np.random.Generator) -> tuple[int, tuple[int, int]]:
    groups = int(rng.choice((1, 1, 1, 2, 3, 5)))
    each = rng.choice((1, 1, 2, 3, 4, 7, 17), 2)
    return groups, (groups * int(each[0]), groups * int(each[1]))


def random_case(seed: int) -> Case:
    rng = np.random.default_rng(seed)
    ndim = int(rng.choice((1, 2, 2, 3)))
    size = _axes(rng, ndim, 1, (31, 13, 7)[ndim - 1])
    dilation = _axes(rng, ndim, 1, 3) if rng.random() < 0.4 else (1,) * ndim
    padding = tuple(zip(_axes(rng, ndim, 0, 4), _axes(rng, ndim, 0, 4))) if rng.random() < 0.7 else ((0, 0),) * ndim
    kernel = tuple(min(k, (n + low + high - 1) // d + 1) for n, (low, high), k, d in
                   zip(size, padding, _axes(rng, ndim, 1, 5), dilation))
    groups, channels = _channels(rng)
    mode = str(rng.choice(("zeros", "zeros", *PADDING_MODES)))
    stride = _axes(rng, ndim, 1, 4 if ndim < 3 else 3) if rng.random() < 0.7 else (1,) * ndim
    layout = str(rng.choice(("channels_first", "channels_last")))
    return _few(Case(size, kernel, channels, int(rng.integers(1, 4)), groups, stride, padding, dilation, mode, layout))


def random_transposed(seed: int) -> Transposed:
    rng = np.random.default_rng(seed)
    ndim = int(rng.choice((1, 2, 2, 3)))
    groups, channels = _channels(rng)
    stride = _axes(rng, ndim, 1, 4 if ndim < 3 else 3) if rng.random() < 0.7 else (1,) * ndim
    dilation = _axes(rng, ndim, 1, 3) if rng.random() < 0.4 else (1,) * ndim
    extra = tuple(int(rng.integers(0, max(s, d))) for s, d in zip(stride, dilation))
    layout = str(rng.choice(("channels_first", "channels_last")))
    case = Transposed(_axes(rng, ndim, 1, (17, 7, 4)[ndim - 1]), _axes(rng, ndim, 1, 5 if ndim < 3 else 3), channels,
                      int(rng.integers(1, 4)), groups, stride, 0, extra, dilation, layout)
    drawn = zip(_axes(rng, ndim, 0, 4), _axes(rng, ndim, 0, 4), case.output_size)
    pairs = tuple((low, high) if low + high < n else (0, min(high, n - 1)) for low, high, n in drawn)
    if rng.random() < 0.5:  # as torch takes it
        pairs = tuple(min(low, (n - 1) // 2) for (low, _), n in zip(pairs, case.output_size))
    return _few(case._replace(padding=pairs))


# ---- one element, one image, odd memory


def fortran(a: np.ndarray) -> np.ndarray:
    return np.asfortranarray(a)


def backwards(a: np.ndarray) -> np.ndarray:
    every = (slice(None, None, -1),) * a.ndim
    return a[every].copy()[every]


def sliced(a: np.ndarray) -> np.ndarray:
    """Every third element of each row of an array full of NaN."""
    wide = np.full((*a.shape[:-1], 3 * a.shape[-1]), np.nan, a.dtype)
    wide[..., 1::3] = a
    return wide[..., 1::3]


def swapped(a: np.ndarray) -> np.ndarray:
    return a.astype(a.dtype.newbyteorder("S"))


def unaligned(a: np.ndarray) -> np.ndarray:
    raw = np.zeros(a.nbytes + 1, np.uint8)[1:]
    made = raw.view(a.dtype).reshape(a.shape)
    made[...] = a
    return made


def read_only(a: np.ndarray) -> np.ndarray:
    a = a.copy()
    a.flags.writeable = False
    return a


def broadcast(a: np.ndarray) -> np.ndarray:
    """All images and channels are the same one: no copy of `a`, but an array of its shape."""
    return np.broadcast_to(a[:1, :1], a.shape)


def constant(a: np.ndarray) -> np.ndarray:
    """No stride at all."""
    return np.broadcast_to(a.dtype.type(1.5), a.shape)


def odd_strides(a: np.ndarray) -> np.ndarray:
    """Axes of length 1 may have any stride."""
    steps = tuple(7919 if n == 1 else step for n, step in zip(a.shape, a.strides))
    return np.lib.stride_tricks.as_strided(a, a.shape, steps)


VIEWS = {view.__name__: view for view in (fortran, backwards, sliced, swapped, unaligned, read_only, broadcast, constant,
                                          odd_strides)}


def poisoned(shape: tuple[int, ...], dtype: Any, view: str = "sliced") -> np.ndarray:
    """An `out` full of NaN, with those strides."""
    return VIEWS[view](np.full(shape, np.nan, dtype))


def one_at_each(shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """Arrays that are 1 in one place, once for each place."""
    for at in np.ndindex(*shape):
        unit = np.zeros(shape)
        unit[at] = 1
        yield unit
