"""fastconv: convolution for NumPy arrays, as fast as the machine allows, with no framework behind it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from .backends import enable_backend, registry
from .directions import (
    conv1d_backward,
    conv1d_input,
    conv1d_weight,
    conv2d_backward,
    conv2d_input,
    conv2d_weight,
    conv3d_backward,
    conv3d_input,
    conv3d_weight,
    conv_transpose1d,
    conv_transpose2d,
    conv_transpose3d,
)
from .errors import Unavailable, Unsupported
from .image import convolve, correlate
from .losses import (
    cross_entropy,
    cross_entropy_input,
    log_softmax,
    log_softmax_input,
    softmax,
    softmax_input,
)
from .normalization import batch_norm, batch_norm_backward
from .ops import conv1d, conv2d, conv3d, explain
from .plan import Plan
from .pointwise import (
    gelu,
    gelu_input,
    hardswish,
    hardswish_input,
    leaky_relu,
    leaky_relu_input,
    relu,
    relu6,
    relu6_input,
    relu_input,
    sigmoid,
    sigmoid_input,
    silu,
    silu_input,
    tanh,
    tanh_input,
)
from .prepared import PreparedConv, prepare
from .problem import ConvProblem
from .settings import config, get_num_threads, set_num_threads

if TYPE_CHECKING:
    from .verify.check import Report

__version__ = "0.1.0"

__all__ = [
    "ConvProblem", "Plan", "PreparedConv", "Unavailable", "Unsupported", "backends", "batch_norm", "batch_norm_backward",
    "check", "config", "conv1d", "conv1d_backward", "conv1d_input", "conv1d_weight", "conv2d", "conv2d_backward",
    "conv2d_input", "conv2d_weight", "conv3d", "conv3d_backward", "conv3d_input", "conv3d_weight", "conv_transpose1d",
    "conv_transpose2d", "conv_transpose3d", "convolve", "correlate", "cross_entropy", "cross_entropy_input", "enable_backend",
    "explain", "gelu", "gelu_input", "get_num_threads", "hardswish", "hardswish_input", "leaky_relu", "leaky_relu_input",
    "log_softmax", "log_softmax_input", "prepare", "relu", "relu6", "relu6_input", "relu_input", "set_num_threads", "sigmoid",
    "sigmoid_input", "silu", "silu_input", "softmax", "softmax_input", "tanh", "tanh_input",
]


def backends() -> dict[str, str | None]:
    """The backends that take part, in order, each with the reason why it cannot run here, or None."""
    return {name: backend.unavailable() for name, backend in registry().items()}


def check(problems: Iterable[ConvProblem | str] | None = None, backends: Iterable[str] | None = None, quick: bool = False,
          repeats: int = 0) -> Report:
    """Compare every available backend with the oracle: see `fastconv.verify.check.check`."""
    from .verify.check import check as run

    return run(problems, backends, quick, repeats)
