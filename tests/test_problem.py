"""ConvProblem: text both ways, sizes, what it rejects and how it says so."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import problems

from fastconv.problem import ACTIVATIONS, ConvProblem
from fastconv.verify.matrix import matrix
from fastconv.window import PADDING_MODES


@given(problems())
def test_text_round_trip(problem):
    again = ConvProblem.from_text(problem.text)
    assert again == problem and hash(again) == hash(problem)
    assert again.text == problem.text


@given(problems(), st.text(alphabet=st.characters(exclude_characters='"', exclude_categories=["C", "Z"])), st.integers(1, 99))
def test_names_survive_and_do_not_count(problem, name, count):
    if re.search(r"\*[0-9]+$", name):
        name = "plain"  # "*3" is the count
    named = dataclasses.replace(problem, name=name, count=count)
    again = ConvProblem.from_text(named.text)
    assert named == problem == again
    assert (again.name, again.count) == (name, count)


def test_the_matrix_round_trips():
    for problem in matrix():
        again = ConvProblem.from_text(problem.text)
        assert again == problem and again.name == problem.name


def test_benchdnn_lines():
    p = ConvProblem.from_text('mb1_ic64ih56iw56_oc64oh56ow56_kh3kw3sh1sw1ph1pw1_n"res2*3"')
    assert (p.batch, p.in_channels, p.input_size, p.out_channels, p.output_size) == (1, 64, (56, 56), 64, (56, 56))
    assert p.padding == ((1, 1), (1, 1)) and p.bias and (p.name, p.count) == ("res2", 3)
    assert ConvProblem.from_text("ic3iw9oc4kw3").batch == 2  # as in benchdnn
    assert ConvProblem.from_text("ic3ih8oc4kh3dh1").dilation == (2, 2)  # dh0 is no dilation; the highest axis holds for all
    assert ConvProblem.from_text("g4ic8ih8oc4oh4kh3sh2ph0").padding == ((0, 1), (0, 1))  # the far padding follows the output
    assert ConvProblem.from_text("--dir=FWD_D ic3ih8oc4kh3").bias is False
    assert ConvProblem.from_text("--dt=f64 --stag=axb ic3ih8oc4kh3").layout == "channels_last"
    q = ConvProblem.from_text("--attr-post-ops=sum+relu:0.25 ic3ih8oc4kh3")
    assert q.residual and q.activation == ("leaky_relu", 0.25)
    assert ConvProblem.from_text("--attr-post-ops=clip:0:6 ic3ih8oc4kh3").activation == ("relu6", 0.0)
    assert ConvProblem.from_text("--dir=BWD_W ic3ih8oc4kh3").direction == "backward_weight"
    assert ConvProblem.from_text("--dir=BWD_WB ic3ih8oc4kh3") == ConvProblem.from_text("--dir=BWD_W ic3ih8oc4kh3")
    assert ConvProblem.from_text("ic3id8oc4kd3").ndim == 3


@pytest.mark.parametrize("text, part", [
    ("", "one descriptor"), ("ic3ih8", "oc"), ("ic3oc4kh3", "input size"), ("ic3ih8oc4", "kernel size"),
    ("ic3ih8oc4kh3zz", "'zz'"), ("ic3ic4ih8oc4kh3", "ic is given twice"), ("--dt=f16 ic3ih8oc4kh3", "--dt=f16"),
    ("--stag=nonsense ic3ih8oc4kh3", "--stag=nonsense"), ("--attr-post-ops=relu+sum ic3ih8oc4kh3", "sum+activation"),
    ("--attr-post-ops=mish ic3ih8oc4kh3", "'mish'"), ("ic3ih8oc4kh3sh0", "positive"), ("ic3ih8oc4oh0kh3", "positive"),
    ("ic3ih8oc4kh3dh-1", "at least 0"), ("ic3ih8oc4oh2kh3", "unread"), ('ic3ih8oc4kh3n"open', "quotation"), ("--dt", "knobs"),
    ("ic3ih8oc4oh99kh3ph-1", "padding"), ("g3ic4ih8oc3kh1", "groups"),
])
def test_malformed_text(text, part):
    with pytest.raises(ValueError) as caught:
        ConvProblem.from_text(text)
    assert part in str(caught.value)


@given(problems())
def test_sizes_agree_with_counting(problem):
    """The output size is the number of windows that fit; what is stored as far padding is what they reach."""
    for size, kernel, stride, dilation, (low, high), out, padded in zip(
            problem.input_size, problem.kernel_size, problem.stride, problem.dilation, problem.padding, problem.output_size,
            problem.padded_size, strict=True):
        assert padded == size + low + high == (out - 1) * stride + dilation * (kernel - 1) + 1
        starts = [s for s in range(0, padded, stride) if s + dilation * (kernel - 1) < padded]
        assert len(starts) == out >= 1
        assert high > -stride


def test_flops_and_bytes():
    p = ConvProblem.from_text("g2mb3ic8ih9iw7oc4kh3kw2ph1sh2sw1")
    macs = 3 * 4 * p.output_size[0] * p.output_size[1] * (8 // 2) * 3 * 2
    assert p.flops == 2 * macs and p.taps == 24
    elements = 3 * 8 * 9 * 7 + 4 * 4 * 3 * 2 + 4 + int(np.prod(p.output_shape))
    assert p.bytes == 4 * elements
    q = ConvProblem.from_text("--dt=f64 --attr-post-ops=sum g2mb3ic8ih9iw7oc4kh3kw2ph1sh2sw1")
    assert q.bytes == 8 * (elements + int(np.prod(p.output_shape)))


@pytest.mark.parametrize("padding, stride, kernel, expected", [
    (1, 1, 3, (1, 1)), ("valid", 1, 3, (0, 0)), ("same", 1, 3, (1, 1)), ("same", 1, 4, (1, 2)), ("same_lower", 1, 4, (2, 1)),
    ("same", 2, 3, (0, 1)), ("full", 1, 4, (3, 3)), (((2, 1),), 1, 3, (2, 1)), ((1,), 1, 3, (1, 1)), ([[0, 2]], 1, 3, (0, 2)),
    (0, 3, 1, (0, -1)),
])
def test_padding_forms(padding, stride, kernel, expected):
    p = ConvProblem.from_shapes((1, 2, 8 if stride != 3 else 9 - 1), (3, 2, kernel), ndim=1, padding=padding, stride=stride)
    assert p.padding == (expected,)
    if padding in ("same", "same_lower"):
        assert p.output_size == (-(-8 // stride),)


@pytest.mark.parametrize("layout, ndim, expected", [
    ("NCW", 1, "channels_first"), ("NWC", 1, "channels_last"), ("NCHW", 2, "channels_first"), ("NHWC", 2, "channels_last"),
    ("NCDHW", 3, "channels_first"), ("NDHWC", 3, "channels_last"), ("channels_last", 2, "channels_last"),
])
def test_layout_aliases(layout, ndim, expected):
    shape = (1, *(5,) * (ndim + 1))
    assert ConvProblem.from_shapes(shape, (2, 5, *(1,) * ndim), ndim=ndim, layout=layout).layout == expected


@pytest.mark.parametrize("keywords, error, parts", [
    ({"layout": "NCW"}, ValueError, ("layout", "'NCW'", "NHWC")),
    ({"layout": None}, TypeError, ("layout", "None")),
    ({"padding": (1, 2, 3)}, ValueError, ("padding", "(1, 2, 3)")),
    ({"padding": ((1, 2, 3), 1)}, ValueError, ("padding", "(1, 2, 3)")),
    ({"padding": "middle"}, ValueError, ("padding", "'middle'", "same_lower")),
    ({"padding": -1}, ValueError, ("padding", "-1", "at least 0")),
    ({"padding": ((0, -1), 0)}, ValueError, ("padding", "-1")),
    ({"padding_mode": "mirror"}, ValueError, ("padding_mode", "'mirror'", "reflect")),
    ({"stride": (1, 0)}, ValueError, ("stride", "positive", "(1, 0)")),
    ({"stride": (1, 1, 1)}, ValueError, ("stride", "(1, 1, 1)")),
    ({"dilation": 0}, ValueError, ("dilation", "positive")),
    ({"groups": 3}, ValueError, ("groups", "3")),
    ({"activation": "mish"}, ValueError, ("activation", "'mish'")),
    ({"activation": 3}, TypeError, ("activation", "3")),
    ({"activation": ()}, TypeError, ("activation", "()")),
    ({"activation": ("relu", 2)}, ValueError, ("relu", "no parameter")),
    ({"activation": ("leaky_relu", "x")}, ValueError, ("leaky_relu", "'x'")),
    ({"activation": ("leaky_relu", float("nan"))}, ValueError, ("leaky_relu", "nan")),
    ({"accuracy": "perfect"}, ValueError, ("accuracy", "'perfect'")),
    ({"bias_shape": (1,)}, ValueError, ("bias", "(4,)", "(1,)")),
])
def test_rejections_name_argument_value_and_rule(keywords, error, parts):
    with pytest.raises(error) as caught:
        ConvProblem.from_shapes((2, 4, 8, 8), (4, 4, 3, 3), ndim=2, **keywords)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize("keywords", [
    {"stride": 0}, {"stride": (1,)}, {"padding": ((0, 0),)}, {"padding": 1}, {"dilation": (0, 1)}, {"batch": -1},
    {"in_channels": 0}, {"padding": ((0, -1), (0, 0))}, {"direction": "sideways"}, {"dtype": "float16"}, {"name": 'a"b'},
    {"count": 0}, {"direction": "backward_weight", "residual": True},
    {"direction": "backward_weight", "bias": True}, {"input_size": (1, 1)}, {"input_size": (2, 2, 2, 2)},
    {"groups": 2, "in_channels": 3},
])
def test_the_constructor_validates_as_well(keywords):
    arguments = {"input_size": (8, 8), "kernel_size": (3, 3), "in_channels": 2, "out_channels": 2, **keywords}
    with pytest.raises(ValueError):
        ConvProblem(**arguments)


@pytest.mark.parametrize("one", [(2,), [2], np.array([2]), (np.int64(2),)])
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_one_entry_holds_for_all_axes(ndim, one):
    """As PyTorch takes it, for stride, padding and dilation; a pair for one axis only is nothing."""
    def made(**keywords):
        return ConvProblem.from_shapes((2, 4, *(9,) * ndim), (4, 4, *(3,) * ndim), ndim=ndim, **keywords)

    assert made(stride=one) == made(stride=2) and made(dilation=one) == made(dilation=2)
    if not isinstance(one, np.ndarray):
        assert made(padding=one) == made(padding=2)
    for wrong in ({"stride": ()}, {"padding": ()}, {"stride": (1,) * (ndim + 1)}, {"padding": (1,) * (ndim + 1)},
                  {"stride": (0,)}, {"padding": (-1,)}, {"padding": ((1, 2),)} if ndim > 1 else {"dilation": (0,)}):
        with pytest.raises(ValueError):
            made(**wrong)
    for wrong in ({"stride": (1.0,)}, {"dilation": (True,)}, {"padding": ("same",)}):
        with pytest.raises(TypeError):
            made(**wrong)


def test_numpy_integers_are_integers():
    p = ConvProblem.from_shapes((2, 4, 8, 8), (4, 4, 3, 3), ndim=2, stride=np.int64(2), padding=(np.int32(1), np.uint8(0)))
    assert p.stride == (2, 2) and type(p.stride[0]) is int and type(p.padding[0][0]) is int


def test_vocabulary():
    assert PADDING_MODES == ("zeros", "reflect", "symmetric", "replicate", "circular")
    for name in ACTIVATIONS:
        assert ConvProblem((3,), (1,), 1, 1, activation=name).activation[0] == name
