"""The adapters to other libraries: what each refuses, and that whatever it computes is the problem that was asked for.

Several libraries in one process disturb each other, so each installed one goes through its problems in a process of its own:
this file, run as a program with the peer's name. Where none is installed, the rest still holds the adapters to their promises.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import mmap
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from problems import plain, stated

import fastconv
from fastconv.bench import peers
from fastconv.bench.peers import common, cudnn, ncnn_net, opencv_filter
from fastconv.problem import ACTIVATIONS, ConvProblem
from fastconv.verify.data import Arrays, random_arrays, same_arrays
from fastconv.verify.judge import Judge, some_points
from fastconv.verify.matrix import matrix, other_directions

ROOT = Path(__file__).resolve().parents[1]
LIBRARIES = ("torch", "onnxruntime", "onnx", "openvino", "ncnn", "cv2", "scipy")
TRANSPOSING = ("onnxruntime", "openvino", "ncnn")
LEAST = {"torch": 200, "onnxruntime": 80, "openvino": 80, "ncnn": 80, "opencv": 25, "scipy-direct": 150, "scipy-fft": 150}
LEAST_GRADIENTS = {"torch": 200, "onnxruntime": 110, "openvino": 110, "ncnn": 110}


# ---- what needs no library

_IMPORTS = f"""
import sys
from fastconv.bench import peers
from fastconv.verify.data import Arrays, random_arrays, same_arrays
from fastconv.verify.judge import Judge, some_points
for peer in peers.registry().values():
    assert peer.unavailable() is None or isinstance(peer.unavailable(), str)
