"""What ``fastconv tune --machine`` measures: this machine's row of the table that estimates read (see `fastconv.machine`).

As the estimates count, not as loops that do nothing else would have it: what kernels take for layers whose costs are known, and
for weights of many bytes that meet one pixel. One thread, CPU time, the fastest call: another program only slows.
"""

from __future__ import annotations

import math
import statistics

import numpy as np

from .. import algorithms, native, settings
from ..backends import Candidate
from ..backends.cython_native import backend, chosen_isas
from ..candidates import bind
from ..errors import Unavailable
from ..machine import Machine, typical
from ..problem import ConvProblem
from ..timing.fastest import fastest
from ..verify.data import same_arrays
from ..verify.judge import Comparison

SECONDS = 0.1  # of calls, for each figure
LAYERS = (  # by algorithms that are often chosen; what they read stays in L2
    ("winograd", "mb1_ic64ih28_oc64oh28_kh3ph1"), ("winograd", "mb1_ic96ih14_oc96oh14_kh3ph1"),
    ("gemm", "mb1_ic128ih28_oc128oh28_kh1ph0"), ("gemm", "mb1_ic32ih56_oc64oh28_kh3sh2ph1"),
    ("direct", "mb1_ic16ih56_oc16oh56_kh3ph1"), ("depthwise", "mb1_g64ic64ih28_oc64oh28_kh3ph1"))
FAR = 4  # times L3: what is in memory for certain
MOST = 256 << 20  # bytes of weights that are made for that


def measure() -> Machine:
    """The machine as it is.

    Raises:
        Unavailable: there are no native kernels.
        RuntimeError: one of them computes something wrong.
    """
    reason = backend.unavailable()
    if reason is not None:
        raise Unavailable(f"what is measured are the native kernels: {reason}")
    with settings.config(num_threads=1, wisdom=None, expected_batch=1, accuracy="fast"):
        kind, best = typical(), chosen_isas()[0]
        call = _seconds(_of_one_pixel(4), "dot", best)
        rates = {isa: statistics.median(_rate(name, text, isa, call) for name, text in LAYERS) for isa in chosen_isas()}
        levels = [level._replace(speed=_speed(size, best)) for level, size in zip(kind.levels, _sizes(kind), strict=True)]
    return Machine({**kind.multiply_adds, **rates}, tuple(levels), call)


def _rate(algorithm: str, text: str, isa: str, call: float) -> float:
    """Vectors of multiply-adds in a second, as the algorithm's cost counts them."""
    p = ConvProblem.from_text(text)
    lanes = native.isa_module(isa).lanes
    return sum(algorithms.named()[algorithm].cost(p, lanes).values()) / max(_seconds(p, algorithm, isa) - call, call)


def _sizes(kind: Machine) -> list[float]:
    """Bytes of weights that lie well within each level."""
    near = [level.size for level in kind.levels[:-1]]
    return [0.7 * near[0], *(0.85 * size for size in near[1:]), min(FAR * near[-1], MOST)]


def _speed(size: float, isa: str) -> float:
    """Bytes of weights that are read in a second."""
    p = _of_one_pixel(math.isqrt(int(size) // 4))
    return p.out_channels * p.k * 4 / _seconds(p, "dot", isa)


def _of_one_pixel(channels: int) -> ConvProblem:
    return ConvProblem((1, 1), (1, 1), channels, channels)


def _seconds(p: ConvProblem, algorithm: str, isa: str) -> float:
    """Of the fastest call with packed weights, whose result is right."""
    candidate = Candidate(algorithm, isa)
    kernel, arrays, out = bind(p, backend.name, candidate), same_arrays(p), np.full(p.output_shape, np.nan, p.dtype)
    packed = kernel.pack(arrays.w, arrays.b)
    kernel.run(arrays.x, packed, out)
    wrong = Comparison(p, arrays).wrong(out, candidate)
    if wrong is not None:
        raise RuntimeError(f"{candidate} computes {p.text} wrong: {wrong}")
    return fastest([lambda: kernel.run(arrays.x, packed, out)], SECONDS)[0]
