"""Conformance: ONNX's and PyTorch's own tests of convolution, with their data, run through fastconv. `pytest -rP` prints how
many of how many passed.

ONNX: the node tests of Conv and ConvTranspose, in `onnx.backend.test`. PyTorch: the samples and error inputs of its operator
database, from which its own tests are made. What fastconv does not compute must be an error of its own, never other numbers.
"""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from direction_cases import ROUNDOFF, Sum, near

import fastconv

SUPPORTED = ("float32", "float64")


def tally(what: str, verdicts: dict[str, str | None], least: int) -> None:
    """Print how many passed; fail with the others' reasons, or if there are fewer tests than there were."""
    wrong = {name: reason for name, reason in verdicts.items() if reason is not None}
    print(f"{what}: {len(verdicts) - len(wrong)} of {len(verdicts)} passed")
    assert not wrong, wrong
    assert len(verdicts) >= least, sorted(verdicts)


def reason_of(check: Callable[[], None]) -> str | None:
    """None if it passes; else why not, in a line."""
    try:
        check()
    except Exception as error:  # of whatever kind: the tally tells it
        return f"{type(error).__name__}: {error}".splitlines()[0][:300]
    return None


# ---- ONNX


def onnx_conv(x: np.ndarray, w: np.ndarray, b: np.ndarray | None = None, *, auto_pad: str = "NOTSET", dilations: Any = 1,
              group: int = 1, kernel_shape: Any = None, pads: Any = None, strides: Any = 1, **more: Any) -> np.ndarray:
    """Conv of ONNX's operators. `kernel_shape` repeats the weight's."""
    ndim = x.ndim - 2
    padding = {"SAME_UPPER": "same", "SAME_LOWER": "same_lower"}.get(auto_pad) or _pairs(pads, ndim)
    return getattr(fastconv, f"conv{ndim}d")(x, w, b, strides, padding, dilations, group, **more)


