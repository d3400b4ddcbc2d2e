"""First values of weights: He, Xavier and LeCun, by PyTorch's names; every one takes the generator that it draws from.

Weights have the shape (out, in / groups, *kernel); a unit's *fan in* is in / groups times the kernel volume, its *fan out*
out times that.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..errors import shown
from .module import Parameter

GAINS = {"linear": 1.0, "sigmoid": 1.0, "tanh": 5 / 3, "relu": math.sqrt(2)}


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """(fan in, fan out)."""
    if len(shape) < 2:
        raise ValueError(f"a weight must have at least two axes, got shape {shown(shape)}")
    volume = math.prod(shape[2:])
    return shape[1] * volume, shape[0] * volume


def gain(nonlinearity: str, slope: float = 0.0) -> float:
    """What the deviation is multiplied by, so that outputs keep theirs behind this activation."""
    if nonlinearity == "leaky_relu":
        return math.sqrt(2 / (1 + slope**2))
    if nonlinearity not in GAINS:
        raise ValueError(f"nonlinearity must be one of {', '.join([*GAINS, 'leaky_relu'])}, got {shown(nonlinearity)}")
    return GAINS[nonlinearity]


def generator(rng: Any) -> np.random.Generator:
    """`rng` itself; where it is None, one that nobody can repeat."""
    if rng is not None and not isinstance(rng, np.random.Generator):
        raise TypeError(f"rng must be a numpy.random.Generator, such as numpy.random.default_rng(0), got {shown(rng)}")
    return np.random.default_rng() if rng is None else rng


def uniform_(parameter: Parameter, bound: float, rng: np.random.Generator) -> Parameter:
    """Uniform between -bound and bound."""
    values = rng.random(dtype=parameter.dtype, out=_room(parameter))
    values *= 2 * bound
    values -= bound
    return parameter.own(values)


def normal_(parameter: Parameter, deviation: float, rng: np.random.Generator) -> Parameter:
    """Normal, of mean 0."""
    values = rng.standard_normal(dtype=parameter.dtype, out=_room(parameter))
    values *= deviation
    return parameter.own(values)


def constant_(parameter: Parameter, value: float) -> Parameter:
    return parameter.own(np.full(parameter.shape, value, parameter.dtype))


def kaiming_uniform_(parameter: Parameter, slope: float = 0.0, nonlinearity: str = "leaky_relu", *, mode: str = "fan_in",
                     rng: np.random.Generator) -> Parameter:
    """He et al. 2015 (arXiv:1502.01852): variance gain² / fan."""
    return uniform_(parameter, gain(nonlinearity, slope) * math.sqrt(3 / _fan(parameter, mode)), rng)


def kaiming_normal_(parameter: Parameter, slope: float = 0.0, nonlinearity: str = "leaky_relu", *, mode: str = "fan_in",
                    rng: np.random.Generator) -> Parameter:
    """He et al. 2015 (arXiv:1502.01852): variance gain² / fan."""
    return normal_(parameter, gain(nonlinearity, slope) / math.sqrt(_fan(parameter, mode)), rng)


def xavier_uniform_(parameter: Parameter, gain: float = 1.0, *, rng: np.random.Generator) -> Parameter:
    """Glorot and Bengio 2010: variance 2·gain² / (fan in + fan out)."""
    return uniform_(parameter, gain * math.sqrt(6 / sum(fans(parameter.shape))), rng)


def xavier_normal_(parameter: Parameter, gain: float = 1.0, *, rng: np.random.Generator) -> Parameter:
    """Glorot and Bengio 2010: variance 2·gain² / (fan in + fan out)."""
    return normal_(parameter, gain * math.sqrt(2 / sum(fans(parameter.shape))), rng)


def lecun_normal_(parameter: Parameter, *, rng: np.random.Generator) -> Parameter:
    """LeCun et al. 1998, "Efficient BackProp": variance 1 / fan in."""
    return normal_(parameter, 1 / math.sqrt(fans(parameter.shape)[0]), rng)


def _room(parameter: Parameter) -> np.ndarray:
    """Where new values go: its own memory, which may be most of what there is, unless somebody relies on it."""
    own = parameter.data
    return own if own.flags.writeable and own.flags.c_contiguous else np.empty(own.shape, own.dtype)


def _fan(parameter: Parameter, mode: str) -> int:
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"mode must be 'fan_in' or 'fan_out', got {shown(mode)}")
    return fans(parameter.shape)[mode == "fan_out"]


def as_pytorch(weight: Parameter, bias: Parameter | None, fan_in: int, rng: np.random.Generator) -> None:
    """PyTorch's own for convolutions and linear layers: both uniform within 1 / √(fan in)."""
    bound = 1 / math.sqrt(fan_in) if fan_in else 0.0
    uniform_(weight, bound, rng)
    if bias is not None:
        uniform_(bias, bound, rng)
