"""The cuda backend on a real GPU: everything `cuda_cases` has, with real tiles, and arrays of other libraries in place."""

from __future__ import annotations

from typing import Any

import cuda_cases
import numpy as np
import pytest

import fastconv
from fastconv import activations
from fastconv.backends import Candidate, get
from fastconv.candidates import bind
from fastconv.problem import ConvProblem
from fastconv.verify import reference
from fastconv.verify.data import random_arrays
from fastconv.verify.judge import Judge

_reason = get("cuda").unavailable()
pytestmark = pytest.mark.skipif(_reason is not None, reason=f"no GPU to test on: {_reason}")

LARGE = (
    "mb2_ic64ih56iw56_oc64oh56ow56_kh3kw3ph1pw1",  # tiles of 64 channels
    "--stag=axb mb2_ic64ih57iw55_oc130oh57ow55_kh3kw3ph1pw1",  # vectors of channels, tails
    "mb3_ic256ih28iw28_oc512oh14ow14_kh1kw1sh2sw2",
    "mb4_ic132ih28iw28_oc256oh28ow28_kh1kw1",  # vectors of pixels
    "mb1_ic512ih7iw7_oc512oh7ow7_kh3kw3ph1pw1",  # the sum is split
    "--accuracy=strict mb5_ic512ih7iw7_oc512oh7ow7_kh3kw3ph1pw1",
    "--dt=f64 mb1_ic96ih29iw31_oc80oh29ow31_kh3kw3ph1pw1",
    "--dt=f64 --stag=axb mb1_ic512ih7iw7_oc64oh7ow7_kh3kw3ph1pw1",
    "mb2_g144_ic144ih56iw56_oc144oh28ow28_kh3kw3sh2sw2ph1pw1",
    "--stag=axb mb2_g96_ic96ih56iw56_oc96oh56ow56_kh7kw7ph3pw3",
    "mb1_ic1ih256iw300_oc1oh256ow300_kh31kw31ph15pw15",
    "mb2_g32_ic128ih56iw56_oc128oh56ow56_kh3kw3ph1pw1",
    "mb2_ic24id9ih17iw19_oc70od9oh17ow19_kd3kh3kw3pd1ph1pw1",
    "mb2_ic40iw5000_oc48ow5000_kw5pw2",
)


@pytest.mark.parametrize("name", cuda_cases.names())
def test_case(name: str) -> None:
    cuda_cases.run(name)


@pytest.mark.parametrize("algorithm", cuda_cases.ALGORITHMS)
@pytest.mark.parametrize("text", LARGE)
def test_large(text: str, algorithm: str) -> None:
    """Random data against float64 on sampled points, into NaN."""
    problem = ConvProblem.from_text(text)
    kernel = bind(problem, "cuda", Candidate(algorithm))
    data = random_arrays(problem, np.random.default_rng(3))
    out = np.full(problem.output_shape, np.nan, problem.dtype)
    kernel.run(data.x, kernel.pack(data.w, data.b), out, data.residual)
    assert np.isfinite(out).all()
    points = reference.sample_points(problem, 300, np.random.default_rng(4))
    assert Judge(problem, data, points).wrong(out, algorithm) is None


def test_activations() -> None:
    """Within 4 ulp of float64's, over the whole range."""
    x = np.concatenate([np.linspace(-50, 50, 4001), np.logspace(-30, 4, 200), -np.logspace(-30, 4, 200)]).astype(np.float32)
    one = np.ones((1, 1, 1), np.float32)
    for name in ("relu", "relu6", "leaky_relu", "sigmoid", "tanh", "gelu", "gelu_tanh", "silu", "hardswish"):
        for dtype, ulps in (("float32", 4), ("float64", 8)):
            values = x.astype(dtype)
            out = fastconv.conv1d(values[None], one.astype(dtype), activation=name, backend="cuda")[0]
            function = activations.scalar((name, 0.01 if name == "leaky_relu" else 0.0))
            expected = np.array([function(float(v)) for v in values]).astype(dtype)
            error = np.abs(out.astype(np.float64) - expected) / np.spacing(np.maximum(np.abs(expected), np.finfo(dtype).tiny))
            assert error.max() <= ulps, (name, dtype, values[error.argmax()])


def test_batch_does_not_change_strict_sums() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((9, 512, 7, 7)).astype(np.float32)
    w = rng.standard_normal((64, 512, 3, 3)).astype(np.float32)
    whole = fastconv.conv2d(x, w, padding=1, backend="cuda", accuracy="strict")
    single = [fastconv.conv2d(x[n:n + 1], w, padding=1, backend="cuda", accuracy="strict") for n in range(9)]
    assert np.concatenate(single).tobytes() == whole.tobytes()


