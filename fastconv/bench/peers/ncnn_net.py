"""ncnn: a network of one convolution or "deconvolution", packed when it is loaded; an extractor per call, as its users
write it.

Everything that would round to fewer than 32 bits is off. Packing, Winograd and sgemm are left on, as they are by default.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from ...problem import ConvProblem
from ...stated import output_padding
from ...verify.data import Arrays
from . import Bound
from .common import library, missing, pads, refuses_all_but_plain, transposes

_ACTIVATIONS = {"relu": 1, "leaky_relu": 2, "relu6": 3, "sigmoid": 4}  # numbers of those it fuses; more, it approximates
_LAYERS = ("Convolution1D", "Convolution", "Convolution3D")
_MAGIC = 7767517  # the first line of every parameter file
_RAW = b"\0\0\0\0"  # the tag of weights in plain float32


class Ncnn:
    name = "ncnn"
    package = "ncnn"
    prepared = True

    def unavailable(self) -> str | None:
        return missing(self.package, "ncnn")

    def start(self, threads: int) -> str:
        self._ncnn = library("ncnn")
        self._threads = threads
        return f"ncnn {self._ncnn.__version__}"

    def refuses(self, problem: ConvProblem) -> str | None:
        reason = refuses_all_but_plain(problem, "ncnn", _ACTIVATIONS)
        if reason is None and problem.batch > 1 and not hasattr(self._ncnn.Mat, "batch"):
            return "this version of ncnn takes one image at a time"
        return reason

    def bind(self, problem: ConvProblem, arrays: Arrays) -> Bound:
        ncnn, net = self._ncnn, self._net(problem, arrays)
        x = np.ascontiguousarray(arrays.x)
        image = (ncnn.Mat(x[0]) if problem.batch == 1 else ncnn.Mat(x, 0)).clone()  # a clone aligns its channels as ncnn does
        latest: list[Any] = [None]

        def call() -> None:
            extractor = net.create_extractor()
            extractor.input("x", image)
            failed, latest[0] = extractor.extract("y")
            if failed:
                raise RuntimeError(f"ncnn's extract returned {failed}")

        def result() -> np.ndarray:
            y = latest[0]
            images = [y] if problem.batch == 1 else [y.batch(i) for i in range(problem.batch)]
            return np.stack([np.array(each) for each in images]).reshape(problem.result_shape)

        return Bound("-", call, result)

    def _net(self, problem: ConvProblem, arrays: Arrays) -> Any:
        net = self._ncnn.Net()
        options = net.opt
        options.num_threads = self._threads
        for reduced in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_packed", "bf16_storage"):
            if hasattr(options, f"use_{reduced}"):
                setattr(options, f"use_{reduced}", False)
        options.use_vulkan_compute = False
        if net.load_param_mem(parameters(problem)) != 0:
            raise RuntimeError("ncnn does not load the layer")
        with tempfile.TemporaryDirectory() as folder:  # weights loaded from memory may be referred to, not copied
            file = Path(folder) / "weights"
            file.write_bytes(_RAW + weights(problem, arrays.w).tobytes() + (b"" if arrays.b is None else arrays.b.tobytes()))
            if net.load_model(str(file)) != 0:
                raise RuntimeError("ncnn does not load the weights")
        return net


def weights(problem: ConvProblem, w: np.ndarray) -> np.ndarray:
    """As ncnn has them: outputs before inputs, of each group."""
    if not transposes(problem):
        return w
    return np.swapaxes(w.reshape(problem.groups, -1, *w.shape[1:]), 1, 2)


def parameters(problem: ConvProblem) -> str:
    """ncnn's text form of a network: input x, one convolution, output y. Keys of tens are the second and third axis."""
    layer = _LAYERS[problem.ndim - 1]
    if transposes(problem):
        layer = layer.replace("Convolution", "Deconvolution")
    if problem.groups > 1:
        layer = layer.replace("volution", "volutionDepthWise")
    size = int(np.prod(problem.weight_shape))
    keys = {0: problem.result_channels, 5: int(problem.bias), 6: size, 7: problem.groups}
    axes = zip(reversed(problem.kernel_size), reversed(problem.dilation), reversed(problem.stride), reversed(pads(problem)))
    for ten, (kernel, dilation, stride, (low, high)) in zip((0, 10, 20), axes):  # the last axis first
        keys |= {1 + ten: kernel, 2 + ten: dilation, 3 + ten: stride, 4 + ten: low, 15 + ten // 10: high}
    if transposes(problem):
        keys |= dict(zip((18, 19, 20), reversed(output_padding(problem))))
    if problem.groups == 1:
        del keys[7]
    texts = {key: str(value) for key, value in keys.items()}
    if problem.activation is not None:
        name, parameter = problem.activation
        texts[9] = str(_ACTIVATIONS[name])
        values = {"leaky_relu": [parameter], "relu6": [0.0, 6.0]}.get(name, [])
        if values:  # a list: its key is that of an array, -23300 less
            texts[-23310] = ",".join([str(len(values)), *(f"{value:e}" for value in values)])
    return f"{_MAGIC}\n2 2\nInput x 0 1 x\n{layer} y 1 1 x y {' '.join(f'{key}={texts[key]}' for key in sorted(texts))}\n"


peers = (Ncnn(),)
