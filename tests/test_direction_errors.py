"""Wrong arguments of the functions for gradients and transposed convolutions: which error, and what it must name."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from direction_cases import VIEWS

import fastconv


def ones(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    return np.ones(shape, dtype)


GOOD: dict[str, dict[str, Any]] = {
    "conv2d_input": dict(input_size=(2, 4, 6, 7), weight=ones(6, 2, 3, 3), grad_output=ones(2, 6, 4, 5), groups=2),
    "conv2d_weight": dict(input=ones(2, 4, 6, 7), weight_size=(6, 2, 3, 3), grad_output=ones(2, 6, 4, 5), groups=2),
    "conv2d_backward": dict(grad_output=ones(2, 6, 4, 5), input=ones(2, 4, 6, 7), weight=ones(6, 2, 3, 3), groups=2),
    "conv_transpose2d": dict(input=ones(2, 4, 5, 6), weight=ones(4, 3, 3, 3), groups=2),
    "conv1d_input": dict(input_size=(2, 4, 6), weight=ones(3, 4, 3), grad_output=ones(2, 3, 4)),
    "conv1d_weight": dict(input=ones(2, 4, 6), weight_size=(3, 4, 3), grad_output=ones(2, 3, 4)),
    "conv_transpose1d": dict(input=ones(2, 4, 5), weight=ones(4, 3, 3)),
    "conv3d_input": dict(input_size=(1, 2, 4, 5, 6), weight=ones(3, 2, 2, 2, 2), grad_output=ones(1, 3, 3, 4, 5)),
    "conv3d_weight": dict(input=ones(1, 2, 4, 5, 6), weight_size=(3, 2, 2, 2, 2), grad_output=ones(1, 3, 3, 4, 5)),
    "conv_transpose3d": dict(input=ones(1, 2, 3, 3, 3), weight=ones(2, 3, 2, 2, 2)),
}
CHANNELS, KERNEL = "channels|groups", "kernel|weight"

# of every function: (arguments, error, words of the message)
ALL: list[tuple[dict[str, Any], Any, tuple[str, ...]]] = [
    ({"groups": 0}, ValueError, ("groups", "0")), ({"groups": -1}, ValueError, ("groups", "-1")),
    ({"groups": 5}, ValueError, ("groups", "5")), ({"groups": 2**64}, ValueError, ("groups|channels",)),
    ({"groups": True}, TypeError, ("groups", "True")), ({"groups": 2.0}, TypeError, ("groups", r"2\.0")),
    ({"groups": "2"}, TypeError, ("groups", "'2'")), ({"groups": None}, TypeError, ("groups", "None")),
    ({"stride": 0}, ValueError, ("stride", "positive", "0")), ({"stride": (1, 0)}, ValueError, ("stride", r"\(1, 0\)")),
    ({"stride": (1, 1, 1)}, ValueError, ("stride", r"\(1, 1, 1\)")), ({"stride": -2}, ValueError, ("stride", "-2")),
    ({"stride": True}, TypeError, ("stride", "True")), ({"stride": 1.0}, TypeError, ("stride", r"1\.0")),
    ({"stride": "1"}, TypeError, ("stride", "'1'")), ({"stride": None}, TypeError, ("stride", "None")),
    ({"dilation": 0}, ValueError, ("dilation", "positive")), ({"dilation": (1,) * 3}, ValueError, ("dilation", r"\(1, 1")),
    ({"dilation": True}, TypeError, ("dilation", "True")), ({"dilation": 1.0}, TypeError, ("dilation", r"1\.0")),
    ({"dilation": "1"}, TypeError, ("dilation", "'1'")), ({"dilation": 2**63}, ValueError, ("dilation",)),
    ({"padding": -1}, ValueError, ("padding", "-1")), ({"padding": (0, -1)}, ValueError, ("padding", r"\(0, -1\)")),
    ({"padding": (0, 0, 0)}, ValueError, ("padding", r"\(0, 0, 0\)")), ({"padding": []}, ValueError, ("padding", r"\[\]")),
    ({"padding": ((0, 0, 0), 0)}, ValueError, ("padding", r"\(0, 0, 0\)")),
    ({"padding": True}, TypeError, ("padding", "True")), ({"padding": 0.0}, TypeError, ("padding", r"0\.0")),
    ({"padding": None}, TypeError, ("padding", "None")),
    ({"padding": "foo"}, (TypeError, ValueError), ("padding", "'foo'")),  # no word will do for a transposed convolution
    ({"layout": "NWC"}, ValueError, ("layout", "'NWC'")), ({"layout": 3}, TypeError, ("layout", "3")),
    ({"layout": "channels_last"}, ValueError, (CHANNELS,)),
    ({"backend": "nonesuch"}, ValueError, ("backend", "'nonesuch'")), ({"backend": None}, ValueError, ("backend", "None")),
    ({"algorithm": "nonesuch"}, ValueError, ("algorithm", "'nonesuch'")), ({"algorithm": 3}, TypeError, ("algorithm", "3")),
    ({"accuracy": "perfect"}, ValueError, ("accuracy", "'perfect'")),
    ({"backend": "naive", "algorithm": "winograd"}, fastconv.Unsupported, ("naive", "winograd")),
]
GRADIENTS: list[tuple[dict[str, Any], Any, tuple[str, ...]]] = [  # of those of convolutions
    ({"padding_mode": "wrap"}, ValueError, ("padding_mode", "'wrap'")), ({"padding_mode": None}, TypeError, ("padding_mode",)),
    *(({name: value}, ValueError, ("grad_output", r"\(2, 6, 4, 5\)")) for name, value in
      (("padding", 1), ("stride", 2), ("padding", "full"))),
    ({"padding": 2**62}, ValueError, ("output|padd",)),
    ({"dilation": 3}, ValueError, ("kernel", "7", "6")), ({"dilation": 2**62}, ValueError, ("kernel|dilation",)),
    *(({"grad_output": ones(*shape)}, ValueError, ("grad_output", re.escape(str(shape)))) for shape in
      ((3, 6, 4, 5), (2, 5, 4, 5), (2, 6, 4, 4), (2, 6, 5, 5), (6, 4, 5), (2, 6, 4), (2, 6, 4, 5, 1), (0, 6, 4, 5),
       (2, 6, 0, 5))),
    ({"grad_output": None}, TypeError, ("grad_output", "None")),
    ({"grad_output": np.ma.ones((2, 6, 4, 5))}, TypeError, ("grad_output", "masked")),
    ({"grad_output": ones(2, 6, 4, 5, dtype=complex)}, TypeError, ("float32 or float64", "complex128")),
]
OUT: list[tuple[str, dict[str, Any], Any, tuple[str, ...]]] = [
    (name, {"out": wrong}, error, ("out", words)) for name, shape in
    (("conv2d_input", (2, 4, 6, 7)), ("conv2d_weight", (6, 2, 3, 3)), ("conv_transpose2d", (2, 6, 7, 8)))
    for wrong, error, words in (
        (ones(*shape[:-1], 1), ValueError, re.escape(str((*shape[:-1], 1)))), (ones(*shape[1:]), ValueError, "shape"),
        (ones(1, *shape), ValueError, "shape"), (ones(*shape, dtype=np.float64), TypeError, "float64"),
        (ones(*shape, dtype=np.int32), TypeError, "int32"), (ones(*shape).tolist(), TypeError, "list"),
        (VIEWS["read_only"](ones(*shape)), ValueError, "read-only|writeable"))]
SIZES: list[tuple[str, dict[str, Any], Any, tuple[str, ...]]] = [  # of input_size and weight_size
    (name, {size: wrong}, error, (words.replace("_", "[_ ]"),)) for name, size, right in
    (("conv2d_input", "input_size", (2, 4, 6, 7)), ("conv2d_weight", "weight_size", (6, 2, 3, 3)))
    for wrong, error, words in (
        ((*right[:3], True), TypeError, size), ((*right[:3], 1.0), TypeError, size), ((*right[:3], "3"), TypeError, size),
        ((*right[:3], None), TypeError, size), ((*right[:3], -1), ValueError, size), ((*right[:3], 2**63), ValueError, size),
        (right[:2], ValueError, size), ((), ValueError, size), ((*right, 1), ValueError, size), (7, TypeError, size),
        (None, TypeError, size), ("2467", (TypeError, ValueError), size),
        ((*right[:3], 0), ValueError, "input_size|weight_size|kernel"))]
REST: list[tuple[str, dict[str, Any], Any, tuple[str, ...]]] = [
    # of the gradient of the input
    ("conv2d_input", {"input_size": (2, 6, 6, 7)}, ValueError, (CHANNELS, "4", "6")),
    ("conv2d_input", {"input_size": (2, 5, 6, 7)}, ValueError, (CHANNELS, "5")),
    ("conv2d_input", {"input_size": (2, 0, 6, 7)}, ValueError, ("channel", "0")),
    ("conv2d_input", {"input_size": (3, 4, 6, 7)}, ValueError, ("grad_output", r"\(2, 6, 4, 5\)", "3")),
    ("conv2d_input", {"input_size": (2, 4, 7, 7)}, ValueError, ("grad_output", r"\(2, 6, 4, 5\)", r"5, 5")),
    ("conv2d_input", {"input_size": (2, 4, 2, 7)}, ValueError, ("kernel", "3", "2")),
    ("conv2d_input", {"input_size": (4, 6, 7)}, ValueError, ("grad_output", r"\(2, 6, 4, 5\)")),
    ("conv2d_input", {"input_size": (2, 4, 2**40, 2**40)}, ValueError, ("input|elements",)),
    ("conv2d_input", {"weight": ones(6, 2, 3)}, ValueError, ("weight", r"\(6, 2, 3\)")),
    ("conv2d_input", {"weight": ones(6, 2, 3, 3, 3)}, ValueError, ("weight", r"\(6, 2, 3, 3, 3\)")),
    ("conv2d_input", {"weight": ones(0, 2, 3, 3)}, ValueError, ("weight", r"\(0, 2, 3, 3\)")),
    ("conv2d_input", {"weight": ones(6, 2, 0, 3)}, ValueError, (KERNEL, "0")),
    ("conv2d_input", {"weight": ones(6, 3, 3, 3)}, ValueError, (CHANNELS, "6", "4")),
    ("conv2d_input", {"weight": ones(8, 2, 3, 3)}, ValueError, ("grad_output", r"\(2, 6, 4, 5\)", "8")),
    ("conv2d_input", {"weight": ones(6, 2, 3, 2)}, ValueError, ("grad_output", r"\(2, 6, 4, 5\)", "6")),
    ("conv2d_input", {"weight": None}, TypeError, ("weight", "None")),
    ("conv2d_input", {"weight": ones(6, 2, 3, 3, dtype=int), "grad_output": ones(2, 6, 4, 5, dtype=int)}, TypeError,
     ("float32 or float64", "int64")),
    ("conv2d_input", {"weight": ones(6, 2, 3, 3, dtype=np.float16), "grad_output": ones(2, 6, 4, 5, dtype=np.float16)},
     TypeError, ("float32 or float64", "float16")),
    # of the gradient of the weight
    ("conv2d_weight", {"input": ones(3, 4, 6, 7)}, ValueError, ("grad_output", r"\(2, 6, 4, 5\)", "3")),
    ("conv2d_weight", {"input": ones(2, 6, 6, 7)}, ValueError, (CHANNELS, "4", "6")),
    ("conv2d_weight", {"input": ones(2, 4, 7, 7)}, ValueError, ("grad_output", r"\(2, 6, 4, 5\)", r"5, 5")),
    ("conv2d_weight", {"input": ones(4, 6, 7)}, ValueError, ("grad_output", r"\(2, 6, 4, 5\)")),
    ("conv2d_weight", {"input": ones(2, 4, 6)}, ValueError, ("input|grad_output",)),
    ("conv2d_weight", {"input": ones(2, 4, 6, 7, 1)}, ValueError, ("input", r"\(2, 4, 6, 7, 1\)")),
    ("conv2d_weight", {"input": ones(2, 4, 6, 7, dtype=complex)}, TypeError, ("float32 or float64", "complex128")),
    ("conv2d_weight", {"input": None}, TypeError, ("input", "None")),
    ("conv2d_weight", {"weight_size": (6, 3, 3, 3)}, ValueError, (CHANNELS, "6", "4")),
    ("conv2d_weight", {"weight_size": (8, 2, 3, 3)}, ValueError, ("grad_output", r"\(2, 6, 4, 5\)", "8")),
    ("conv2d_weight", {"weight_size": (5, 2, 3, 3)}, ValueError, (CHANNELS, "5")),
    ("conv2d_weight", {"weight_size": (6, 2, 3, 2)}, ValueError, ("grad_output", r"\(2, 6, 4, 5\)", "6")),
    ("conv2d_weight", {"weight_size": (6, 2, 8, 3)}, ValueError, ("kernel", "8", "6")),
    ("conv2d_weight", {"weight_size": (6, 0, 3, 3)}, ValueError, ("weight",)),
    # of all three
    ("conv2d_backward", {"input": ones(3, 4, 6, 7)}, ValueError, ("grad_output", r"\(2, 6, 4, 5\)", "3")),
    ("conv2d_backward", {"input": ones(2, 6, 6, 7)}, ValueError, (CHANNELS, "4", "6")),
    ("conv2d_backward", {"input": ones(2, 4, 6, 8)}, ValueError, ("grad_output", r"\(2, 6, 4, 5\)", r"4, 6")),
    ("conv2d_backward", {"input": ones(2, 4, 2, 7)}, ValueError, ("kernel", "3", "2")),
    ("conv2d_backward", {"weight": ones(8, 2, 3, 3)}, ValueError, ("grad_output", r"\(2, 6, 4, 5\)", "8")),
    ("conv2d_backward", {"weight": ones(6, 3, 3, 3)}, ValueError, (CHANNELS, "6", "4")),
    ("conv2d_backward", {"weight": ones(6, 2, 3)}, ValueError, ("weight", r"\(6, 2, 3\)")),
    ("conv2d_backward", {"grad_output": ones(2, 6, 4, 4), "needs": (False, False, True)}, ValueError, ("grad_output",)),
    ("conv2d_backward", {"input": None}, TypeError, ("input", "None")),
    ("conv2d_backward", {"needs": (True, True)}, (TypeError, ValueError), ("needs", r"\(True, True\)")),
    ("conv2d_backward", {"needs": True}, (TypeError, ValueError), ("needs", "True")),
    ("conv2d_backward", {"needs": None}, (TypeError, ValueError), ("needs", "None")),
    ("conv2d_backward", {"needs": ("a", "b", "c")}, (TypeError, ValueError), ("needs", "'a'")),
    # of transposed convolutions
    ("conv_transpose2d", {"input": ones(2, 6, 5, 6)}, ValueError, (CHANNELS, "4", "6")),
    ("conv_transpose2d", {"input": ones(2, 4, 5)}, ValueError, ("input|weight",)),
    ("conv_transpose2d", {"input": ones(2, 4, 5, 6, 7)}, ValueError, ("input", r"\(2, 4, 5, 6, 7\)")),
    ("conv_transpose2d", {"input": ones(2, 4, 0, 6)}, ValueError, ("input", "0")),
    ("conv_transpose2d", {"input": ones(2, 0, 5, 6)}, ValueError, ("channel", "0")),
    ("conv_transpose2d", {"input": None}, TypeError, ("input", "None")),
    ("conv_transpose2d", {"weight": ones(4, 3, 3)}, ValueError, ("weight", r"\(4, 3, 3\)")),
    ("conv_transpose2d", {"weight": ones(6, 3, 3, 3)}, ValueError, (CHANNELS, "6", "4")),
    ("conv_transpose2d", {"weight": ones(4, 0, 3, 3)}, ValueError, ("weight", "0")),
    ("conv_transpose2d", {"weight": ones(4, 3, 3, 3, dtype=int), "input": ones(2, 4, 5, 6, dtype=int)}, TypeError,
     ("float32 or float64", "int64")),
    ("conv_transpose2d", {"groups": 3}, ValueError, ("groups", "3", "4")),
    *(("conv_transpose2d", {"bias": ones(n)}, ValueError, ("bias", "6", str(n))) for n in (1, 3, 4, 12)),
    ("conv_transpose2d", {"bias": ones(6, dtype=complex)}, TypeError, ("bias", "complex128")),
    ("conv_transpose2d", {"output_padding": 1}, ValueError, ("output_padding", "1", "stride", "dilation")),
    ("conv_transpose2d", {"output_padding": 3, "stride": 2, "dilation": 3}, ValueError, ("output_padding", "3")),
    ("conv_transpose2d", {"output_padding": (0, 2), "stride": (3, 2)}, ValueError, ("output_padding", "2")),
    ("conv_transpose2d", {"output_padding": (2, 0), "dilation": (1, 3)}, ValueError, ("output_padding", "2")),
    ("conv_transpose2d", {"output_padding": -1}, ValueError, ("output_padding", "-1")),
    ("conv_transpose2d", {"output_padding": (0, 0, 0)}, ValueError, ("output_padding", r"\(0, 0, 0\)")),
    ("conv_transpose2d", {"output_padding": True, "stride": 2}, TypeError, ("output_padding", "True")),
    ("conv_transpose2d", {"output_padding": 1.0, "stride": 2}, TypeError, ("output_padding", r"1\.0")),
    ("conv_transpose2d", {"output_padding": "1", "stride": 2}, TypeError, ("output_padding", "'1'")),
    ("conv_transpose2d", {"output_padding": None}, TypeError, ("output_padding", "None")),
    ("conv_transpose2d", {"padding": 4}, ValueError, ("padding|output", "4")),
    ("conv_transpose2d", {"padding": ((0, 0), (5, 3))}, ValueError, ("padding|output",)),
    ("conv_transpose2d", {"padding": 2**62}, ValueError, ("padding|output",)),
    ("conv_transpose2d", {"stride": 2**62}, ValueError, ("stride|output|input|elements",)),
    ("conv_transpose2d", {"dilation": 2**62}, ValueError, ("dilation|output|input|kernel|elements",)),
    ("conv_transpose2d", {"padding": "same"}, (TypeError, ValueError), ("padding", "'same'")),
    ("conv_transpose2d", {"residual": ones(2, 6, 7, 7)}, ValueError, ("residual", r"\(2, 6, 7, 7\)", r"\(2, 6, 7, 8\)")),
    ("conv_transpose2d", {"residual": ones(6, 1, 1)}, ValueError, ("residual", r"\(6, 1, 1\)")),
    ("conv_transpose2d", {"activation": "reluu"}, ValueError, ("activation", "'reluu'")),
    ("conv_transpose2d", {"activation": 3}, TypeError, ("activation", "3")),
    # of other numbers of axes
    ("conv1d_input", {"padding": (1, 2)}, ValueError, ("padding", r"\(1, 2\)")),
    ("conv1d_input", {"input_size": (2, 4, 6, 7)}, ValueError, ("input", r"\(2, 4, 6, 7\)")),
    ("conv1d_weight", {"weight_size": (3, 4, 3, 3)}, ValueError, ("weight", r"\(3, 4, 3, 3\)")),
    ("conv1d_weight", {"grad_output": ones(2, 3, 5)}, ValueError, ("grad_output", r"\(2, 3, 5\)", "4")),
    ("conv_transpose1d", {"padding": (1, 2)}, ValueError, ("padding", r"\(1, 2\)")),
    ("conv_transpose1d", {"input": ones(2, 4, 5, 6)}, ValueError, ("input", r"\(2, 4, 5, 6\)")),
    ("conv3d_input", {"input_size": (2, 4, 5)}, ValueError, ("input", r"\(2, 4, 5\)")),
    ("conv3d_input", {"weight": ones(3, 2, 2, 2)}, ValueError, ("weight", r"\(3, 2, 2, 2\)")),
    ("conv3d_weight", {"grad_output": ones(1, 3, 3, 4, 6)}, ValueError, ("grad_output", r"\(1, 3, 3, 4, 6\)")),
    ("conv_transpose3d", {"output_padding": (0, 1, 0)}, ValueError, ("output_padding", "1")),
]
BAD = [*((name, *wrong) for name in GOOD if "2d" in name for wrong in ALL),
       *((name, *wrong) for name in GOOD if "conv2d" in name for wrong in GRADIENTS), *OUT, *SIZES, *REST]


def _id(case: tuple[str, dict[str, Any], Any, Any]) -> str:
    shown = (f"{key}={value.shape if isinstance(value, np.ndarray) else value!r}" for key, value in case[1].items())
    return f"{case[0]}({', '.join(shown)})"[:70]


@pytest.mark.parametrize("name, changes, error, words", BAD, ids=map(_id, BAD))
def test_wrong_arguments(name, changes, error, words):
    """The argument, the value and the rule, in one line; also where a right call is remembered that looks alike."""
    function = getattr(fastconv, name)
    function(**GOOD[name])
    with pytest.raises(error) as caught:
        function(**{**GOOD[name], **changes})
    text = str(caught.value)
    assert 0 < len(text) < 500 and text.isprintable()
    for word in words:
        assert re.search(word, text), f"{word!r} is not in {text!r}"


@pytest.mark.parametrize("name", ["conv2d_input", "conv2d_weight", "conv_transpose2d"])
def test_an_error_leaves_out_alone(name):
    function = getattr(fastconv, name)
    for changes in ({"stride": 0}, {"groups": 3}, {"padding": 50}, {"backend": "nonesuch"}, {"accuracy": "perfect"}):
        out = np.full_like(function(**GOOD[name]), 7)
        with pytest.raises(ValueError):
            function(**{**GOOD[name], **changes}, out=out)
        assert (out == 7).all()