# ---- arrays of torch, in place, on their stream


@pytest.fixture(scope="module")
def torch() -> Any:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("torch sees no GPU")
    if hasattr(torch.backends.cudnn, "conv"):  # the older switch may not be mixed with this one
        torch.backends.cudnn.conv.fp32_precision = "ieee"
        torch.backends.cuda.matmul.fp32_precision = "ieee"
    else:
        torch.backends.cudnn.allow_tf32 = False
    return torch


def _close(torch: Any, actual: Any, expected: Any) -> bool:
    return bool(((actual - expected).abs() <= 1e-4 * expected.abs().max()).all())


def test_torch_tensors(torch: Any) -> None:
    x = torch.randn(2, 32, 20, 21, device="cuda")
    w, b = torch.randn(48, 32, 3, 3, device="cuda"), torch.randn(48, device="cuda")
    out = fastconv.conv2d(x, w, b, padding=1, activation="relu")
    assert type(out) is torch.Tensor and out.device == x.device
    assert _close(torch, out, torch.nn.functional.conv2d(x, w, b, padding=1).relu())


def test_torch_views_and_out(torch: Any) -> None:
    """channels_last memory, a sliced output that is its own residual, an unbatched image; nothing but `out` changes."""
    x = torch.randn(3, 16, 12, 10, device="cuda").to(memory_format=torch.channels_last)
    w = torch.randn(24, 16, 3, 3, device="cuda")
    whole = torch.zeros(3, 24, 12, 20, device="cuda")
    out = whole[..., ::2]
    out += 1
    expected = torch.nn.functional.conv2d(x, w, padding=1) + 1
    pointer = out.data_ptr()
    assert fastconv.conv2d(x, w, padding=1, residual=out, out=out) is out and out.data_ptr() == pointer
    assert _close(torch, out, expected) and not whole[..., 1::2].any()
    assert _close(torch, fastconv.conv2d(x[1], w, padding=1), expected[1] - 1)


def test_torch_stream(torch: Any) -> None:
    """Work queued on a stream of one's own is ordered by it: the input is still being made when the call returns."""
    stream = torch.cuda.Stream()
    w = torch.randn(64, 64, 3, 3, device="cuda")
    big = torch.randn(4096, 4096, device="cuda")
    x = torch.zeros(4, 64, 32, 32, device="cuda")
    fastconv.conv2d(x, w, padding=1)
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        for _ in range(20):
            big = big @ big * 1e-3
        x.fill_(1.0)
        out = fastconv.conv2d(x, w, padding=1)
        expected = torch.nn.functional.conv2d(x, w, padding=1)
    stream.synchronize()
    assert _close(torch, out, expected)


def test_torch_graph_of_problems(torch: Any) -> None:
    """A residual block: three convolutions, each reading what the one before wrote."""
    x = torch.randn(2, 64, 28, 28, device="cuda")
    w1, w2, w3 = (torch.randn(*shape, device="cuda") / 20 for shape in ((32, 64, 1, 1), (32, 32, 3, 3), (64, 32, 1, 1)))
    conv = torch.nn.functional.conv2d
    expected = (conv(conv(conv(x, w1).relu(), w2, padding=1).relu(), w3) + x).relu()
    h = fastconv.conv2d(x, w1, activation="relu")
    h = fastconv.conv2d(h, w2, padding=1, activation="relu")
    assert _close(torch, fastconv.conv2d(h, w3, residual=x, activation="relu"), expected)


def test_numba_arrays() -> None:
    from numba import cuda

    x = np.random.default_rng(0).integers(-4, 5, (2, 8, 9, 9)).astype(np.float32)
    w = np.random.default_rng(1).integers(-4, 5, (16, 8, 3, 3)).astype(np.float32)
    out = fastconv.conv2d(cuda.to_device(x), cuda.to_device(w), padding=1)
    assert np.array_equal(out.copy_to_host(), fastconv.conv2d(x, w, padding=1, backend="naive"))


def test_cupy_arrays() -> None:
    cupy = pytest.importorskip("cupy")
    x = cupy.random.randint(-4, 5, (2, 8, 9, 9)).astype(cupy.float32)
    w = cupy.random.randint(-4, 5, (16, 8, 3, 3)).astype(cupy.float32)
    with cupy.cuda.Stream(non_blocking=True) as stream:
        out = fastconv.conv2d(x * 1, w, padding=1)
        stream.synchronize()
    assert isinstance(out, cupy.ndarray)
    assert np.array_equal(out.get(), fastconv.conv2d(x.get(), w.get(), padding=1, backend="naive"))
