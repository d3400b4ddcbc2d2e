"""Who takes part: fastconv's backends, called as a user calls them.

What is timed is ``conv2d(x, w, b, ..., out=out, backend=name)``, call by call: argument handling and packing of the
weights included, the output's memory reused. Inputs stay the same, so they are as warm as the caches allow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import ops
from ..accuracy import Arrays
from ..backends import get, registry
from ..errors import Unavailable
from ..plan import plan
from ..problem import ConvProblem

_CALLS = (ops.conv1d, ops.conv2d, ops.conv3d)


@dataclass(frozen=True)
class Entry:
    """A contender bound to a problem and its arrays: `call` computes into `out`."""

    algorithm: str
    isa: str | None
    seconds: float | None  # the plan's estimate, if it has one
    out: np.ndarray
    call: Callable[[], Any]


@dataclass(frozen=True)
class BackendContender:
    """A backend of fastconv, with its own choice of algorithm or one that is named."""

    backend: str
    asked: str | None = None  # algorithm

    @property
    def name(self) -> str:
        return self.backend if self.asked is None else f"{self.backend}:{self.asked}"

    @property
    def with_copies(self) -> bool:
        """Whether the time includes copies to and from another device."""
        return get(self.backend).device != "cpu"

    def enter(self, problem: ConvProblem, arrays: Arrays) -> Entry:
        """Bind to a problem and its arrays.

        Raises:
            Unsupported: it refuses the problem.
        """
        chosen = plan(problem, self.backend, self.asked)
        out = np.full(problem.output_shape, np.nan, problem.dtype)  # what is not overwritten shows
        conv = _CALLS[problem.ndim - 1]
        arguments = dict(
            stride=problem.stride, padding=tuple((low, max(high, 0)) for low, high in problem.padding),
            dilation=problem.dilation, groups=problem.groups, padding_mode=problem.padding_mode, layout=problem.layout,
            activation=_as_written(problem), residual=arrays.residual, out=out, backend=self.backend,
            algorithm=self.asked, accuracy=problem.accuracy)
        x, w, b = arrays.x, arrays.w, arrays.b
        return Entry(chosen.algorithm, chosen.isa, chosen.seconds, out, lambda: conv(x, w, b, **arguments))


def _as_written(problem: ConvProblem) -> Any:
    """The activation as a user writes it: only leaky_relu takes a parameter."""
    if problem.activation is None:
        return None
    return problem.activation if problem.activation[0] == "leaky_relu" else problem.activation[0]


def chosen(names: Iterable[str] | None = None) -> list[BackendContender]:
    """The contenders of that name (``cython``, ``cython:gemm``), or every backend that is available.

    Raises:
        ValueError: there is no such backend.
        Unavailable: it cannot run here.
    """
    if names is None:
        return [BackendContender(name) for name, backend in registry().items() if backend.unavailable() is None]
    contenders = [BackendContender(*name.split(":", 1)) for name in names]
    for contender in contenders:
        reason = get(contender.backend).unavailable()
        if reason is not None:
            raise Unavailable(f"backend {contender.backend!r} is not available: {reason}")
    return list(dict.fromkeys(contenders))
