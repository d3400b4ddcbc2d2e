"""Random problems for hypothesis: any combination that is valid, small enough for the oracle."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import assume
from hypothesis import strategies as st

from fastconv.problem import ACTIVATIONS, ConvProblem
from fastconv.window import PADDING_MODES


def activations() -> st.SearchStrategy[Any]:
    # hundredths: a slope too small for float32 to hold precisely makes no difference worth a bound
    slopes = st.integers(-200, 200).map(lambda slope: ("leaky_relu", slope / 100))
    return st.none() | st.sampled_from(ACTIVATIONS) | slopes


@st.composite
def problems(draw: st.DrawFn, largest: int = 30_000) -> ConvProblem:
    """A forward problem of at most `largest` multiply-adds."""
    ndim = draw(st.sampled_from((1, 2, 2, 2, 3)))
    top = {1: 40, 2: 14, 3: 7}[ndim]

    def per_axis(values: st.SearchStrategy[Any]) -> tuple[Any, ...]:
        return tuple(draw(values) for _ in range(ndim))

    groups = draw(st.sampled_from((1, 1, 1, 2, 3, 5)))
    inputs, outputs = draw(st.integers(1, 1 if groups == 5 else 20)), draw(st.integers(1, 34))  # of each group
    kernel, dilation = per_axis(st.integers(1, 5)), per_axis(st.sampled_from((1, 1, 2, 3)))
    size, padding = per_axis(st.integers(1, top)), per_axis(st.tuples(st.integers(0, 4), st.integers(0, 4)))
    # what is too large is made smaller, not thrown away: hypothesis minds, and rare things are large
    kernel = tuple(min(k, (i + lo + hi - 1) // d + 1) for i, (lo, hi), k, d in zip(size, padding, kernel, dilation))
    batch, stride = draw(st.integers(1, 3)), per_axis(st.integers(1, 3))
    pixels = batch * math.prod((i + lo + hi - d * (k - 1) - 1) // s + 1
                               for i, (lo, hi), k, d, s in zip(size, padding, kernel, dilation, stride))
    while max(inputs, outputs) > 1 and pixels * math.prod(kernel) * groups * inputs * outputs > largest:
        inputs, outputs = (-(-inputs // 2), outputs) if inputs > outputs else (inputs, -(-outputs // 2))
    problem = ConvProblem(
        size, kernel, groups * inputs, groups * outputs, batch, groups, stride, padding, dilation,
        draw(st.sampled_from(PADDING_MODES)), draw(st.sampled_from(("float32", "float32", "float64"))),
        draw(st.sampled_from(("channels_first", "channels_last"))), bias=draw(st.booleans()), residual=draw(st.booleans()),
        activation=draw(activations()), accuracy=draw(st.sampled_from(("fast", "strict"))))
    assume(problem.flops <= 2 * largest)
    return problem
