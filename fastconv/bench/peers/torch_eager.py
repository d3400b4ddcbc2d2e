"""PyTorch on the CPU, eager: ``torch.nn.functional.conv2d`` in inference mode. Weights are reordered in every call,
and an activation is a step of its own. Gradients are what autograd calls, ``aten::convolution_backward``; those with a bias or
an activation are ``conv_transpose2d``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...problem import ACTIVATIONS, ConvProblem
from ...verify.data import Arrays
from . import Bound
from .common import border, library, missing, pads, refuses_extras

_MODES = {"zeros": "constant", "reflect": "reflect", "replicate": "replicate", "circular": "circular"}


class Torch:
    name = "torch"
    package = "torch"
    prepared = False

    def unavailable(self) -> str | None:
        return missing(self.package, "torch")

    def start(self, threads: int) -> str:
        torch = self._torch = library("torch")
        torch.set_num_threads(threads)
        if torch.get_num_interop_threads() != 1:  # may be set once only
            torch.set_num_interop_threads(1)
        return f"torch {torch.__version__}"

    def refuses(self, problem: ConvProblem) -> str | None:
        if problem.direction != "forward" and not _by_padding(problem):
            return "of gradients, only those with the same zero padding at both ends are timed"
        return refuses(problem)

    def bind(self, problem: ConvProblem, arrays: Arrays) -> Bound:
        x, w, b = tensors(self._torch, problem, arrays)
        layout = memory_format(self._torch, problem)
        if problem.direction == "forward":
            return bound(problem, convolution(self._torch, problem, x, w, b, layout))
        if problem.bias or problem.activation:
            return bound(problem, transposed(self._torch, problem, x, w, b, layout))
        return bound(problem, gradient(self._torch, problem, x, w, layout))


def refuses(problem: ConvProblem) -> str | None:
    """What neither device computes."""
    if problem.channels_last and problem.ndim == 1:
        return "torch has no channels-last memory for one axis"
    mode = border(problem)
    if mode not in _MODES:
        return f"torch does not pad {mode}"
    room = {"reflect": 1, "circular": 0}.get(mode)  # by how much the image must exceed the padding
    if room is not None and any(max(pair) + room > size for pair, size in zip(pads(problem), problem.input_size)):
        return f"torch does not pad {mode} beyond the image's size"
    if problem.direction != "forward":
        return "no residual is timed" if problem.residual else None
    return refuses_extras(problem, ACTIVATIONS)


def _by_padding(problem: ConvProblem) -> bool:
    """Whether torch's convolution pads by itself: zeros, as many at both ends. (Windows that reach beyond the effective far
    padding by less than a stride add no output.)"""
    return border(problem) == "zeros" and all(
        0 <= low - high < stride for (low, high), stride in zip(problem.padding, problem.stride))


def tensors(torch: Any, problem: ConvProblem, arrays: Arrays) -> tuple[Any, Any, Any]:
    """(input, weight, bias) in the arrays' memory where possible; torch's shapes are always channels first."""
    def tensor(array: np.ndarray | None) -> Any:
        return None if array is None else torch.from_numpy(np.require(array, requirements=["C", "W"]))

    x, w, b = map(tensor, arrays[:3])
    if problem.channels_last:  # NHWC memory under an NCHW shape is what torch calls channels_last
        x = x.movedim(-1, 1)
        if problem.direction == "backward_weight":
            return x, w.movedim(-1, 1), b
        w = w.contiguous(memory_format=memory_format(torch, problem))
    return x, w, b


def memory_format(torch: Any, problem: ConvProblem) -> Any:
    """torch's name of the problem's layout."""
    if not problem.channels_last:
        return torch.contiguous_format
    return torch.channels_last if problem.ndim == 2 else torch.channels_last_3d


def convolution(torch: Any, problem: ConvProblem, x: Any, w: Any, b: Any, layout: Any) -> Callable[[], Any]:
    """A call that returns the output tensor, in a memory format.

    Padding that differs between the ends, or is not of zeros, is a step of its own.
    """
    functional = torch.nn.functional
    conv = (functional.conv1d, functional.conv2d, functional.conv3d)[problem.ndim - 1]
    by_conv = _by_padding(problem)
    padding = tuple(low for low, _ in problem.padding) if by_conv else 0
    before = [] if by_conv else [width for pair in reversed(pads(problem)) for width in pair]  # last axis first
    mode = _MODES[border(problem)]

    act = activation(torch, problem)

    @torch.inference_mode()
    def call() -> Any:
        padded = functional.pad(x, before, mode=mode) if any(before) else x
        y = conv(padded, w, b, problem.stride, padding, problem.dilation, problem.groups)
        if act is not None:
            y = act(y)
        return y.contiguous(memory_format=layout)  # as it already is, with few exceptions

    return call


def gradient(torch: Any, problem: ConvProblem, first: Any, second: Any, layout: Any) -> Callable[[], Any]:
    """A call that returns the gradient of the input or of the weight."""
    of_input = problem.direction == "backward_input"
    shape = (problem.batch, problem.in_channels, *problem.input_size)  # as torch sees it
    g, x, w = (first, torch.empty(shape, dtype=first.dtype), second) if of_input else (
        second, first, torch.empty(problem.weight_shape, dtype=first.dtype))
    x, w = x.contiguous(memory_format=layout), w.contiguous(memory_format=layout)
    padding = [low for low, _ in problem.padding]
    arguments = (None, problem.stride, padding, problem.dilation, False, [0] * problem.ndim, problem.groups,
                 (of_input, not of_input, False))

    @torch.inference_mode()
    def call() -> Any:
        return torch.ops.aten.convolution_backward(g, x, w, *arguments)[0 if of_input else 1]

    return call


def transposed(torch: Any, problem: ConvProblem, x: Any, w: Any, b: Any, layout: Any) -> Callable[[], Any]:
    """A call that returns the transposed convolution, in a memory format."""
    functional = torch.nn.functional
    conv = (functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d)[problem.ndim - 1]
    padding = [low for low, _ in problem.padding]
    more = [low - high for low, high in problem.padding]
    act = activation(torch, problem)

    @torch.inference_mode()
    def call() -> Any:
        y = conv(x, w, b, problem.stride, padding, more, problem.groups, problem.dilation)
        return (y if act is None else act(y)).contiguous(memory_format=layout)

    return call


def activation(torch: Any, problem: ConvProblem) -> Callable[[Any], Any] | None:
    """The problem's activation of a tensor that nobody else needs: in place where torch can."""
    if problem.activation is None:
        return None
    functional, (name, parameter) = torch.nn.functional, problem.activation
    return {
        "relu": torch.relu_, "sigmoid": torch.sigmoid_, "tanh": torch.tanh_, "gelu": functional.gelu,
        "relu6": lambda y: functional.relu6(y, inplace=True), "silu": lambda y: functional.silu(y, inplace=True),
        "hardswish": lambda y: functional.hardswish(y, inplace=True),
        "leaky_relu": lambda y: functional.leaky_relu(y, parameter, inplace=True),
        "gelu_tanh": lambda y: functional.gelu(y, approximate="tanh"),
    }[name]


def bound(problem: ConvProblem, convolve: Callable[[], Any]) -> Bound:
    """Of a call that returns a tensor."""
    latest: list[Any] = [None]

    def call() -> None:
        latest[0] = convolve()

    def result() -> np.ndarray:
        y = latest[0].cpu()
        moved = problem.channels_last and problem.direction != "backward_weight"
        return np.ascontiguousarray((y.movedim(1, -1) if moved else y).numpy())

    return Bound("-", call, result)


peers = (Torch(),)
