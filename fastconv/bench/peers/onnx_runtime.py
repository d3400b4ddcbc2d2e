"""ONNX Runtime: a model of one Conv or ConvTranspose node and its activation, which the session fuses into Conv, its weights
packed; input and output bound where they lie."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...problem import ConvProblem
from ...stated import output_padding
from ...verify.data import Arrays
from . import Bound
from .common import library, missing, pads, refuses_all_but_plain, transposes

# the operator, its attributes (leaky_relu's is the problem's), its constants: those that the session fuses into Conv
_ACTIVATIONS: dict[str, tuple[str, tuple[float, ...]]] = {
    "relu": ("Relu", ()), "relu6": ("Clip", (0.0, 6.0)), "leaky_relu": ("LeakyRelu", ()), "sigmoid": ("Sigmoid", ()),
    "tanh": ("Tanh", ())}
_OPSET, _FORMAT = 13, 8  # versions of the operators and the file: old enough for every onnxruntime in use


class OnnxRuntime:
    name = "onnxruntime"
    package = "onnxruntime onnx"
    prepared = True

    def unavailable(self) -> str | None:
        return missing(self.package, "onnxruntime", "onnx")

    def start(self, threads: int) -> str:
        runtime = self._runtime = library("onnxruntime")
        runtime.set_default_logger_severity(3)  # errors only
        runtime.disable_telemetry_events()
        options = self._options = runtime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_ALL
        return f"onnxruntime {runtime.__version__}"

    def refuses(self, problem: ConvProblem) -> str | None:
        reason = refuses_all_but_plain(problem, "onnxruntime", _ACTIVATIONS)
        if reason is None and transposes(problem) and any(more >= max(axis) for more, *axis in zip(
                output_padding(problem), problem.stride, problem.dilation)):
            return "onnxruntime's output padding is less than the stride or the dilation"
        return reason

    def bind(self, problem: ConvProblem, arrays: Arrays) -> Bound:
        session = self._runtime.InferenceSession(model(problem, arrays), self._options, ["CPUExecutionProvider"])
        value = self._runtime.OrtValue.ortvalue_from_numpy
        used = value(np.ascontiguousarray(arrays.x)), value(np.full(problem.result_shape, np.nan, problem.dtype))
        binding = session.io_binding()
        binding.bind_ortvalue_input("x", used[0])
        binding.bind_ortvalue_output("y", used[1])
        return Bound("-", lambda: session.run_with_iobinding(binding), lambda: used[1].numpy())  # keeps both values


def model(problem: ConvProblem, arrays: Arrays) -> bytes:
    """An ONNX file: ``y = act(Conv(x, w, b))``, or ConvTranspose, with constant weights."""
    onnx: Any = library("onnx")
    helper, number = onnx.helper, onnx.TensorProto.FLOAT
    constants = {"w": arrays.w} if arrays.b is None else {"w": arrays.w, "b": arrays.b}
    lows, highs = zip(*pads(problem))
    sliding = dict(group=problem.groups, pads=[*lows, *highs], kernel_shape=problem.kernel_size, strides=problem.stride,
                   dilations=problem.dilation)
    if transposes(problem):
        nodes = [helper.make_node("ConvTranspose", ["x", *constants], ["y"], **sliding, output_padding=output_padding(problem))]
    else:
        nodes = [helper.make_node("Conv", ["x", *constants], ["y"], **sliding)]
    if problem.activation is not None:
        (name, parameter), (operator, limits) = problem.activation, _ACTIVATIONS[problem.activation[0]]
        nodes[0].output[:] = ["sum"]
        clip = {f"limit{i}": np.array(value, np.float32) for i, value in enumerate(limits)}
        slope = {"alpha": parameter} if name == "leaky_relu" else {}
        nodes.append(helper.make_node(operator, ["sum", *clip], ["y"], **slope))
        constants |= clip
    graph = helper.make_graph(
        nodes, "convolution", [helper.make_tensor_value_info("x", number, problem.first_shape)],
        [helper.make_tensor_value_info("y", number, problem.result_shape)],
        [onnx.numpy_helper.from_array(np.asarray(array, order="C"), name) for name, array in constants.items()])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_FORMAT)
    return bytes(made.SerializeToString())


peers = (OnnxRuntime(),)
