"""fastconv: convolution for NumPy arrays, as fast as the machine allows, with no framework behind it."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

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
from .ops import conv1d, conv2d, conv3d, explain
from .plan import Plan
from .prepared import PreparedConv, prepare
from .problem import ConvProblem
from .settings import config, get_num_threads, set_num_threads

if TYPE_CHECKING:
    from .adaptive_pooling import (
        adaptive_avg_pool1d,
        adaptive_avg_pool2d,
        adaptive_avg_pool3d,
        adaptive_max_pool1d,
        adaptive_max_pool2d,
        adaptive_max_pool3d,
        global_avg_pool,
        global_max_pool,
    )
    from .layer_normalization import layer_norm, layer_norm_backward
    from .losses import (
        cross_entropy,
        cross_entropy_input,
        log_softmax,
        log_softmax_input,
        softmax,
        softmax_input,
    )
    from .normalization import batch_norm, batch_norm_backward
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
    from .pooling import (
        avg_pool1d,
        avg_pool2d,
        avg_pool3d,
        lp_pool1d,
        lp_pool2d,
        lp_pool3d,
        max_pool1d,
        max_pool2d,
        max_pool3d,
        min_pool1d,
        min_pool2d,
        min_pool3d,
    )
    from .pooling_gradients import (
        adaptive_avg_pool1d_input,
        adaptive_avg_pool2d_input,
        adaptive_avg_pool3d_input,
        adaptive_max_pool1d_input,
        adaptive_max_pool2d_input,
        adaptive_max_pool3d_input,
        avg_pool1d_input,
        avg_pool2d_input,
        avg_pool3d_input,
        global_avg_pool_input,
        global_max_pool_input,
        lp_pool1d_input,
        lp_pool2d_input,
        lp_pool3d_input,
        max_pool1d_input,
        max_pool2d_input,
        max_pool3d_input,
        min_pool1d_input,
        min_pool2d_input,
        min_pool3d_input,
    )
    from .unpooling import (
        max_unpool1d,
        max_unpool1d_input,
        max_unpool2d,
        max_unpool2d_input,
        max_unpool3d,
        max_unpool3d_input,
    )
    from .verify.check import Report

__version__ = "0.1.0"

__all__ = [
    "ConvProblem", "Plan", "PreparedConv", "Unavailable", "Unsupported", "adaptive_avg_pool1d", "adaptive_avg_pool1d_input",
    "adaptive_avg_pool2d", "adaptive_avg_pool2d_input", "adaptive_avg_pool3d", "adaptive_avg_pool3d_input",
    "adaptive_max_pool1d", "adaptive_max_pool1d_input", "adaptive_max_pool2d", "adaptive_max_pool2d_input",
    "adaptive_max_pool3d", "adaptive_max_pool3d_input", "avg_pool1d", "avg_pool1d_input", "avg_pool2d", "avg_pool2d_input",
    "avg_pool3d", "avg_pool3d_input", "backends", "batch_norm", "batch_norm_backward", "check", "config", "conv1d",
    "conv1d_backward", "conv1d_input", "conv1d_weight", "conv2d", "conv2d_backward", "conv2d_input", "conv2d_weight",
    "conv3d", "conv3d_backward", "conv3d_input", "conv3d_weight", "conv_transpose1d", "conv_transpose2d",
    "conv_transpose3d", "convolve", "correlate", "cross_entropy", "cross_entropy_input", "enable_backend", "explain",
    "gelu", "gelu_input", "get_num_threads", "global_avg_pool", "global_avg_pool_input", "global_max_pool",
    "global_max_pool_input", "hardswish", "hardswish_input", "layer_norm", "layer_norm_backward", "leaky_relu",
    "leaky_relu_input", "log_softmax",
    "log_softmax_input", "lp_pool1d", "lp_pool1d_input", "lp_pool2d", "lp_pool2d_input", "lp_pool3d", "lp_pool3d_input",
    "max_pool1d", "max_pool1d_input", "max_pool2d", "max_pool2d_input", "max_pool3d", "max_pool3d_input", "max_unpool1d",
    "max_unpool1d_input", "max_unpool2d", "max_unpool2d_input", "max_unpool3d", "max_unpool3d_input", "min_pool1d",
    "min_pool1d_input", "min_pool2d", "min_pool2d_input", "min_pool3d", "min_pool3d_input", "prepare", "relu", "relu6",
    "relu6_input", "relu_input", "set_num_threads", "sigmoid", "sigmoid_input", "silu", "silu_input", "softmax",
    "softmax_input", "tanh", "tanh_input",
]


_LATER = {  # imported when they are first asked for
    "adaptive_pooling": ("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool1d",
        "adaptive_max_pool2d", "adaptive_max_pool3d", "global_avg_pool", "global_max_pool"),
    "layer_normalization": ("layer_norm", "layer_norm_backward"),
    "losses": ("cross_entropy", "cross_entropy_input", "log_softmax", "log_softmax_input", "softmax", "softmax_input"),
    "normalization": ("batch_norm", "batch_norm_backward"),
    "pointwise": ("gelu", "gelu_input", "hardswish", "hardswish_input", "leaky_relu", "leaky_relu_input", "relu", "relu6",
        "relu6_input", "relu_input", "sigmoid", "sigmoid_input", "silu", "silu_input", "tanh", "tanh_input"),
    "pooling": ("avg_pool1d", "avg_pool2d", "avg_pool3d", "lp_pool1d", "lp_pool2d", "lp_pool3d", "max_pool1d",
        "max_pool2d", "max_pool3d", "min_pool1d", "min_pool2d", "min_pool3d"),
    "pooling_gradients": ("adaptive_avg_pool1d_input", "adaptive_avg_pool2d_input", "adaptive_avg_pool3d_input",
        "adaptive_max_pool1d_input", "adaptive_max_pool2d_input", "adaptive_max_pool3d_input", "avg_pool1d_input",
        "avg_pool2d_input", "avg_pool3d_input", "global_avg_pool_input", "global_max_pool_input", "lp_pool1d_input",
        "lp_pool2d_input", "lp_pool3d_input", "max_pool1d_input", "max_pool2d_input", "max_pool3d_input",
        "min_pool1d_input", "min_pool2d_input", "min_pool3d_input"),
    "unpooling": ("max_unpool1d", "max_unpool1d_input", "max_unpool2d", "max_unpool2d_input", "max_unpool3d",
        "max_unpool3d_input"),
}
_FROM = {name: module for module, names in _LATER.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _FROM:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(importlib.import_module(f".{_FROM[name]}", __name__), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_FROM})


def backends() -> dict[str, str | None]:
    """The backends that take part, in order, each with the reason why it cannot run here, or None."""
    return {name: backend.unavailable() for name, backend in registry().items()}


def check(problems: Iterable[ConvProblem | str] | None = None, backends: Iterable[str] | None = None, quick: bool = False,
          repeats: int = 0) -> Report:
    """Compare every available backend with the oracle: see `fastconv.verify.check.check`."""
    from .verify.check import check as run

    return run(problems, backends, quick, repeats)