print([name for name in {LIBRARIES} if name in sys.modules])
"""


def test_looking_for_libraries_imports_none():
    done = subprocess.run([sys.executable, "-c", _IMPORTS], cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_every_peer_keeps_the_protocol():
    assert len(peers.names()) == len(set(peers.names())) == 9
    for name in peers.names():
        peer = peers.get(name)
        assert peer.name == name and peer.package and isinstance(peer.prepared, bool)
        assert all(callable(getattr(peer, method)) for method in ("unavailable", "start", "refuses", "bind"))
    assert [name for name in peers.names() if peers.get(name).prepared] == ["onnxruntime", "openvino", "ncnn"]


def test_an_unknown_name_is_an_error():
    with pytest.raises(ValueError, match="peer must be one of torch, .*, got 'mkl'"):
        peers.get("mkl")


def test_what_is_not_installed_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(common.importlib.util, "find_spec", lambda name: None)
    for name in peers.names():
        assert peers.get(name).unavailable() == f"not installed (pip install {peers.get(name).package})"


def test_onnxruntime_needs_onnx_as_well(monkeypatch):
    monkeypatch.setattr(common, "folder_of", lambda module: None if module == "onnx" else ROOT)
    assert peers.get("onnxruntime").unavailable() == "not installed (pip install onnxruntime onnx)"


def test_a_folder_of_that_name_is_no_library(monkeypatch, tmp_path):
    (tmp_path / "peerlike").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert common.missing("peerlike", "peerlike") == "not installed (pip install peerlike)"
    (tmp_path / "peerlike" / "__init__.py").write_text("raise RuntimeError('imported')")
    common.importlib.invalidate_caches()
    assert common.missing("peerlike", "peerlike") is None
    assert common.folder_of("peerlike") == tmp_path / "peerlike"


def test_cudnn_needs_a_torch_with_cuda_and_a_gpu(monkeypatch, tmp_path):
    monkeypatch.setattr(cudnn, "folder_of", lambda module: tmp_path)
    monkeypatch.setattr(cudnn, "_gpus", lambda: 0)
    for name in ("cudnn", "cudnn-tf32"):
        assert peers.get(name).unavailable() == "this torch is built without CUDA"
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "libtorch_cuda.so").touch()
    assert peers.get("cudnn").unavailable() == "no CUDA GPU"
    monkeypatch.setattr(cudnn, "_gpus", lambda: 1)
    assert peers.get("cudnn").unavailable() is None


PLAIN = "mb1_ic3ih9_oc4oh9_kh3ph1"
PLANE = "mb1_ic1ih9_oc1oh9_kh3ph1"
OF_INPUT = "--dir=BWD_D " + PLANE
REFUSALS = [
    *[(name, stated(PLANE, activation="relu"), "no activation is timed") for name in ("opencv", "scipy-direct", "scipy-fft")],
    *[(name, stated(PLANE, activation="gelu"), "no gelu is timed") for name in ("onnxruntime", "ncnn")],
    *[(name, stated(PLANE, residual=True), "no residual") for name in peers.names()],
    *[(name, stated(OF_INPUT), "gradients" if "cudnn" in name else "forward direction only") for name in peers.names()
      if name not in ("torch", *TRANSPOSING)],
    *[(name, stated(OF_INPUT, direction="backward_weight"), "no gradients of weights") for name in TRANSPOSING],
    *[(name, stated(OF_INPUT, **more), reason) for name in TRANSPOSING for more, reason in (
        (dict(residual=True), "no residual"), (dict(padding_mode="reflect"), "not reflect"), (dict(dtype="float64"), "float32"),
        (dict(layout="NHWC"), "channels first"))],
    *[(name, stated(OF_INPUT, activation="gelu"), "no gelu is timed") for name in ("onnxruntime", "ncnn")],
    ("onnxruntime", stated("--dir=BWD_D mb1_ic1ih9iw10_oc1oh5ow3_kh3kw3sh2sw2ph1pw0"), "output padding"),
    ("torch", stated(PLANE, direction="backward_input", bias=False, padding=((1, 0), (1, 1))), "of gradients"),
    ("torch", stated(PLANE, direction="backward_weight", bias=False, padding_mode="reflect"), "of gradients"),
    *[(name, stated(PLAIN, dtype="float64"), "float32") for name in ("onnxruntime", "openvino", "ncnn", "cudnn-tf32")],
    *[(name, stated(PLAIN, layout="NHWC"), "channels first") for name in ("onnxruntime", "openvino", "ncnn")],
    *[(name, stated(PLAIN, padding_mode="reflect"), "not reflect") for name in ("onnxruntime", "openvino", "ncnn")],
    *[(name, stated(PLAIN, padding_mode="symmetric"), "does not pad symmetric") for name in ("torch", "cudnn")],
    ("torch", plain((1, 1), (4,), (3,), padding=((4, 0),), padding_mode="reflect"), "beyond the image's size"),
    ("torch", plain((1, 1), (4,), (3,), padding=((0, 5),), padding_mode="circular"), "beyond the image's size"),
    ("torch", plain((1, 1), (4,), (3,), layout="NWC"), "no channels-last memory"),
    ("opencv", stated(PLAIN), "sums no channels"),
    ("opencv", stated("mb1_g8ic8ih9_oc8oh9_kh3ph1"), "up to 4"),
    ("opencv", plain((1, 1), (4, 4, 4), (3, 3, 3), padding=((1, 1),) * 3), "planes"),
    ("opencv", stated("mb1_g2ic2ih9_oc2oh9_kh3ph1", layout="NHWC"), "apart"),
    ("opencv", stated("mb1_ic1ih9_oc1oh5_kh3sh2ph1"), "neither stride nor dilation"),
    ("opencv", stated("mb1_ic1ih9_oc1oh9_kh3ph2dh1"), "neither stride nor dilation"),
    ("opencv", stated("mb1_ic1ih9_oc1oh10_kh4ph2"), "no larger than its input"),
    ("opencv", plain((1, 1), (9,), (3,), padding=((3, 0),)), "no larger than its input"),
    ("opencv", stated(PLANE, padding_mode="circular"), "does not pad circular"),
    *[(name, stated("mb1_ic3ih9_oc4oh5_kh3sh2ph1"), "neither stride nor dilation") for name in ("scipy-direct", "scipy-fft")],
    *[(name, stated("mb1_ic3ih9_oc4oh9_kh3ph2dh1"), "neither stride nor dilation") for name in ("scipy-direct", "scipy-fft")],
]


@pytest.mark.parametrize("name, asked, reason", REFUSALS, ids=lambda value: str(value)[:40])
def test_what_a_peer_cannot_do_it_refuses_with_a_reason(name, asked, reason):
    found = peers.get(name).refuses(asked)
    assert found is not None and reason in found and "\n" not in found and ": " not in found


def test_what_a_peer_can_do_it_does_not_refuse():
    for name in peers.names():
        for padding in ((1, 1), (0, 2)):
            assert peers.get(name).refuses(plain((1, 1), (9, 9), (3, 3), padding=(padding, (1, 1)))) is None
        unpadded = plain((1, 1), (9, 9), (1, 1), padding_mode="circular")  # nothing to continue: the mode makes no difference
        assert peers.get(name).refuses(unpadded) is None


def test_an_old_ncnn_takes_one_image_at_a_time():
    peer = ncnn_net.Ncnn()
    for mat, refused in ((SimpleNamespace(), True), (SimpleNamespace(batch=None), False)):
        peer._ncnn = SimpleNamespace(Mat=mat)
        assert (peer.refuses(stated(PLAIN, batch=2)) is not None) == refused
        assert peer.refuses(stated(PLAIN)) is None


def test_ncnn_is_told_every_axis():
    asked = plain((6, 9), (20, 30), (3, 5), groups=3, stride=(2, 1), dilation=(1, 3), padding=((1, 0), (7, 8)), bias=True)
    assert asked.padding[0] == (1, 0)
    layer = ncnn_net.parameters(asked).splitlines()[3].split()
    assert layer[:6] == "ConvolutionDepthWise y 1 1 x y".split()
    found = dict(tuple(map(int, pair.split("="))) for pair in layer[6:])
    assert found == {0: 9, 1: 5, 11: 3, 2: 3, 12: 1, 3: 1, 13: 2, 4: 7, 14: 1, 15: 8, 16: 0, 5: 1, 6: 9 * 2 * 15, 7: 3}


# ---- OpenCV's adapter with a filter2D of our own


def _filter2d(source, depth, kernel, target=None, anchor=(0, 0), delta=0.0, border="constant"):
    assert depth == -1 and source.ndim == kernel.ndim == 2 and source.dtype == kernel.dtype
    target = np.empty_like(source) if target is None else target
    ends = [(low, size - 1 - low) for low, size in zip(reversed(anchor), kernel.shape)]
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(source, ends, mode=border), kernel.shape)
    target[...] = np.einsum("ijkl,kl->ij", windows, kernel) + delta
    return target


FAKE_CV2 = SimpleNamespace(filter2D=_filter2d, setNumThreads=lambda threads: None, __version__="0", BORDER_CONSTANT="constant",
                           BORDER_REFLECT_101="reflect", BORDER_REFLECT="symmetric", BORDER_REPLICATE="edge")


def test_opencv_is_given_planes_anchors_and_borders(monkeypatch, rng):
    peer = opencv_filter.OpenCV()
    monkeypatch.setattr(opencv_filter, "library", lambda module: FAKE_CV2)
    assert peer.start(1) == "opencv 0"
    asked = [each for each in PROBLEMS() if peer.refuses(each) is None]
    assert len(asked) >= LEAST["opencv"] and {each.padding_mode for each in asked} == {*opencv_filter._BORDERS}
    for each in asked:
        arrays = random_arrays(each, rng)
        assert Watched(each, arrays).call(peer.bind(each, arrays)) is None, each.text


# ---- verification: what does not pass


LAYERS = [  # of the suite "layers", smaller maps, all their channels
    "mb1_ic3ih30_oc64oh15_kh7sh2ph3", "mb1_ic64ih14_oc64oh14_kh3ph1", "mb1_ic512ih7_oc512oh7_kh3ph1",
    "mb1_ic1024ih7_oc256oh7_kh1", "mb1_g144ic144ih14_oc144oh14_kh3ph1", "mb1_g32ic128ih14_oc128oh14_kh3ph1",
    "mb1_ic1ih96_oc1oh96_kh15ph7", "mb2_ic16ih12_oc16oh12_kh3ph2dh1",
]


def _computed(asked: ConvProblem, arrays: Arrays) -> np.ndarray:
    call = (fastconv.conv1d, fastconv.conv2d, fastconv.conv3d)[asked.ndim - 1]
    return np.array(call(arrays.x, arrays.w, arrays.b, asked.stride, common.pads(asked), asked.dilation, asked.groups,
                         padding_mode=asked.padding_mode, backend="im2col"))


def _faults(asked: ConvProblem, arrays: Arrays) -> Iterator[tuple[str, np.ndarray]]:
    x, w, b, _ = arrays
    dropped = w.copy()
    dropped[:, -1] = 0  # a channel; depthwise: everything
    yield "a channel dropped", _computed(asked, arrays._replace(w=dropped))
    right = _computed(asked, arrays)
    yield "a window shifted", np.roll(right, 1, axis=-1)
    yield "no bias", right - b[:, None, None]
    yield "channels in another order", np.roll(right, 1, axis=1) if right.shape[1] > 1 else -right
    if any(map(any, common.pads(asked))):
        other = dataclasses.replace(asked, padding_mode="replicate")
        yield "padded otherwise", _computed(other, arrays)
    poisoned = right.copy()
    poisoned.flat[poisoned.size // 2] = np.nan
    yield "one value not written", poisoned


@pytest.mark.parametrize("algorithm", ["unknown", "tf32"])
@pytest.mark.parametrize("text", LAYERS)
def test_a_fault_in_a_peer_is_found(text, algorithm):
    asked = stated(text, bias=True)
    arrays = same_arrays(asked)
    judge = Judge(asked, arrays, some_points(asked))
    assert judge.wrong(_computed(asked, arrays), algorithm) is None
    for fault, result in _faults(asked, arrays):
        assert judge.wrong(result, algorithm) is not None, fault


def _cut(array: np.ndarray, bits: int) -> np.ndarray:
    """Rounded to a fraction of `bits` bits, to nearest."""
    last = 23 - bits
    return ((array.view(np.uint32) + np.uint32(1 << (last - 1))) & np.uint32(-(1 << last) % 2**32)).view(np.float32)


@pytest.mark.parametrize("text", LAYERS[:6])
def test_tf32_passes_as_tf32_only_and_bfloat16_as_nothing(text):
    asked = stated(text, bias=False)
    arrays = same_arrays(asked)
    tf32, bfloat16 = (_computed(asked, arrays._replace(x=_cut(arrays.x, bits), w=_cut(arrays.w, bits))) for bits in (10, 7))
    judge = Judge(asked, arrays, some_points(asked))
    assert judge.wrong(tf32, "tf32") is None
    if asked.k < 200:  # with more products the figure for sums in float32 grows beyond the error of rounded factors
        assert judge.wrong(bfloat16, "tf32") is not None
        assert judge.wrong(tf32, "unknown") is not None


# ---- every installed library, on many small problems


@functools.cache
def PROBLEMS() -> tuple[ConvProblem, ...]:
    """The check matrix in all directions without its residuals, all of it in float32 and channels first too, and what it has
    too little of."""
    found = [dataclasses.replace(each, residual=False) for each in (*matrix(), *other_directions()) if each.batch > 0]
    found += [dataclasses.replace(each, dtype="float32", layout="channels_first") for each in found
              if each.direction != "backward_weight"]  # torch alone computes these, and takes all
    layers = [each for each in map(stated, LAYERS) if each.flops < 2e7]
    return tuple(dict.fromkeys([*found, *layers, *_images(), *_batches(), *_activated(), *_transposed()]))


def _transposed() -> Iterator[ConvProblem]:
    """Every activation of a transposed convolution with a bias, with and without groups; output padding of each axis by itself,
    up to what a library may refuse; one end padded more than the other."""
    back: dict[str, Any] = dict(direction="backward_input", bias=True)
    for activation in (None, *ACTIVATIONS, ("leaky_relu", 0.3)):
        yield ConvProblem((9, 8), (3, 4), 10, 6, stride=(2, 2), padding=((1, 0), (1, 1)), activation=activation, **back)
        yield ConvProblem((9, 7), (3, 3), 6, 6, groups=6, stride=(2, 2), padding=((1, 1),) * 2, activation=activation, **back)
    for high in (-1, -2, -5):
        yield ConvProblem((9,), (3,), 4, 6, groups=2, stride=(3,), padding=((0, high),), **back)
        yield ConvProblem((12, 10), (2, 3), 3, 5, stride=(3, 2), dilation=(1, 3), padding=((1, high), (2, 1)), **back)
        yield ConvProblem((12, 10), (2, 3), 4, 6, groups=2, stride=(3, 2), padding=((0, 1), (0, high)), **back)
        yield ConvProblem((8, 9, 7), (3, 2, 3), 4, 3, stride=(2, 3, 2), padding=((0, high), (1, 1), (2, 0)), batch=2, **back)
        yield ConvProblem((7, 8, 9), (2, 3, 3), 4, 8, groups=4, stride=(2, 1, 3), padding=((1, 0), (0, 2), (0, high)), **back)


def _activated() -> Iterator[ConvProblem]:
    """Every activation, of groups and with a bias, in each layout that peers take."""
    for activation in (*ACTIVATIONS, ("leaky_relu", 0.3), ("leaky_relu", -0.5)):
        yield plain((6, 10), (9, 8), (3, 3), padding=((1, 1),) * 2, bias=True, activation=activation)
        yield plain((6, 6), (9, 8), (3, 3), groups=6, activation=activation, layout="NHWC")


def _images() -> Iterator[ConvProblem]:
    """Planes, signals, borders continued in every way, kernels on both sides of a DFT; mostly as many outputs as inputs."""
    for mode in ("zeros", "reflect", "symmetric", "replicate"):
        yield plain((1, 1), (23, 17), (3, 5), padding=((1, 1), (2, 2)), padding_mode=mode)
        yield plain((1, 1), (23, 17), (4, 3), padding=((0, 3), (2, 0)), padding_mode=mode, bias=True)
        yield plain((2, 2), (37,), (7,), groups=2, padding=((3, 3),), padding_mode=mode)
        yield plain((1, 1), (40, 44), (15, 13), padding=((7, 7), (6, 6)), padding_mode=mode, dtype="float64")
    yield plain((3, 3), (31, 29), (5, 5), groups=3, batch=2, padding=((2, 2),) * 2, bias=True)
    yield plain((1, 4), (31, 29), (3, 3), padding=((1, 1),) * 2, bias=True)  # four filters of one image
    yield plain((2, 4), (20, 21), (3, 3), groups=2, padding=((1, 1),) * 2)
    yield plain((1, 1), (20, 21), (3, 3), layout="NHWC", padding=((1, 1),) * 2)
    yield plain((1, 1), (9, 8), (17, 15), padding=((8, 8), (7, 7)))  # a kernel larger than the image
    yield plain((1, 1), (50, 50), (31, 31), padding=((15, 15),) * 2)
    yield plain((1, 3), (32, 30), (5, 4), batch=2, bias=True)  # fewer outputs
    yield plain((2, 2), (32, 30), (5, 4), groups=2, padding=((3, 0), (0, 2)))
    yield plain((1, 1), (40,), (9,), padding=((2, 3),), layout="NWC")


def _batches() -> Iterator[ConvProblem]:
    """Several images, groups and uneven ends, in every number of axes."""
    yield plain((8, 12), (33,), (5,), batch=3, groups=4, padding=((3, 1),), stride=(2,), bias=True)
    yield plain((16, 16), (11, 14), (3, 3), batch=4, padding=((1, 1),) * 2, bias=True)
    yield plain((16, 8), (11, 14), (2, 4), batch=2, groups=8, padding=((0, 3), (2, 1)), stride=(1, 2), dilation=(3, 1))
    yield plain((6, 10), (12, 12), (3, 3), stride=(3, 3))  # a far padding of -1 and less
    yield plain((4, 6), (6, 7, 8), (3, 2, 3), batch=2, padding=((1, 1), (0, 1), (2, 0)), bias=True)
    yield plain((8, 8), (6, 7, 8), (3, 3, 3), groups=8, padding=((1, 1),) * 3, stride=(2, 1, 2), dilation=(1, 2, 1))


class Watched(Judge):
    """Looks at every output of a small problem, and at samples of a larger one."""

    def __init__(self, asked: ConvProblem, arrays: Arrays) -> None:
        super().__init__(asked, arrays, None if asked.flops < 2e5 else some_points(asked))

    def call(self, bound: peers.Bound) -> str | None:
        """What is wrong after one more call."""
        bound.call()
        return self.wrong(bound.result(), "unknown")


def _mapped(arrays: Arrays) -> Arrays:
    """Copies whose memory is gone, not only free, as soon as nobody refers to them: who uses it then crashes."""

    def copied(array: np.ndarray | None) -> np.ndarray | None:
        if array is None:
            return None
        made = np.frombuffer(mmap.mmap(-1, array.nbytes), array.dtype).reshape(array.shape)
        made[...] = array
        return made

    return Arrays(*map(copied, arrays))


def _examine(peer: peers.Peer, asked: ConvProblem) -> dict[str, Any]:
    """A line of the process's report: a refusal, or what is wrong with two bindings to different arrays."""
    reason = peer.refuses(asked)
    if reason is not None:
        return {"refuses": reason}
    one, other = (random_arrays(asked, np.random.default_rng(seed)) for seed in (1, 2))
    judge, first = Watched(asked, one), peer.bind(asked, _mapped(one))
    wrong = judge.call(first)
    second = peer.bind(asked, _mapped(other))
    wrong = wrong or Watched(asked, other).call(second)
    wrong = wrong or judge.wrong(first.result(), "unknown") or judge.call(first)  # whatever the other binding has done since
    return {"wrong": wrong, "algorithm": second.algorithm}


