"""The gradients of convolutions, and transposed convolutions: right numbers, of every backend and algorithm.

What is right is in `direction_cases`: by torch's autograd, and by definition.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from direction_cases import (
    DTYPES,
    GRID,
    INDEX,
    LAYOUTS,
    TRANSPOSED,
    Case,
    Sum,
    Transposed,
    bias_of,
    channels_first,
    compute,
    conv,
    conv_backward,
    conv_input,
    conv_transpose,
    conv_weight,
    data,
    expected,
    gradients,
    near,
    one_at_each,
    poisoned,
    random_case,
    random_transposed,
    sums,
    torch_gradients,
    torch_transposed,
    transposed,
    typed,
)

import fastconv
from fastconv.algorithms import sums_products
from fastconv.backends import Candidate, get
from fastconv.candidates import bind, ranked
from fastconv.problem import ConvProblem
from fastconv.window import PADDING_MODES


def check(case: Case, wanted: Any, dtype: str, **keywords: Any) -> None:
    """All three functions with the case's data."""
    x, w, g = typed(data(case), dtype)
    strict = keywords.get("accuracy") == "strict"
    found = {"input": conv_input(case, w, g, **keywords), "weight": conv_weight(case, x, g, **keywords)}
    for name, result, sum_ in zip(("input", "weight"), found.values(), wanted):
        assert result.dtype == dtype and result.flags.c_contiguous, name
        near(result, sum_, strict, (name, dtype, case))
    for name, result, sum_ in zip(("input", "weight", "bias"), conv_backward(case, g, x, w, **keywords), wanted, strict=True):
        assert result.dtype == dtype and result.flags.c_contiguous, name
        near(result, sum_, strict or name == "bias", ("backward", name, dtype, case))


@functools.lru_cache(maxsize=256)
def by_torch(case: Case) -> list[Sum]:
    pytest.importorskip("torch")
    found = torch_gradients(case, *data(case))
    return [sum_._replace(value=value) for value, sum_ in zip(found, expected(case), strict=True)]


# ---- numbers


def test_by_hand(backend):
    x, w, g = np.array([[[1.0, 2, 3, 4]]]), np.array([[[1.0, 10, 100]]]), np.array([[[1.0, 2]]])
    keywords = dict(backend=backend, accuracy="strict")
    assert fastconv.conv1d_input((1, 1, 4), w, g, **keywords).tolist() == [[[1, 12, 120, 200]]]
    assert fastconv.conv1d_weight(x, (1, 1, 3), g, **keywords).tolist() == [[[5, 8, 11]]]
    assert [a.tolist() for a in fastconv.conv1d_backward(g, x, w, **keywords)] == [[[[1, 12, 120, 200]]], [[[5, 8, 11]]], [3]]
    assert fastconv.conv_transpose1d(g, w, [7.0], **keywords).tolist() == [[[8, 19, 127, 207]]]
    assert fastconv.conv_transpose1d(g, w, stride=2, **keywords).tolist() == [[[1, 10, 102, 20, 200]]]
    assert fastconv.conv_transpose1d(g, w, stride=2, padding=1, output_padding=1, **keywords).tolist() == [[[10, 102, 20, 200]]]


@pytest.mark.parametrize("name", GRID)
def test_gradients_as_torch_computes_them(name, backend):
    for layout, accuracy in zip(LAYOUTS, ("strict", "fast")):
        case = GRID[name]._replace(layout=layout)
        for dtype in DTYPES:
            check(case, by_torch(case), dtype, backend=backend, accuracy=accuracy)


@pytest.mark.parametrize("seed", range(150))
def test_random_gradients_as_torch_computes_them(seed):
    case = random_case(seed)
    check(case, by_torch(case), DTYPES[seed % 2], accuracy=("fast", "fast", "strict")[seed % 3])


@pytest.mark.parametrize("block", range(6))
def test_random_gradients(block, backend):
    """By definition, without torch, of every backend."""
    for seed in range(1000 + 10 * block, 1010 + 10 * block):
        case = random_case(seed)
        check(case, expected(case), DTYPES[seed % 2], backend=backend, accuracy=("fast", "fast", "strict")[seed % 3])


def check_transposed(case: Transposed, value: np.ndarray | None, dtype: str, **keywords: Any) -> None:
    """With a bias; a `value` of None: by definition."""
    x, w, b = typed((*data(case)[:2], bias_of(case)), dtype)
    sum_, = sums(transposed, case, x, w, b)
    y = conv_transpose(case, x, w, b, **keywords)
    assert y.dtype == dtype and y.flags.c_contiguous
    near(y, sum_ if value is None else sum_._replace(value=value), keywords.get("accuracy") == "strict", (dtype, case))


