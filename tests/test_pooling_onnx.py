"""ONNX's own node tests of pooling, where the package carries them."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
from pooling_cases import pooling

import fastconv

MODULES = ("averagepool", "globalaveragepool", "globalmaxpool", "lppool", "maxpool", "maxunpool")
# padding of 2 with a kernel of 3: more than half of it, which is an error here as in PyTorch
TOO_FAR = {f"test_{name}" for name in ("averagepool_2d_pads", "averagepool_2d_pads_count_include_pad", "lppool_2d_pads",
                                       "maxpool_2d_pads")}


@pytest.fixture(scope="module")
def cases():
    pytest.importorskip("onnx")
    try:
        node = importlib.import_module("onnx.backend.test.case.node")
        for module in MODULES:
            importlib.import_module(f"onnx.backend.test.case.node.{module}")
        return [case for case in node._NodeTestCases if case.model.graph.node[0].op_type.endswith(("Pool", "Unpool"))]
    except (ImportError, AttributeError) as error:
        pytest.skip(f"onnx's node tests: {error}")


def _attributes(node):
    helper = importlib.import_module("onnx.helper")
    found = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in found.items()}


def _computed(node, inputs, where):
    """What fastconv's function of that operator gives."""
    given, x = _attributes(node), inputs[0]
    if node.op_type.startswith("Global"):
        return [getattr(fastconv, {"A": "global_avg_pool", "M": "global_max_pool"}[node.op_type[6]])(x, **where)]
    kernel, ndim = given["kernel_shape"], x.ndim - 2
    stride, pads = given.get("strides", [1] * ndim), given.get("pads", [0] * (2 * ndim))
    padding = {"SAME_UPPER": "same", "SAME_LOWER": "same_lower", "VALID": "valid"}.get(
        given.get("auto_pad"), tuple(zip(pads[:ndim], pads[ndim:])))
    windows = dict(kernel_size=kernel, stride=stride, padding=padding, dilation=given.get("dilations", 1),
                   ceil_mode=bool(given.get("ceil_mode", 0)), **where)
    if node.op_type == "MaxUnpool":
        usual = tuple((n - 1) * s + k for n, s, k in zip(x.shape[2:], stride, kernel))
        size = tuple(inputs[2][2:].tolist()) if len(inputs) > 2 else usual
        # ONNX counts along the output that it would be without output_shape
        places = np.ravel_multi_index(np.unravel_index(inputs[1] % np.prod(usual), usual), size)
        return [getattr(fastconv, f"max_unpool{ndim}d")(x, places, kernel, stride, output_size=size)]
    if node.op_type == "LpPool":
        return [getattr(fastconv, f"lp_pool{ndim}d")(np.abs(x), given.get("p", 2), **windows)]
    if node.op_type == "AveragePool":
        return [getattr(fastconv, f"avg_pool{ndim}d")(x, count_include_pad=bool(given.get("count_include_pad", 0)), **windows)]
    y, i = getattr(fastconv, f"max_pool{ndim}d")(x, return_indices=True, **windows)
    if given.get("storage_order"):  # columns first
        rows, columns = x.shape[2:]
        i = i % columns * rows + i // columns
    planes = np.arange(x.shape[0] * x.shape[1]).reshape(*x.shape[:2], *[1] * ndim)
    return [y, i + planes * np.prod(x.shape[2:])][:len(node.output)]


def test_onnx_node_tests(cases, backend):
    pooling(backend)
    passed, too_far = [], set()
    for case in cases:
        node = case.model.graph.node[0]
        for inputs, outputs in case.data_sets:
            if backend == "naive" and inputs[0].size > 5000:
                continue  # a second each
            try:
                actual = _computed(node, inputs, {} if node.op_type == "MaxUnpool" else {"backend": backend})
            except fastconv.Unsupported:
                continue
            except ValueError as error:
                assert "padding must be at least 0 and at most half" in str(error), case.name
                too_far.add(case.name)
                continue
            for a, e in zip(actual, outputs, strict=True):
                assert a.shape == e.shape, case.name
                np.testing.assert_allclose(a, e, case.rtol, case.atol, err_msg=case.name)
            passed.append(case.name)
    print(f"{backend}: {len(passed)} of {len(cases)}, {len(too_far)} with padding beyond half of the kernel")
    assert passed and too_far <= TOO_FAR
