"""prepare(): an operator whose weights are snapshotted and packed once, and run many times."""

from __future__ import annotations

import threading
from collections import OrderedDict
from types import SimpleNamespace
from typing import Any

import numpy as np

from . import arrays, directions, ops, settings, torch_arrays
from .arguments import flag, integer
from .arguments import shape as shape_of
from .backends import Shortcut
from .errors import shown
from .plan import Plan, plan

_SHAPES_KEPT = 8  # plans (and packings) kept per prepared operator


class PreparedConv:
    """``act(conv(x, weight) + bias + residual)`` for one set of weights; made by `prepare`.

    Plans and packs at once when the input shape was given, else on first use of each shape. Safe to share between threads;
    picklable (packed anew where it is loaded).
    """

    def __init__(self, weight: Any, bias: Any, arguments: dict[str, Any], input_shape: Any, copy: bool = True,
                 scale: Any = None) -> None:
        kind, (w, b) = arrays.views({"weight": weight}, bias=bias)
        if kind.device != "cpu":
            raise TypeError(f"prepare takes weights on the CPU, got a {kind.name} array on {kind.device}")
        self._weight = np.array(w) if copy else w
        if copy:
            self._weight.flags.writeable = False  # who packs nothing may read it where it lies
        self._bias = None if b is None else np.array(b)
        self._ndim = self._weight.ndim - 2
        if self._ndim not in (1, 2, 3):
            raise ValueError(f"weight must have shape (out_channels, in_channels / groups, *kernel) with 1, 2 or 3 kernel "
                             f"axes, got {shown(self._weight.shape)}")
        self._arguments = arguments
        self._scale = None if scale is None else np.array(scale, np.float64)
        first, second, *_ = self._weight.shape
        outputs = second * integer("groups", arguments["groups"], 1) if "output_padding" in arguments else first
        if self._scale is not None and self._scale.shape != (outputs,):
            raise ValueError(f"scale must have shape ({outputs},), one value per output channel, got "
                             f"{shown(self._scale.shape)}")
        self._bounds: OrderedDict[Any, tuple[ops.Bound, Shortcut | None]] = OrderedDict()
        self._shortcuts: tuple[tuple[ops.Bound, Shortcut], ...] = ()  # those of _bounds, the latest first
        self._packings: dict[Any, Any] = {}
        self._lock = threading.RLock()  # a signal handler may come back here
        self._input_shape = None if input_shape is None else shape_of("input", input_shape)
        self._latest: ops.Bound | None = None
        if self._input_shape is not None:
            self._bound(self._input_shape)

    @torch_arrays.opaque
    def __call__(self, input: Any, *, residual: Any = None, out: Any = None) -> Any:
        """The convolution of `input`, whose dtype must be the weight's.

        Raises:
            TypeError: another dtype; it would need other packed weights.
        """
        current = settings.current()
        for bound, shortcut in self._shortcuts:
            result = shortcut.take(current, (), input, None, None, residual, out)
            if result is not None:
                self._latest = bound
                return result
        kind, (x, r, y) = arrays.views({"input": input}, residual=residual, out=out)
        layout = self._arguments["layout"]
        if kind.name == "torch":
            kind, layout, (x, r, y) = torch_arrays.in_memory_order(kind, self._ndim, layout, (x,), (x, r, y))
        moved = layout is not self._arguments["layout"]
        if x.dtype != self._weight.dtype and x.dtype.name != self._weight.dtype.name:  # names: the byte order may differ
            raise TypeError(f"input must have the weight's dtype {self._weight.dtype.name}, got {x.dtype.name}")
        bound = self._bound(x.shape, r is not None, kind.device, moved)
        return ops.execute(bound, kind, x, self._packed(bound), r, out, y)

    def _bound(self, shape: tuple[int, ...], residual: bool = False, device: str = "cpu", moved: bool = False) -> ops.Bound:
        """`moved`: the shape is channels_last, whatever the arguments say."""
        current = settings.current()
        arguments = {**self._arguments, "layout": "channels_last"} if moved else self._arguments
        key = (shape, residual, device, moved, current.planning)
        found = self._bounds.get(key)
        if found is None:
            with self._lock:
                example = SimpleNamespace(shape=shape, dtype=self._weight.dtype)
                bind = directions.bind_transposed if "output_padding" in arguments else ops.bind
                bound = bind(self._ndim, example, self._weight, self._bias, True if residual else None, device,
                             prepared=True, **arguments)
                packed = self._pack(bound)
                found = bound, None if moved else ops.shortcut_of(bound, current, (), packed)  # a shape would mean two things
                self._bounds[key] = found
                while len(self._bounds) > _SHAPES_KEPT:
                    self._bounds.popitem(last=False)
                    keys = {bound.kernel.pack_key for bound, _ in self._bounds.values()}
                    self._packings = {key: value for key, value in self._packings.items() if key in keys}
                self._shortcuts = tuple((b, s) for b, s in reversed(self._bounds.values()) if s is not None)
        self._latest = found[0]
        return found[0]

    def _pack(self, bound: ops.Bound) -> Any:
        key = bound.kernel.pack_key
        if key not in self._packings:
            self._packings[key] = bound.kernel.pack(*ops.weights_ready(bound, self._scaled(bound.problem.groups), self._bias))
        return self._packings[key]

    def _scaled(self, groups: int) -> np.ndarray:
        """The weights, each output channel's times its value of the scale."""
        weight, scale = self._weight, self._scale
        if scale is None:
            return weight
        scale = scale.reshape(-1, 1)
        if "output_padding" in self._arguments:  # (in, out / groups): each input's outputs are its group's
            scale = np.repeat(scale.reshape(groups, -1), weight.shape[0] // groups, axis=0)
        made = np.multiply(weight, scale.reshape(*scale.shape, *[1] * self._ndim), out=np.empty(weight.shape, weight.dtype),
                           dtype=np.float64, casting="same_kind")  # by NumPy's buffers: no array of float64 is made
        made.flags.writeable = False
        return made

    def _packed(self, bound: ops.Bound) -> Any:
        packed = self._packings.get(bound.kernel.pack_key)
        if packed is None:  # dropped by another thread meanwhile
            with self._lock:
                packed = self._pack(bound)
        return packed

    def plan(self, shape: Any) -> Plan:
        """The plan for inputs of that shape."""
        bound = self._bound(shape_of("input", shape))
        return plan(bound.problem, self._arguments["backend"], self._arguments["algorithm"], prepared=True)

    @property
    def shortcut(self) -> Shortcut | None:
        """Of the latest call, where its kernel offers one: `take` makes such a call again, as `PreparedConv` itself does."""
        return next((shortcut for bound, shortcut in self._shortcuts if bound is self._latest), None)

    @property
    def packed_bytes(self) -> int:
        """Memory of the packed weights of the shape used last (0 before the first)."""
        return self._latest.kernel.packed_bytes if self._latest else 0

    @property
    def workspace_bytes(self) -> int:
        """Scratch memory of one call with the shape used last (0 before the first)."""
        return self._latest.kernel.workspace_bytes if self._latest else 0

    def __reduce__(self) -> Any:
        return PreparedConv, (self._weight, self._bias, self._arguments, self._input_shape, True, self._scale)

    def __repr__(self) -> str:
        return f"PreparedConv(weight {self._weight.shape} {self._weight.dtype.name}, {shown(self._arguments, 300)})"


def prepare(
    weight: Any, bias: Any = None, *, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1,
    padding_mode: str = "zeros", layout: str = "channels_first", activation: Any = None, backend: str = "auto",
    algorithm: str | None = None, accuracy: str | None = None, input_shape: Any = None, transposed: bool = False,
    output_padding: Any = 0, scale: Any = None, copy: bool = True,
) -> PreparedConv:
    """An operator ``conv(x, *, residual=None, out=None)`` with these weights; arguments as for `conv2d`, or, if it is
    `transposed`, for `conv_transpose2d`.

    Weights and bias are copied: later changes of the arrays have no effect. The kernel's axes say whether it is 1-D, 2-D or
    3-D. With `input_shape`, planning and packing happen now; otherwise on the first call with each shape.

    Args:
        scale: (out,): each output channel's weights are multiplied by its value when they are packed, as a batch norm behind
            the convolution would do it; the bias is not.
        copy: False: the array of weights is kept itself, and must not change; a read-only one serves algorithms that pack
            nothing as it is, so that there is one array of weights in all.
    """
    arguments = dict(stride=stride, padding=padding, dilation=dilation, groups=groups, layout=layout, activation=activation,
                     backend=backend, algorithm=algorithm, accuracy=accuracy)
    if flag("transposed", transposed):
        if padding_mode != "zeros":
            raise ValueError(f"padding_mode of a transposed convolution must be zeros, got {shown(padding_mode)}")
        arguments["output_padding"] = output_padding
    else:
        if not isinstance(output_padding, int) or output_padding:
            raise ValueError(f"output_padding belongs to transposed=True, got {shown(output_padding)}")
        arguments["padding_mode"] = padding_mode
    return PreparedConv(weight, bias, arguments, input_shape, flag("copy", copy), scale)