@pytest.mark.parametrize("name", TRANSPOSED)
def test_transposed_as_torch_computes_it(name, backend):
    pytest.importorskip("torch")
    for layout, accuracy in zip(LAYOUTS, ("strict", "fast")):
        case = TRANSPOSED[name]._replace(layout=layout)
        value = torch_transposed(case, *data(case)[:2], bias_of(case))
        for dtype in DTYPES:
            check_transposed(case, value, dtype, backend=backend, accuracy=accuracy)


@pytest.mark.parametrize("seed", range(150))
def test_random_transposed_as_torch_computes_it(seed):
    pytest.importorskip("torch")
    case = random_transposed(seed)
    value = torch_transposed(case, *data(case)[:2], bias_of(case))
    check_transposed(case, value, DTYPES[seed % 2], accuracy=("fast", "fast", "strict")[seed % 3])


@pytest.mark.parametrize("block", range(6))
def test_random_transposed(block, backend):
    for seed in range(1000 + 10 * block, 1010 + 10 * block):
        check_transposed(random_transposed(seed), None, DTYPES[seed % 2], backend=backend)


@pytest.mark.parametrize("name", [name for name in TRANSPOSED if name.startswith("2d") or "holes" in name])
def test_epilogue_of_transposed(name, backend):
    """act(conv_t + bias + residual), also where no tap reaches."""
    for layout, dtype in zip(LAYOUTS, DTYPES):
        case = TRANSPOSED[name]._replace(layout=layout)
        x, w, r = typed(data(case, seed=4), dtype)
        for b, residual in ((bias_of(case).astype(dtype), r), (None, r), (bias_of(case).astype(dtype), None), (None, None)):
            sum_, = sums(transposed, case, x, w, b, residual)
            for activation, slope in ((None, 1.0), ("relu", 0.0), (("leaky_relu", 0.25), 0.25)):
                y = conv_transpose(case, x, w, b, residual=residual, activation=activation, backend=backend)
                near(y, sum_._replace(value=np.where(sum_.value < 0, slope * sum_.value, sum_.value)), what=(activation, case))


def test_all_products_are_zero(backend):
    """accuracy="strict" gives exactly act(0 + bias), whether a phase has taps or not."""
    case = Transposed((3, 4), (3, 1), stride=(2, 3), output_padding=(1, 2))
    x, w, b = np.zeros(case.input_shape, np.float32), data(case)[1], np.array([0.1, -0.7], np.float32)
    y = conv_transpose(case, x, w, b, activation=("leaky_relu", 0.5), backend=backend, accuracy="strict")
    assert (y[:, 0] == b[0]).all() and (y[:, 1] == np.float32(0.5) * b[1]).all()
    of = Case((6, 7), (3, 2), padding=2, stride=(1, 4), mode="reflect")
    _, w, g = data(of)
    assert not conv_input(of, w, 0 * g, backend=backend, accuracy="strict").any()


# ---- convolution is bilinear: <conv(x, w), g> = <x, conv_input(g)> = <w, conv_weight(g)>

BILINEAR = (
    Case((9,), (3,), stride=2, padding=((2, 3),)), Case((4,), (3,), padding=((6, 5),), stride=3, dilation=2),
    Case((5, 4), (3, 2), (4, 6), groups=2, stride=(2, 1), dilation=(1, 2), padding=((1, 2), (3, 0)), layout="channels_last"),
    Case((6, 7), (3, 3), (5, 5), groups=5, padding=(2, 1), stride=(1, 3)),
    Case((3, 4, 3), (2, 2, 3), (3, 2), stride=(1, 2, 2), padding=((1, 0), 1, (0, 2))))


@pytest.mark.parametrize("mode", PADDING_MODES)
def test_inner_products(mode, backend):
    for case in (case._replace(mode=mode) for case in BILINEAR):
        x, w, g = typed(data(case, seed=1), "float64")
        forward = np.vdot(conv(case, x, w, backend=backend), g)
        most = 1e-13 * np.vdot(np.abs(x), sums(gradients, case, x, w, g)[0].magnitude)
        assert abs(forward - np.vdot(x, conv_input(case, w, g, backend=backend))) <= most, case
        assert abs(forward - np.vdot(w, conv_weight(case, x, g, backend=backend))) <= most, case