def main(name: str) -> None:
    peer = peers.get(name)
    print(json.dumps({"library": peer.start(2)}))
    for asked in PROBLEMS():
        try:
            found = _examine(peer, asked)
        except Exception as error:
            found = {"wrong": f"{type(error).__name__}: {error}"}
        print(json.dumps({"problem": asked.text, **found}), flush=True)


def _report(name: str, *arguments: str) -> tuple[str, list[dict[str, Any]]]:
    """(library and version, one line per problem) of a process of its own."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
                   "OMP_WAIT_POLICY": "passive"}  # threads that spin for each other take long where others use the cores
    done = subprocess.run([sys.executable, __file__, name, *arguments], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    library, *lines = map(json.loads, done.stdout.splitlines())
    assert len(lines) == len(PROBLEMS())
    return library["library"], lines


@pytest.mark.parametrize("name", peers.names())
def test_an_installed_peer_agrees_with_the_oracle_or_refuses(name):
    reason = peers.get(name).unavailable()
    if reason is not None:
        pytest.skip(reason)
    library, lines = _report(name)
    assert library.split()[0] in (name, name.partition("-")[0], "torch") and library.split()[1][0].isdigit()
    wrong = [(line["problem"], line["wrong"]) for line in lines if line.get("wrong")]
    assert not wrong, wrong[:10]
    refused = Counter(line["refuses"] for line in lines if "refuses" in line)
    assert len(lines) - refused.total() >= LEAST.get(name, 200), refused
    gradients = sum("--dir=BWD" in line["problem"] and "refuses" not in line for line in lines)
    assert gradients >= LEAST_GRADIENTS.get(name, 0), refused
    algorithms = {line["algorithm"] for line in lines if "algorithm" in line}
    assert algorithms <= {"direct", "gemm", "fft", "dft", "-"}


# ---- cuDNN's adapter on a CPU: torch's tensors stay where they are


def _without_gpu() -> None:
    import torch

    torch.Tensor.cuda = lambda self: self
    torch.cuda.synchronize = torch.cuda.init = lambda: None


@pytest.mark.parametrize("name", ["cudnn", "cudnn-tf32"])
def test_the_adapter_of_cudnn_computes_the_same_on_a_cpu(name):
    reason = peers.get("torch").unavailable()
    if reason is not None:
        pytest.skip(reason)
    library, lines = _report(name, "without-gpu")
    assert library.startswith("torch ")
    wrong = [(line["problem"], line["wrong"]) for line in lines if line.get("wrong")]
    assert not wrong, wrong[:10]
    assert sum("algorithm" in line for line in lines) >= (200 if name == "cudnn" else 120)


if __name__ == "__main__":
    if "without-gpu" in sys.argv:
        _without_gpu()
    main(sys.argv[1])
