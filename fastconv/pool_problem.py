"""PoolProblem: one pooling, fully described. The only place that validates one; what passes here, a backend either computes or
refuses.

Whatever the windows are like, three tables per axis say it, one entry per output position o: the taps of o lie at
``first[o] + j * dilation`` for ``j < count[o]``, all of them inside the input, and the average's divisor is the product of
``divisor[o]`` over the axes. Padding is never a value: it shortens windows. So strides, padding, ceil_mode, count_include_pad
and adaptive windows are all the same to a backend: one loop over the tables.

Words and meaning are PyTorch's (`torch.nn.functional.max_pool2d`, `avg_pool2d`, `lp_pool2d`, `adaptive_avg_pool2d`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .arguments import axes_of, flag, given, image_sizes, integer, normalize_layout, one_of, positive_tuple, shape
from .dtypes import DTYPES, INTEGERS, name_of
from .errors import shown
from .window import LARGEST, low_and_high, normalize_padding, outputs, span, too_large

OPS = ("max", "min", "average", "lp")
POOL_DIRECTIONS = ("forward", "backward_input")
Table = tuple[np.ndarray, ...]  # by axis: int64, one entry per output position, read-only


@dataclass(frozen=True, slots=True)
class PoolProblem:
    """One validated pooling: the key of every cache.

    Attributes:
        op: "max", "min", "average" or "lp": (Σ x^p)^(1/p), of which `norm_type` is p.
        input_size: spatial sizes, one entry per axis (1, 2 or 3 axes).
        channels, batch: planes are pooled each by itself; batch may be 0.
        kernel_size, stride, dilation: one entry per axis; the default stride is the kernel. () for all three: adaptive.
        padding: ((low, high), ...), each at most half of what the kernel spans.
        ceil_mode: a last window that reaches beyond the far padding counts as well, if it begins before that padding.
        count_include_pad: an average divides by the taps in the padding, too; never by those beyond it.
        divisor_override: what an average divides by instead; not 0.
        norm_type: of "lp": finite and not 0. The sum is scaled by kernel volume / divisor, as PyTorch does where ceil_mode
            cuts a window short.
        adaptive_size: the output's size, with windows from floor(o·in / out) to ceil((o + 1)·in / out); else ().
        dtype: "float32" or "float64"; for "max" and "min" any of `INTEGERS` as well ("int8" ... "uint64", "bool").
        layout: "channels_first" or "channels_last".
        direction: "forward", or "backward_input": the gradient ∂x for a given ∂y.
        return_indices: whether "max" and "min" tell where they found it (forward): see `PoolKernel`.
        output_size: spatial size of the output.
        first, count, divisor: the tables, see above.

    Raises:
        ValueError, TypeError: the message names the argument, the value received and the rule.
    """

    op: str
    input_size: tuple[int, ...]
    channels: int
    batch: int = 1
    kernel_size: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    padding: tuple[tuple[int, int], ...] = ()
    dilation: tuple[int, ...] = ()
    ceil_mode: bool = False
    count_include_pad: bool = True
    divisor_override: int | None = None
    norm_type: float | None = None
    adaptive_size: tuple[int, ...] = ()
    dtype: str = "float32"
    layout: str = "channels_first"
    direction: str = "forward"
    return_indices: bool = False
    output_size: tuple[int, ...] = field(init=False, compare=False, repr=False)
    first: Table = field(init=False, compare=False, repr=False)
    count: Table = field(init=False, compare=False, repr=False)
    divisor: Table = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        ndim = len(self.input_size) if isinstance(self.input_size, (tuple, list)) else 0
        if ndim not in (1, 2, 3):
            raise ValueError(f"input size must be a tuple of 1, 2 or 3 spatial sizes, got {shown(self.input_size)}")
        put = object.__setattr__
        one_of("op", self.op, OPS)
        one_of("direction", self.direction, POOL_DIRECTIONS)
        put(self, "input_size", positive_tuple("input size", self.input_size, ndim))
        put(self, "channels", integer("channels", self.channels, 1))
        put(self, "batch", integer("batch", self.batch, 0))
        put(self, "layout", normalize_layout(self.layout, ndim))
        for name in ("ceil_mode", "count_include_pad", "return_indices"):
            put(self, name, flag(name, getattr(self, name)))
        put(self, "norm_type", _norm(self.op, self.norm_type))
        put(self, "divisor_override", _divisor(self.op, self.divisor_override))
        self._check_dtype()
        if self.return_indices and (self.op not in ("max", "min") or self.direction != "forward"):
            raise ValueError(f"return_indices is for max and min pooling, forward, got {self.op}, {self.direction}")
        if self.adaptive_size or not self.kernel_size:
            self._set_adaptive(ndim)
        else:
            self._set_windows(ndim)
        for table in (*self.first, *self.count, *self.divisor):
            table.flags.writeable = False

    def _check_dtype(self) -> None:
        summed = self.op in ("average", "lp") or self.direction != "forward"
        one_of("dtype", self.dtype, DTYPES if summed else (*DTYPES, *INTEGERS))

    def _set_adaptive(self, ndim: int) -> None:
        put = object.__setattr__
        if self.op == "lp":
            raise ValueError(f"adaptive pooling is for max, min and average, got op {self.op!r}")
        put(self, "adaptive_size", positive_tuple("output size", self.adaptive_size, ndim))
        ones = (1,) * ndim
        for name, plain in (("kernel_size", ()), ("stride", ()), ("padding", ()), ("dilation", ones)):
            if getattr(self, name) not in ((), plain):
                raise ValueError(f"{name} has no place in adaptive pooling, got {shown(getattr(self, name))}")
        put(self, "dilation", ones)
        put(self, "output_size", self.adaptive_size)
        self._check_bytes()
        tables = [_adaptive(size, out) for size, out in zip(self.input_size, self.adaptive_size)]
        put(self, "first", tuple(first for first, _ in tables))
        put(self, "count", tuple(count for _, count in tables))
        put(self, "divisor", self.count)

    def _set_windows(self, ndim: int) -> None:
        put = object.__setattr__
        put(self, "kernel_size", positive_tuple("kernel_size", self.kernel_size, ndim))
        put(self, "stride", positive_tuple("stride", given(self.stride, self.kernel_size), ndim))
        put(self, "dilation", positive_tuple("dilation", given(self.dilation, 1), ndim))
        put(self, "padding", low_and_high(given(self.padding, ((0, 0),) * ndim), ndim))
        axes = tuple(zip(self.input_size, self.kernel_size, self.stride, self.dilation, self.padding))
        put(self, "output_size", tuple(_outputs(*axis, self.ceil_mode) for axis in axes))
        self._check_bytes()
        tables = [_clipped(*axis, out, self.count_include_pad) for axis, out in zip(axes, self.output_size)]
        for name, table in zip(("first", "count", "divisor"), zip(*tables)):
            put(self, name, table)

    def _check_bytes(self) -> None:
        for what, sizes in (("input", self.input_shape), ("output", self.output_shape)):
            if max(1, math.prod(sizes)) * 8 >= LARGEST:
                raise ValueError(f"the {what} would have {math.prod(sizes)} elements, beyond what can be addressed")

    # ---- derived sizes

    @property
    def ndim(self) -> int:
        """Number of spatial axes."""
        return len(self.input_size)

    @property
    def channels_last(self) -> bool:
        return self.layout == "channels_last"

    def _shape(self, space: tuple[int, ...]) -> tuple[int, ...]:
        return (self.batch, *space, self.channels) if self.channels_last else (self.batch, self.channels, *space)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the batched input in this problem's layout."""
        return self._shape(self.input_size)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of the batched output in this problem's layout."""
        return self._shape(self.output_size)

    @property
    def result_shape(self) -> tuple[int, ...]:
        """Shape of what the direction computes: output, or the gradient of the input."""
        return self.output_shape if self.direction == "forward" else self.input_shape

    @property
    def scale(self) -> float:
        """What a window's sum is multiplied by, once it is divided by the divisors of its axes (lp: before the root)."""
        return float(math.prod(self.kernel_size)) if self.op == "lp" else 1.0

    def __str__(self) -> str:
        how = (f"to {self.adaptive_size}" if self.adaptive_size else
               f"kernel {self.kernel_size}, stride {self.stride}, padding {self.padding}, dilation {self.dilation}")
        return f"{self.op} pooling of {self.dtype} {self.input_shape}, {self.layout}, {self.direction}: {how}"

    # ---- construction from what a user writes

    @classmethod
    def from_shape(
        cls, op: str, input_shape: Sequence[int], kernel_size: Any, *, ndim: int, function: str, stride: Any = None,
        padding: Any = 0, dilation: Any = 1, layout: str = "channels_first", **more: Any,
    ) -> PoolProblem:
        """The problem that ``function(input, kernel_size, ...)`` states; an input of rank ndim + 1 counts as a batch of 1.
        `more`: the other attributes."""
        layout = normalize_layout(layout, ndim)
        batch, channels, size = images(function, input_shape, ndim, layout)
        kernel = axes_of("kernel_size", kernel_size, ndim)
        stride = pool_stride(stride, kernel)
        dilation = axes_of("dilation", dilation, ndim)
        return cls(op, size, channels, batch, kernel, stride, normalize_padding(padding, size, kernel, stride, dilation),
                   dilation, layout=layout, **more)

    @classmethod
    def adaptive(
        cls, op: str, input_shape: Sequence[int], output_size: Any, *, ndim: int, function: str,
        layout: str = "channels_first", **more: Any,
    ) -> PoolProblem:
        """The problem that ``function(input, output_size)`` states; None keeps the size of an axis. Else as `from_shape`."""
        layout = normalize_layout(layout, ndim)
        batch, channels, size = images(function, input_shape, ndim, layout)
        wanted = tuple(output_size) if isinstance(output_size, (tuple, list)) else (output_size,) * ndim
        if len(wanted) not in (1, ndim):
            raise ValueError(f"output_size must be an integer, None or {ndim} of them, one per spatial axis, got "
                             f"{shown(output_size)}")
        sizes = tuple(have if want is None else integer("output_size", want, 1, whole=output_size)
                      for have, want in zip(size, wanted * (ndim // len(wanted))))
        return cls(op, size, channels, batch, adaptive_size=sizes, layout=layout, **more)


# ---- rules, one function each


def pool_dtype(op: str, dtype: np.dtype[Any]) -> str:
    """The dtype that pooling an array of `dtype` computes in: its own; nothing is rounded or widened silently.

    Raises:
        TypeError: it is none that `op` takes. An average of integers would have to be rounded.
    """
    name = name_of(dtype)
    if name in DTYPES or op in ("max", "min") and name in INTEGERS:
        return name
    rule = "float32, float64, an integer dtype or bool" if op in ("max", "min") else "float32 or float64"
    raise TypeError(f"input of {op} pooling must be {rule}, got {name}; convert it")


def pool_stride(stride: Any, kernel: tuple[int, ...]) -> tuple[int, ...]:
    """One per axis; None, or an empty sequence as in PyTorch, is the kernel size."""
    unstated = stride is None or isinstance(stride, (tuple, list)) and not stride
    return kernel if unstated else axes_of("stride", stride, len(kernel))


def images(function: str, input_shape: Sequence[int], ndim: int, layout: str) -> tuple[int, int, tuple[int, ...]]:
    """(batch, channels, spatial sizes) of what a function of pooling takes."""
    batch, channels, size = image_sizes("input", function, shape("input", input_shape), ndim, layout)
    if channels == 0 or 0 in size:
        raise ValueError(f"input must have at least one channel and no empty spatial axis, got shape "
                         f"{shown(tuple(input_shape))}")
    return batch, channels, size


def _norm(op: str, norm_type: Any) -> float | None:
    if op != "lp":
        if norm_type is not None:
            raise ValueError(f"norm_type is for lp pooling, got {shown(norm_type)} for {op}")
        return None
    if isinstance(norm_type, (bool, np.bool_)) or not isinstance(norm_type, (int, float, np.integer, np.floating)):
        raise TypeError(f"norm_type must be a number, got {shown(norm_type)}")
    try:
        number = float(norm_type)
    except OverflowError:  # an integer beyond all floats
        number = math.inf
    if not math.isfinite(number) or number == 0:
        raise ValueError(f"norm_type must be finite and not 0, got {shown(norm_type)}")
    return number


def _divisor(op: str, divisor: Any) -> int | None:
    if divisor is None:
        return None
    if op != "average":
        raise ValueError(f"divisor_override is for averages, got {shown(divisor)} for {op}")
    number = integer("divisor_override", divisor, None)
    if number == 0:
        raise ValueError(f"divisor_override must not be 0, got {shown(divisor)}")
    return number


def _outputs(size: int, kernel: int, stride: int, dilation: int, padding: tuple[int, int], ceil: bool) -> int:
    """How many windows there are along an axis; as `at::native::pooling_output_shape` of PyTorch."""
    low, high = padding
    half = span(kernel, dilation) // 2
    if min(padding) < 0 or max(padding) > half:
        raise ValueError(f"padding must be at least 0 and at most half of what the kernel spans, {half} ({kernel} taps, "
                         f"dilation {dilation}), got {shown(padding)}")
    number = outputs(size + low + high + (stride - 1 if ceil else 0), kernel, stride, dilation)
    if number < 1:
        raise too_large(size, kernel, dilation, padding)
    return number - 1 if ceil and (number - 1) * stride >= size + low else number


def _clipped(size: int, kernel: int, stride: int, dilation: int, padding: tuple[int, int], out: int,
             include_pad: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(first, count, divisor) of an axis."""
    start = np.arange(out, dtype=np.int64) * stride - padding[0]
    skipped = np.maximum(0, -(start // dilation))  # taps before the input: ceil(-start / dilation)
    first = start + skipped * dilation
    count = np.minimum(kernel - skipped, (size - 1 - first) // dilation + 1)
    if count.min() < 1:
        raise ValueError(f"every window must hold a part of the input, but with kernel_size {kernel}, dilation {dilation} and "
                         f"padding {shown(padding)} one sees nothing of its {size} elements")
    padded = np.minimum(kernel, (size + padding[1] - 1 - start) // dilation + 1)
    return first, count, padded if include_pad else count


def _adaptive(size: int, out: int) -> tuple[np.ndarray, np.ndarray]:
    """(first, count): from floor(o·size / out) to ceil((o + 1)·size / out), without a product that overflows."""
    whole, rest = divmod(size, out)
    o = np.arange(out, dtype=np.int64)
    first = o * whole + o * rest // out
    last = (o + 1) * whole - (-(o + 1) * rest // out)
    return first, last - first