@pytest.mark.parametrize("name", ["1d stride", "2d strides", "2d sides of padding", "2d groups", "3d strides"])
def test_inner_products_of_transposed(name, backend):
    """It is the adjoint of the convolution with the same weight."""
    for layout in LAYOUTS:
        case = TRANSPOSED[name]._replace(layout=layout)
        x, w, g = typed(data(case), "float64")
        keywords = {key: value for key, value in case.keywords.items() if key != "output_padding"}
        back = getattr(fastconv, f"conv{case.ndim}d")(g, w, **keywords, backend=backend)
        sum_, = sums(transposed, case, x, w)
        most = 1e-13 * np.vdot(np.abs(g), sum_.magnitude)
        assert abs(np.vdot(conv_transpose(case, x, w, backend=backend), g) - np.vdot(x, back)) <= most


@pytest.mark.parametrize("mode", PADDING_MODES)
def test_every_partial_derivative(mode, backend):
    """Finite differences: of a linear function they are exact with any step, and integers have no rounding errors."""
    case = Case((4, 5), (2, 3), batch=1, stride=(1, 2), padding=((1, 2), (2, 1)), mode=mode)
    x, w, g = typed(data(case, seed=2, integers=True), "float64")
    keywords = dict(backend=backend, accuracy="strict")
    images = np.concatenate(list(one_at_each(x.shape)))  # a batch of all steps
    steps = conv(case, images, w, **keywords)
    by_step = np.einsum("nchw,chw->n", steps, g[0]).reshape(x.shape)
    assert np.array_equal(conv_input(case, w, g, **keywords), by_step)
    by_step = np.array([np.vdot(conv(case, x, step, **keywords), g) for step in one_at_each(w.shape)]).reshape(w.shape)
    assert np.array_equal(conv_weight(case, x, g, **keywords), by_step)


# ---- every algorithm

ALGORITHMS = {
    "3x3": Case((10, 11), (3, 3), (8, 9), padding=1),
    "3x3 channels last": Case((9, 10), (3, 3), (9, 16), padding=1, layout="channels_last"),
    "3x3 stride": Case((11, 10), (3, 3), (8, 5), stride=2, padding=((1, 0), (0, 1))),
    "1x1": Case((7, 6), (1, 1), (17, 9)),
    "1x1 stride": Case((7, 6), (1, 1), (5, 9), stride=2, layout="channels_last"),
    "one pixel": Case((1, 1), (1, 1), (12, 7), 3),
    "wide": Case((20, 19), (7, 9), (2, 3), 1, padding=(3, 4)),
    "dilation": Case((11, 9), (3, 2), (3, 5), stride=(2, 1), dilation=(2, 3), padding=2),
    "groups": Case((8, 7), (3, 3), (6, 8), groups=2, padding=1, layout="channels_last"),
    "depthwise": Case((9, 10), (3, 3), (17, 17), 1, groups=17, padding=1),
    "depthwise stride": Case((11, 9), (5, 3), (9, 9), 1, groups=9, stride=2, padding=(2, 1), layout="channels_last"),
    "multiplier": Case((6, 7), (3, 3), (4, 12), groups=4, padding=1),
    "holes": Case((11, 9), (2, 1), (3, 4), stride=(3, 2)),
    "reflect": Case((7, 8), (3, 3), (5, 4), padding=((2, 1), (0, 3)), mode="reflect", stride=(1, 2)),
    "circular": Case((6, 5), (5, 3), (3, 4), padding=(4, 2), mode="circular", layout="channels_last"),
    "1d": Case((61,), (9,), (3, 8), padding=4),
    "1d stride": Case((40,), (4,), (5, 3), stride=3, padding=((3, 1),)),
    "3d": Case((5, 4, 6), (3, 3, 3), (3, 4), padding=1),
    "3d stride": Case((5, 6, 4), (2, 3, 2), (4, 3), stride=2, padding=(1, 0, 1), layout="channels_last"),
}


def candidates(backend: str, problem: ConvProblem) -> list[Candidate]:
    """All that compute the problem, of all ISAs."""
    return [each.candidate for each in ranked(problem, backend)[0]]


def forced(backend: str, problem: ConvProblem) -> Iterator[tuple[str, dict[str, Any]]]:
    """(algorithm, the keywords that ask for it), while only its ISA is in use."""
    for candidate in candidates(backend, problem):
        with fastconv.config(**({} if candidate.isa is None else {"isa": candidate.isa})):
            yield candidate.algorithm, dict(backend=backend, algorithm=candidate.algorithm)