def onnx_conv_transpose(x: np.ndarray, w: np.ndarray, b: np.ndarray | None = None, *, auto_pad: str = "NOTSET",
                        dilations: Any = None, group: int = 1, kernel_shape: Any = None, output_padding: Any = None,
                        output_shape: Any = None, pads: Any = None, strides: Any = None, **more: Any) -> np.ndarray:
    """ConvTranspose of ONNX's operators: an output shape, or one that is the stride times the input's, says what is cut off."""
    ndim = x.ndim - 2
    strides, dilations, extra = strides or [1] * ndim, dilations or [1] * ndim, output_padding or [0] * ndim
    padding = _pairs(pads, ndim)
    if auto_pad.startswith("SAME"):
        output_shape = output_shape or [n * s for n, s in zip(x.shape[2:], strides)]
    if output_shape:
        axes = zip(x.shape[2:], w.shape[2:], strides, dilations, extra, output_shape)
        over = [(n - 1) * s + e + d * (k - 1) + 1 - wanted for n, k, s, d, e, wanted in axes]
        extra = [e + max(0, -cut) for e, cut in zip(extra, over)]
        cuts = [(max(0, cut) // 2, -(-max(0, cut) // 2)) for cut in over]
        padding = cuts if auto_pad == "SAME_UPPER" else [cut[::-1] for cut in cuts]
    return getattr(fastconv, f"conv_transpose{ndim}d")(x, w, b, strides, padding, extra, group, dilations, **more)


def _pairs(pads: Any, ndim: int) -> Any:
    """ONNX names all near ends before all far ones."""
    return list(zip(pads[:ndim], pads[ndim:])) if pads else 0


ONNX = {"Conv": (onnx_conv, 6), "ConvTranspose": (onnx_conv_transpose, 11)}


def onnx_cases(operator: str) -> list[Any]:
    """The node tests of one operator. They are made when their module is imported; no other is."""
    pytest.importorskip("onnx")
    importlib.import_module(f"onnx.backend.test.case.node.{operator.lower()}")
    made = getattr(importlib.import_module("onnx.backend.test.case.node"), "_NodeTestCases", None)
    if made is None:
        pytest.skip("this version of onnx keeps its node tests elsewhere")
    return [case for case in made if [node.op_type for node in case.model.graph.node] == [operator]]


@pytest.mark.parametrize("operator", ONNX)
def test_onnx_node_tests(operator: str, backend: str) -> None:
    call, least = ONNX[operator]
    verdicts = {case.name: reason_of(lambda case=case: _onnx_case(case, call, backend)) for case in onnx_cases(operator)}
    tally(f"ONNX {operator}, {backend}", verdicts, least)


def _onnx_case(case: Any, call: Callable[..., np.ndarray], backend: str) -> None:
    from onnx import helper

    values = {field.name: helper.get_attribute_value(field) for field in case.model.graph.node[0].attribute}
    attributes = {name: value.decode() if isinstance(value, bytes) else value for name, value in values.items()}
    for inputs, (expected,) in case.data_sets:
        out = np.full_like(expected, np.nan)
        y = call(*inputs, **attributes, backend=backend, out=out)
        assert y is out and y.dtype == expected.dtype
        np.testing.assert_allclose(y, expected, rtol=case.rtol, atol=case.atol)


# ---- PyTorch

CONV = tuple(f"conv{n}d" for n in (1, 2, 3))
TRANSPOSED = tuple(f"conv_transpose{n}d" for n in (1, 2, 3))
LEAST = {"conv1d": 10, "conv2d": 30, "conv3d": 20, "conv_transpose1d": 10, "conv_transpose2d": 12, "conv_transpose3d": 10}


@pytest.fixture(scope="module")
def operators() -> Iterator[dict[str, Any]]:
    """PyTorch's database of operators; what is small is computed by one thread."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("expecttest")  # the database imports it
    database = pytest.importorskip("torch.testing._internal.common_methods_invocations", exc_type=ImportError).op_db
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield {info.name.rpartition(".")[2]: info for info in database if info.name.startswith("nn.functional.conv")}
    torch.set_num_threads(threads)


class Sample:
    """One of an operator's: tensors as torch made them, and what its function gives in float64."""

    def __init__(self, name: str, sample: Any) -> None:
        self.name, self.ndim, self.keywords = name, int(name[-2]), sample.kwargs
        self.x, self.w, self.b = (sample.input, *sample.args, None)[:3]

    def __str__(self) -> str:
        return f"{self.name} {tuple(self.x.shape)} {tuple(self.w.shape)} {self.keywords} {self.x.dtype}"

    def call(self, x: Any, w: Any, b: Any) -> Any:
        import torch

        return getattr(torch.nn.functional, self.name)(x, w, b, **self.keywords)

    def in_float64(self, change: Callable[[Any], Any], g: Any = None) -> list[np.ndarray]:
        """(output,) of the arrays, each changed; with a gradient of it, those of input, weight and bias."""
        import torch

        x, w, b, g = (None if a is None else change(a.double()) for a in (self.x, self.w, self.b, g))
        if g is None:
            return [self.call(x, w, b).numpy()]
        b = torch.zeros(len(w), dtype=torch.float64) if b is None else b
        needing = [a.detach().requires_grad_() for a in (x, w, b)]
        return [a.numpy() for a in torch.autograd.grad(self.call(*needing), needing, g)]

    def sums(self, terms: list[int], g: Any = None) -> list[Sum]:
        made = zip(self.in_float64(lambda a: a, g), self.in_float64(abs, g), terms, strict=True)
        return [Sum(value, magnitude, count) for value, magnitude, count in made]


def samples(operators: dict[str, Any], name: str) -> Iterator[Sample]:
    """Of every dtype that torch computes in, float32 and float64 among them."""
    import torch

    torch.manual_seed(5)
    for dtype in sorted(operators[name].dtypes, key=str):
        for sample in operators[name].sample_inputs("cpu", dtype, requires_grad=False):
            yield Sample(name, sample)


def verdicts_on(operators: dict[str, Any], name: str, check: Callable[[Sample], None]) -> dict[str, str | None]:
    """Of a check of each of an operator's samples."""
    return {f"{i}: {sample}": reason_of(lambda sample=sample: check(sample))
            for i, sample in enumerate(samples(operators, name))}


def refused(call: Callable[[], Any]) -> None:
    """A ValueError or TypeError of fastconv's own, in one line."""
    try:
        call()
    except (ValueError, TypeError) as error:
        *_, (frame, _) = traceback.walk_tb(error.__traceback__)
        assert Path(frame.f_code.co_filename).parent.name == "fastconv" and "\n" not in str(error), error
    else:
        raise AssertionError("it is not refused")


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("name", [*CONV, *TRANSPOSED])
def test_samples_of_pytorch(name: str, operators: dict[str, Any]) -> None:
    """Called as torch is, with torch's tensors. What is not float32 or float64 is refused."""
    tally(f"PyTorch's samples of {name}", verdicts_on(operators, name, _sample), LEAST[name] * len(SUPPORTED))


def _sample(sample: Sample) -> None:
    import torch

    ours = getattr(fastconv, sample.name)
    if str(sample.x.dtype).rpartition(".")[2] not in SUPPORTED:
        return refused(lambda: ours(sample.x, sample.w, sample.b, **sample.keywords))
    inputs = sample.w.shape[0] // sample.keywords.get("groups", 1) if "transpose" in sample.name else sample.w.shape[1]
    expected, = sample.sums([inputs * sample.w[0, 0].numel() + 1])
    out = torch.full(expected.value.shape, torch.nan, dtype=sample.x.dtype)
    for more in ({}, {"out": out}):
        y = ours(sample.x, sample.w, sample.b, **sample.keywords, **more)
        assert isinstance(y, torch.Tensor) and y.dtype == sample.x.dtype
        near(y.numpy(), expected)


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("name", CONV)
def test_gradients_of_pytorchs_samples(name: str, operators: dict[str, Any]) -> None:
    """All three, and each by itself, as torch's autograd has them."""
    tally(f"gradients of PyTorch's samples of {name}", verdicts_on(operators, name, _gradients), LEAST[name] * len(SUPPORTED))


def _gradients(sample: Sample) -> None:
    import torch

    x, w, keywords = sample.x, sample.w, sample.keywords
    shape = sample.call(x.to("meta"), w.to("meta"), None).shape
    g = torch.rand(shape, dtype=torch.float64).sub(0.5).to(x.dtype)
    of_input, of_weight, of_all = (getattr(fastconv, f"{sample.name}_{which}") for which in ("input", "weight", "backward"))
    calls = [lambda: of_input(x.shape, w, g, **keywords), lambda: of_weight(x, w.shape, g, **keywords)]
    if str(x.dtype).rpartition(".")[2] not in SUPPORTED:
        for call in (*calls, lambda: of_all(g, x, w, **keywords)):
            refused(call)
        return
    channels = len(w)
    terms = [channels // keywords.get("groups", 1) * w[0, 0].numel(), g.numel() // channels, g.numel() // channels]
    expected = sample.sums(terms, g)
    for gradients in (of_all(g, x, w, **keywords), [call() for call in calls]):
        for found, sum_ in zip(gradients, expected):
            assert found.dtype == x.dtype
            near(found.numpy(), sum_)


# What torch refuses and fastconv computes on purpose: "same" is TensorFlow's and ONNX's with any stride (see `conv2d`).
ON_PURPOSE = ("padding='same' is not supported for strided convolutions",)


@pytest.mark.parametrize("name", CONV)
def test_error_inputs_of_pytorch(name: str, operators: dict[str, Any]) -> None:
    """Each is refused, by the function and by those of its gradients, but where only the bias is wrong, which these do not
    take; and by the transposed convolution where torch's refuses it, too."""
    verdicts = {}
    for i, each in enumerate(operators[name].error_inputs("cpu")):
        sample = Sample(name, each.sample_input)
        verdicts[f"{i}: {each.error_regex}"] = reason_of(lambda sample=sample, each=each: _error(sample, each.error_regex))
    tally(f"PyTorch's error inputs of {name}", verdicts, 10)


def _error(sample: Sample, message: str) -> None:
    import torch

    x, w, b, keywords = sample.x, sample.w, sample.b, sample.keywords
    g = torch.ones_like(x)
    calls = [lambda: getattr(fastconv, sample.name)(x, w, b, **keywords)]
    if b is None or b.dtype == x.dtype:
        calls += [lambda: getattr(fastconv, f"{sample.name}_input")(x.shape, w, g, **keywords),
                  lambda: getattr(fastconv, f"{sample.name}_weight")(x, w.shape, g, **keywords),
                  lambda: getattr(fastconv, f"{sample.name}_backward")(g, x, w, **keywords)]
    if message not in ON_PURPOSE:
        for call in (*calls, *_transposed_too(sample)):
            refused(call)
        return
    padded = torch.nn.functional.pad(x.double(), _same(x.shape[2:], w.shape[2:], keywords["stride"]))
    expected = getattr(torch.nn.functional, sample.name)(padded, w, b, **{**keywords, "padding": 0})
    np.testing.assert_allclose(calls[0](), expected, rtol=1e-12, atol=w[0].numel() * ROUNDOFF["float64"] * 1e3)


def _transposed_too(sample: Sample) -> list[Callable[[], Any]]:
    """The call of our transposed convolution with the same arguments, if torch's takes them no more than the other."""
    import torch

    name = sample.name.replace("conv", "conv_transpose")
    ours, theirs = (getattr(module, name) for module in (fastconv, torch.nn.functional))
    try:
        theirs(sample.x, sample.w, sample.b, **sample.keywords)
    except (RuntimeError, TypeError, ValueError):
        return [lambda: ours(sample.x, sample.w, sample.b, **sample.keywords)]
    return []


def _same(size: Any, kernel: Any, stride: int) -> list[int]:
    """What `torch.nn.functional.pad` has to add, the last axis first, so that a stride-th of the size comes out."""
    totals = [max((-(-n // stride) - 1) * stride + k - n, 0) for n, k in zip(size, kernel)]
    return [width for total in reversed(totals) for width in (total // 2, total - total // 2)]
