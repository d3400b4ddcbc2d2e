"""ConvProblem: one convolution, fully described. The only place that validates one; what passes here, a backend
either computes or refuses. What is not convolution's own is in `arguments` and `window`.

Words and meaning are PyTorch's (`torch.nn.functional.conv2d`): "convolution" is cross-correlation. The text form lives in
`problem_text.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from . import problem_text
from .arguments import axes_of, flag, given, image_sizes, integer, normalize_layout, one_of, positive_tuple, shape
from .dtypes import DTYPES, TABLE, name_of
from .errors import shown
from .settings import ACCURACIES
from .window import LARGEST, PADDING_MODES, effective_padding, low_and_high, normalize_padding, outputs

DIRECTIONS = ("forward", "backward_input", "backward_weight")
ACTIVATIONS = ("relu", "relu6", "leaky_relu", "sigmoid", "tanh", "gelu", "gelu_tanh", "silu", "hardswish")


@dataclass(frozen=True, slots=True)
class ConvProblem:
    """One validated convolution: the key of every cache, the unit of every benchmark.

    Attributes:
        input_size, kernel_size: spatial sizes, one entry per axis (1, 2 or 3 axes).
        in_channels, out_channels: of all groups together.
        batch: images; may be 0.
        stride, dilation: one entry per axis.
        padding: ((low, high), ...). `high` is the effective far padding: what the last window reaches, so it can be
            negative (but greater than -stride, except where the input is the result) where trailing input is never read.
        padding_mode: how the border is continued, as `numpy.pad` does it.
        dtype: "float32" or "float64".   layout: "channels_first" or "channels_last".
        direction: what of ``y = conv(x, w)`` is computed: "forward", y; "backward_input", the gradient ∂x for a given ∂y, which
            is transposed convolution as well; "backward_weight", the gradient ∂w. All sizes are those of the forward direction.
        bias, residual: whether the epilogue ``act(conv + bias + residual)`` adds them to the result.
        activation: None or (name, parameter).
        accuracy: which algorithms are admitted: "strict", "fast" or "loose".
        name, count: a label and how often a network contains the layer; not part of equality.
        padded_size: spatial size of what the windows slide over: (output - 1)·stride + dilation·(kernel - 1) + 1.
        output_size: spatial size of the output.
        sizes_hash: the hash, of what is usually different; every cache asks for it.

    Raises:
        ValueError, TypeError: the message names the argument, the value received and the rule.
    """

    input_size: tuple[int, ...]
    kernel_size: tuple[int, ...]
    in_channels: int
    out_channels: int
    batch: int = 1
    groups: int = 1
    stride: tuple[int, ...] = ()
    padding: tuple[tuple[int, int], ...] = ()
    dilation: tuple[int, ...] = ()
    padding_mode: str = "zeros"
    dtype: str = "float32"
    layout: str = "channels_first"
    direction: str = "forward"
    bias: bool = False
    residual: bool = False
    activation: tuple[str, float] | None = None
    accuracy: str = "fast"
    name: str = field(default="", compare=False)
    count: int = field(default=1, compare=False)
    padded_size: tuple[int, ...] = field(init=False, compare=False, repr=False)
    output_size: tuple[int, ...] = field(init=False, compare=False, repr=False)
    sizes_hash: int = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        ndim = len(self.input_size) if isinstance(self.input_size, (tuple, list)) else 0
        if ndim not in (1, 2, 3):
            raise ValueError(f"input size must be a tuple of 1, 2 or 3 spatial sizes, got {shown(self.input_size)}")
        put = object.__setattr__
        put(self, "input_size", positive_tuple("input size", self.input_size, ndim))
        put(self, "kernel_size", positive_tuple("kernel size", self.kernel_size, ndim))
        put(self, "stride", positive_tuple("stride", given(self.stride, 1), ndim))
        put(self, "dilation", positive_tuple("dilation", given(self.dilation, 1), ndim))
        for name, least in (("batch", 0), ("in_channels", 1), ("out_channels", 1), ("groups", 1), ("count", 1)):
            put(self, name, integer(name, getattr(self, name), least))
        put(self, "activation", normalize_activation(self.activation))
        _check_channels(self.in_channels, self.out_channels, self.groups)
        one_of("padding_mode", self.padding_mode, PADDING_MODES)
        one_of("dtype", self.dtype, DTYPES)
        put(self, "layout", normalize_layout(self.layout, ndim))
        one_of("direction", self.direction, DIRECTIONS)
        one_of("accuracy", self.accuracy, ACCURACIES)
        for name in ("bias", "residual"):
            put(self, name, flag(name, getattr(self, name)))
        if self.direction == "backward_weight" and (self.bias or self.residual or self.activation):
            raise ValueError("the gradient of the weight has neither bias nor residual nor activation")
        if not isinstance(self.name, str):
            raise TypeError(f"name must be a string, got {shown(self.name)}")
        if '"' in self.name or not self.name.isprintable():
            raise ValueError(f"name must be printable, without a quotation mark, got {shown(self.name)}")
        padding = given(self.padding, ((0, 0),) * ndim)
        unread = self.direction == "backward_input"
        put(self, "padding", tuple(effective_padding(*axis, unread) for axis in zip(
            self.input_size, self.kernel_size, self.stride, self.dilation, low_and_high(padding, ndim))))
        padded = tuple(size + low + high for size, (low, high) in zip(self.input_size, self.padding))
        put(self, "padded_size", padded)
        put(self, "output_size", tuple(map(outputs, padded, self.kernel_size, self.stride, self.dilation)))
        put(self, "sizes_hash", hash((self.batch, self.in_channels, self.out_channels, self.groups, self.input_size,
                                      self.kernel_size, self.stride, self.padding, self.dilation)))
        self._check_bytes()

    def __hash__(self) -> int:
        return self.sizes_hash

    def _check_bytes(self) -> None:
        item = TABLE[self.dtype].itemsize
        sizes = {"output": math.prod(self.output_shape), "weight": math.prod(self.weight_shape),
                 "padded input": max(1, self.batch) * self.in_channels * math.prod(self.padded_size)}
        for what, elements in sizes.items():
            if elements * item >= LARGEST:
                raise ValueError(f"the {what} would have {elements} elements, beyond what can be addressed")

    # ---- derived sizes

    @property
    def ndim(self) -> int:
        """Number of spatial axes."""
        return len(self.input_size)

    @property
    def channels_last(self) -> bool:
        return self.layout == "channels_last"

    def _shape(self, channels: int, space: tuple[int, ...]) -> tuple[int, ...]:
        return (self.batch, *space, channels) if self.channels_last else (self.batch, channels, *space)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the batched input array in this problem's layout."""
        return self._shape(self.in_channels, self.input_size)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of the batched output array in this problem's layout."""
        return self._shape(self.out_channels, self.output_size)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """(out_channels, in_channels / groups, *kernel), in every layout."""
        return (self.out_channels, self.in_channels // self.groups, *self.kernel_size)

    @property
    def first_shape(self) -> tuple[int, ...]:
        """Shape of the first array that the direction reads: input, or the gradient of the output."""
        return self.output_shape if self.direction == "backward_input" else self.input_shape

    @property
    def second_shape(self) -> tuple[int, ...]:
        """Shape of the second, which is packed: weight, or the gradient of the output."""
        return self.output_shape if self.direction == "backward_weight" else self.weight_shape

    @property
    def result_shape(self) -> tuple[int, ...]:
        """Shape of what the direction computes: output, or the gradient of the input, or of the weight."""
        return {"forward": self.output_shape, "backward_input": self.input_shape}.get(self.direction, self.weight_shape)

    @property
    def result_channels(self) -> int:
        """Channels of the result, each of which has a bias."""
        return self.in_channels if self.direction == "backward_input" else self.out_channels

    @property
    def products(self) -> int:
        """At most so many products are summed per element of the result; `k` in the forward direction."""
        if self.direction == "backward_input":
            return self.out_channels // self.groups * self.kernel_volume
        return self.k if self.direction == "forward" else self.batch * math.prod(self.output_size)

    @property
    def kernel_volume(self) -> int:
        """Taps of the kernel: kD·kH·kW."""
        return math.prod(self.kernel_size)

    @property
    def k(self) -> int:
        """K, products summed per output element of the forward direction: (in_channels / groups) · kernel volume."""
        return self.in_channels // self.groups * self.kernel_volume

    @property
    def flops(self) -> int:
        """2·N·OC·OD·OH·OW·K, padding included: the same for every algorithm."""
        return 2 * math.prod(self.output_shape) * self.k

    @property
    def bytes(self) -> int:
        """Bytes that must move at least once: input, weight, bias, residual, output."""
        item = TABLE[self.dtype].itemsize
        arrays = sum(map(math.prod, (self.input_shape, self.weight_shape, self.output_shape)))
        return (arrays + math.prod(self.result_shape) * self.residual + self.result_channels * self.bias) * item

    # ---- construction from arrays and text

    @classmethod
    def from_shapes(
        cls, input_shape: Sequence[int], weight_shape: Sequence[int], *, ndim: int, bias_shape: Sequence[int] | None = None,
        stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: Any = 1, padding_mode: str = "zeros",
        layout: str = "channels_first", activation: Any = None, residual: bool = False, dtype: str = "float32",
        accuracy: str = "fast", direction: str = "forward", names: tuple[str, str] = ("input", "weight"),
    ) -> ConvProblem:
        """The problem that ``convNd(input, weight, ...)`` states; an input of rank ndim + 1 counts as a batch of 1. `names`:
        what the user calls the two."""
        layout = normalize_layout(layout, ndim)
        input_shape, weight_shape = shape(names[0], input_shape), shape(names[1], weight_shape)
        batch, in_channels, size = image_sizes(names[0], f"conv{ndim}d", input_shape, ndim, layout)
        _check_weight_rank(weight_shape, ndim, names[1])
        out_channels, kernel = weight_shape[0], tuple(weight_shape[2:])
        groups = integer("groups", groups, 1)
        _check_weight(in_channels, weight_shape, groups, names)
        if bias_shape is not None and shape("bias", bias_shape) != (out_channels,):
            raise ValueError(f"bias must have shape ({out_channels},), one value per output channel, got {shown(bias_shape)}")
        size = positive_tuple("input size", size, ndim)
        kernel = positive_tuple("kernel size", kernel, ndim)
        stride = axes_of("stride", stride, ndim)
        dilation = axes_of("dilation", dilation, ndim)
        return cls(
            input_size=size, kernel_size=kernel, in_channels=in_channels, out_channels=out_channels, batch=batch,
            groups=groups, stride=stride, dilation=dilation,
            padding=normalize_padding(padding, size, kernel, stride, dilation), padding_mode=padding_mode, dtype=dtype,
            layout=layout, bias=bias_shape is not None, residual=residual, activation=activation, accuracy=accuracy,
            direction=direction)

    @classmethod
    def from_text(cls, text: str) -> ConvProblem:
        """Parse a benchdnn line, such as ``mb1_ic64ih56_oc64oh56_kh3ph1_n"res2"`` (see `problem_text`)."""
        return cls(**problem_text.parse(text))

    @property
    def text(self) -> str:
        """The benchdnn line of this problem; ``ConvProblem.from_text(p.text) == p``."""
        return problem_text.render(self)

    def __str__(self) -> str:
        return self.text


# ---- rules, one function each


def result_dtype(input_dtype: Any, weight_dtype: Any, names: tuple[str, str] = ("input", "weight")) -> str:
    """The dtype a convolution of these two computes in: ``np.result_type``, if that is float32 or float64.

    Raises:
        TypeError: it is anything else; nothing is rounded or widened silently.
    """
    try:
        promoted = name_of(np.result_type(input_dtype, weight_dtype))
    except TypeError:  # times and numbers, records and numbers
        promoted = "nothing"
    if promoted not in DTYPES:
        raise TypeError(f"{names[0]} and {names[1]} must promote to float32 or float64, got {np.dtype(input_dtype).name} and "
                        f"{np.dtype(weight_dtype).name}, which give {promoted}; convert one of them")
    return promoted


def normalize_activation(activation: Any) -> tuple[str, float] | None:
    if activation is None:
        return None
    if isinstance(activation, str):
        activation = (activation,)
    if not isinstance(activation, tuple) or not 1 <= len(activation) <= 2:
        raise TypeError(f"activation must be a name or (name, parameter), got {shown(activation)}")
    name, *parameter = activation
    one_of("activation", name, ACTIVATIONS)
    number = _finite(parameter[0]) if parameter else None
    if name != "leaky_relu":
        if parameter and number != 0:
            raise ValueError(f"activation {name!r} takes no parameter, got {shown(activation)}")
        return name, 0.0
    if parameter and number is None:
        raise ValueError(f"activation 'leaky_relu' takes one finite number, its negative slope, got {shown(activation)}")
    slope = 0.01 if number is None else number
    return (name, slope) if slope else ("relu", 0.0)  # relu in all: the limit at -inf is 0, not -inf times 0


def number(name: str, value: Any) -> float:
    """`value` as a float.

    Raises:
        ValueError: it is no finite real number.
    """
    found = _finite(value)
    if found is None:
        raise ValueError(f"{name} must be a finite number, got {shown(value)}")
    return found


def _finite(value: Any) -> float | None:
    """A finite real number as a float; None if it is anything else."""
    try:
        number = float(value) if isinstance(value, (int, float, np.floating, np.integer)) else math.nan
    except OverflowError:  # an integer beyond all floats
        return None
    return number if math.isfinite(number) else None


def _check_weight_rank(weight_shape: Sequence[int], ndim: int, name: str) -> None:
    if len(weight_shape) != ndim + 2:
        raise ValueError(f"{name} of conv{ndim}d must have shape (out_channels, in_channels / groups, "
                         f"{', '.join('k' + axis for axis in 'DHW'[3 - ndim:])}), got {shown(weight_shape)}")
    if 0 in weight_shape:
        raise ValueError(f"{name} must not be empty, got shape {shown(weight_shape)}")


def _check_channels(in_channels: int, out_channels: int, groups: int) -> None:
    for what, channels in (("input", in_channels), ("output", out_channels)):
        if channels % groups:
            raise ValueError(f"groups must divide the {what} channels, got groups={groups} and {channels} {what} channels")


def _check_weight(in_channels: int, weight_shape: Sequence[int], groups: int, names: tuple[str, str]) -> None:
    if in_channels == 0:
        raise ValueError(f"{names[0]} must have at least one channel, got 0")
    _check_channels(in_channels, weight_shape[0], groups)
    if weight_shape[1] * groups != in_channels:
        raise ValueError(f"{names[1]} of shape {shown(weight_shape)} with groups={groups} expects {weight_shape[1] * groups} "
                         f"input channels ({weight_shape[1]} x {groups}), got {in_channels}")