@pytest.mark.parametrize("direction", INDEX)
@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm(name, direction, backend):
    """As naive computes it; nothing is left of what was in `out`; sums of integers are exact."""
    case = ALGORITHMS[name]
    for dtype, integers in ((dtype, integers) for dtype in DTYPES for integers in (False, True)):
        arrays = typed(data(case, seed=6, integers=integers), dtype)
        sum_ = sums(gradients, case, *arrays)[INDEX[direction]]
        naive = compute(direction, case, *arrays, backend="naive").astype(np.float64)
        for algorithm, keywords in forced(backend, case.problem(direction, dtype)):
            out = poisoned(sum_.value.shape, dtype)
            assert compute(direction, case, *arrays, out=out, **keywords) is out
            what, strict = (backend, algorithm, dtype, case), sums_products(algorithm)
            near(out, sum_, strict, what)
            near(out, sum_._replace(value=naive), strict, what)
            assert not (integers and strict) or np.array_equal(out, sum_.value), what


@pytest.mark.parametrize("name", ["1d stride", "2d decoder", "2d strides", "2d groups", "2d depthwise", "2d large kernel",
                                  "3d"])
def test_every_algorithm_transposed(name, backend):
    for case, dtype in zip((TRANSPOSED[name]._replace(layout=layout) for layout in LAYOUTS), DTYPES):
        for integers in (False, True):
            x, w, r = typed(data(case, seed=6, integers=integers), dtype)
            b = np.arange(case.channels[1]).astype(dtype)
            sum_, = sums(transposed, case, x, w, b, r)
            sum_ = sum_._replace(value=np.maximum(sum_.value, 0))
            for algorithm, keywords in forced(backend, case.problem(dtype)):
                out = poisoned(case.output_shape, dtype)
                conv_transpose(case, x, w, b, residual=r, activation="relu", out=out, **keywords)
                near(out, sum_, sums_products(algorithm), (algorithm, dtype, case))
                assert not (integers and sums_products(algorithm)) or np.array_equal(out, sum_.value), (algorithm, case)


@pytest.mark.parametrize("direction, least", [
    ("backward_input", {"gemm", "direct", "winograd", "depthwise", "fft"}), ("backward_weight", {"gemm", "direct"})])
def test_native_algorithms_have_all_directions(direction, least):
    """A direction is not a kernel: what computes the forward direction computes the others."""
    if fastconv.backends()["cython"] is not None:
        pytest.skip("the native kernels are not available")
    assert least <= {each.algorithm for case in ALGORITHMS.values() for each in candidates("cython", case.problem(direction))}


# ---- plans


@pytest.mark.parametrize("direction, word", [("backward_input", "BWD_D"), ("backward_weight", "BWD_W")])
def test_explain(direction, word, backend):
    for name in ("2d sides of padding", "2d reflect", "1d unread end", "3d groups"):
        p = GRID[name].problem(direction)
        assert f"--dir={word}" in p.text and ConvProblem.from_text(p.text) == p != dataclasses.replace(p, direction="forward")
        for plan in (fastconv.explain(p, backend=backend), fastconv.explain(p.text, backend=backend)):
            assert plan.problem == p and plan.backend == backend
            assert p.text in str(plan) and f"plan       {backend} {plan.candidate}" in str(plan)
        plan = fastconv.explain(p)
        named = {plan.backend, *(each.backend for each in plan.rejected)}
        assert {who for who in fastconv.backends() if who != "cuda"} <= named and all(each.reason.why for each in plan.rejected)


@pytest.mark.parametrize("direction", INDEX)
def test_what_refuses_says_why(direction, backend):
    for name in ("2d", "2d pointwise", "3d groups", "2d depthwise"):
        case = GRID[name]
        p = case.problem(direction)
        able = {each.algorithm for each in candidates(backend, p)}
        for algorithm in {each.algorithm for each in get(backend).candidates(p)} - able:
            with pytest.raises(fastconv.Unsupported, match=f"{backend}.*{algorithm}") as caught:
                compute(direction, case, *data(case), backend=backend, algorithm=algorithm)
            assert len(str(caught.value)) < 500 and f"--dir={p.text[6:11]}" in str(caught.value)


@pytest.mark.parametrize("direction", INDEX)
def test_cuda_refuses(direction):
    problem = GRID["2d"].problem(direction)
    cuda = get("cuda")
    for candidate in cuda.candidates(problem):
        reason = cuda.refuses(problem, candidate)
        assert reason and "\n" not in reason and direction in reason
    x, w, g = data(GRID["2d"])
    with pytest.raises((fastconv.Unsupported, fastconv.Unavailable), match="cuda"):
        compute(direction, GRID["2d"], x, w, g, backend="cuda")
    with pytest.raises((fastconv.Unsupported, fastconv.Unavailable), match="cuda"):
        fastconv.explain(problem, backend="cuda")


# ---- NaN and infinity

