"""OpenVINO on the CPU: one convolution, plain or transposed, and its activation, which the compiler fuses, compiled for
latency; tensors share the arrays' memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...problem import ACTIVATIONS, ConvProblem
from ...stated import output_padding
from ...verify.data import Arrays
from . import Bound
from .common import library, missing, pads, refuses_all_but_plain, transposes


class OpenVino:
    name = "openvino"
    package = "openvino"
    prepared = True

    def unavailable(self) -> str | None:
        return missing(self.package, "openvino")

    def start(self, threads: int) -> str:
        openvino = self._openvino = library("openvino")
        self._core = openvino.Core()
        # f32: it would choose bfloat16 by itself where the CPU has instructions for it
        self._config = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY",
                        "INFERENCE_PRECISION_HINT": "f32"}
        return f"openvino {openvino.__version__.partition('-')[0]}"

    def refuses(self, problem: ConvProblem) -> str | None:
        return refuses_all_but_plain(problem, "openvino", ACTIVATIONS)

    def bind(self, problem: ConvProblem, arrays: Arrays) -> Bound:
        compiled = self._core.compile_model(model(self._openvino, problem, arrays), "CPU", self._config)
        request, tensor = compiled.create_infer_request(), self._openvino.Tensor
        x, y = np.ascontiguousarray(arrays.x), np.full(problem.result_shape, np.nan, problem.dtype)
        request.set_input_tensor(tensor(x, shared_memory=True))
        request.set_output_tensor(tensor(y, shared_memory=True))
        used = x, y  # the request refers to their memory, but does not keep it

        def call() -> None:
            request.infer(share_outputs=True)  # else it copies the output into a dictionary

        return Bound(algorithm(compiled), call, lambda: used[1])


def model(openvino: Any, problem: ConvProblem, arrays: Arrays) -> Any:
    """Input, convolution or its transposed with constant weights, bias, activation."""
    ops = library("openvino.opset13")
    x = ops.parameter(list(problem.first_shape), np.float32)
    lows, highs = map(list, zip(*pads(problem)))
    sliding = dict(strides=list(problem.stride), pads_begin=lows, pads_end=highs, dilations=list(problem.dilation))
    w, groups = arrays.w, problem.groups
    if groups > 1:
        w = w.reshape(groups, len(w) // groups, *w.shape[1:])
    if transposes(problem):
        convolution = ops.convolution_backprop_data if groups == 1 else ops.group_convolution_backprop_data
        y = convolution(x, ops.constant(w), **sliding, output_padding=list(output_padding(problem)))
    else:
        y = (ops.convolution if groups == 1 else ops.group_convolution)(x, ops.constant(w), **sliding)
    if arrays.b is not None:
        y = ops.add(y, ops.constant(arrays.b.reshape(1, -1, *[1] * problem.ndim)))
    return openvino.Model([y if problem.activation is None else activated(ops, y, *problem.activation)], [x])


def activated(ops: Any, y: Any, name: str, parameter: float) -> Any:
    """An activation of `y`."""
    if name == "relu6":
        return ops.clamp(y, 0.0, 6.0)
    if name == "leaky_relu":
        return ops.prelu(y, ops.constant(np.array([parameter], np.float32)))
    if name in ("gelu", "gelu_tanh"):
        return ops.gelu(y, "erf" if name == "gelu" else "tanh")
    return {"relu": ops.relu, "sigmoid": ops.sigmoid, "tanh": ops.tanh, "silu": ops.swish, "hardswish": ops.hswish}[name](y)


def algorithm(compiled: Any) -> str:
    """From the name of the kernel it chose, such as "jit_gemm_f32" or "brgconv_avx2_f32"."""
    for node in compiled.get_runtime_model().get_ops():
        facts = node.get_rt_info()
        if str(facts["layerType"].value if "layerType" in facts else "").endswith(("Convolution", "Deconvolution")):
            kernel = str(facts["primitiveType"].value)
            return "gemm" if "gemm" in kernel else "direct" if kernel.startswith(("jit", "brgconv")) else "-"
    return "-"


peers = (OpenVino(),)