LOCAL = {
    "winograd": Case((12, 11), (3, 3), (8, 8), padding=1), "fft": Case((22, 19), (9, 7), (2, 3), 1, padding=2),
    "stride": Case((11, 12), (3, 2), (3, 4), stride=(2, 3)), "reflect": Case((7, 8), (3, 3), (3, 2), padding=2, mode="reflect"),
    "depthwise": Case((9, 10), (3, 3), (9, 9), groups=9, padding=1, layout="channels_last"),
    "groups": Case((8, 9), (2, 3), (6, 4), groups=2, dilation=2), "1d": Case((50,), (5,), (4, 3), stride=2, padding=2),
}


def stays_inside(found: np.ndarray, spoiled: np.ndarray, clean: Sum, what: Any) -> None:
    """Not finite where the definition is not finite, and right everywhere else."""
    finite = np.isfinite(spoiled)
    assert not finite.all()
    assert np.array_equal(np.isfinite(found), finite), what
    near(found[finite], Sum(clean.value[finite], clean.magnitude[finite], clean.terms), what=what)


@pytest.mark.parametrize("direction", INDEX)
@pytest.mark.parametrize("name", LOCAL)
def test_what_is_not_finite_stays_inside(name, direction, backend):
    """One NaN or infinity in the gradient of the output: the inputs that its window read, the weights of its channel."""
    case = LOCAL[name]
    x, w, g = data(case, seed=3)
    first, middle, last = (0,) * g.ndim, tuple(n // 2 for n in g.shape), tuple(n - 1 for n in g.shape)
    for value, at in ((np.nan, middle), (np.inf, first), (np.nan, last)):
        g[at] = 0
        clean = sums(gradients, case, x, w, g)[INDEX[direction]]
        g[at] = value
        spoiled = gradients(case, x, w, g)[INDEX[direction]]
        for algorithm, keywords in forced(backend, case.problem(direction)):
            stays_inside(compute(direction, case, x, w, g, **keywords), spoiled, clean, (algorithm, value, at, case))
        g[at] = 1


@pytest.mark.parametrize("name", LOCAL)
def test_what_is_not_finite_in_the_input_stays_inside(name, backend):
    """It reaches the weights of its channel."""
    case = LOCAL[name]
    x, w, g = data(case, seed=3)
    for value, at in ((np.nan, tuple(n // 2 for n in x.shape)), (np.inf, (0,) * x.ndim)):
        x[at] = 0
        clean = sums(gradients, case, x, w, g)[1]
        x[at] = value
        spoiled = gradients(case, x, w, g)[1]
        for algorithm, keywords in forced(backend, case.problem("backward_weight")):
            stays_inside(conv_weight(case, x, g, **keywords), spoiled, clean, (algorithm, value, at, case))
        x[at] = 1


@pytest.mark.parametrize("name", LOCAL)
def test_weights_that_are_not_finite(name, backend):
    """They reach their channel only, all that their products reach, and the same elements in every backend."""
    case = LOCAL[name]
    _, w, g = data(case, seed=3)
    w[(-1, 0, *(0,) * case.ndim)] = np.inf
    least = ~np.isfinite(gradients(case, np.zeros(case.input_shape), w, g)[0])
    naive = ~np.isfinite(conv_input(case, w, g, backend="naive"))
    channel = case.channels[0] - case.channels[0] // case.groups
    for algorithm, keywords in forced(backend, case.problem("backward_input")):
        found = ~np.isfinite(conv_input(case, w, g, **keywords))
        assert found[least].all(), algorithm
        assert not np.delete(channels_first(found, case.layout), channel, axis=1).any(), algorithm
        assert np.array_equal(found, naive), algorithm


def test_a_gradient_that_meets_nothing_but_padding(backend):
    """Zero times what is not finite is NaN there, too, as in the forward direction; else it is 0."""
    p = ConvProblem.from_text("--dir=BWD_W mb2_g2_ic4ih1iw1_oc4oh3ow4_kh7kw4sh3sw3ph13pw5")
    assert p.padding[0] == (13, -1)  # the last window ends before the input
    for candidate in (each.candidate for each in ranked(p, backend)[0]):
        kernel = bind(p, backend, candidate)
        for value in (-1.0, np.inf):
            gradient = np.full(p.output_shape, -1, p.dtype)
            gradient[1, 3, 1, 2] = value
            out = np.full(p.weight_shape, 7, p.dtype)
            kernel.run(np.ones(p.input_shape, p.dtype), kernel.pack(gradient, None), out)
            assert (np.isnan(out[3]) if value > 0 else out[3] == 0).all() and not out[:3].any(), candidate
