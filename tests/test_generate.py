"""Random problems: the same from the same seed, valid, of every kind, and of bounded work."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import pytest

from fastconv.bench.generate import BYTES, WORK, generate
from fastconv.problem import ConvProblem

MANY = generate(500, 3)


def test_the_same_seed_gives_the_same_problems_everywhere() -> None:
    """The texts themselves: another version of Python or NumPy must not change them."""
    texts = [p.text for p in generate(500, 7)]
    assert texts[:3] == [
        'mb1_ic160ih23iw23_oc160oh21ow21_kh3kw3sh1sw1ph0pw0_n"gen7_00_3x3_160@23"',
        'mb1_g64_ic64ih48iw160_oc64oh48ow160_kh3kw3sh1sw1ph1pw1_n"gen7_01_dw3_64@48x160"',
        'mb1_ic227ih15iw15_oc768oh8ow8_kh1kw1sh2sw2ph0pw0_n"gen7_02_1x1s2_227-768@15"']
    assert f"{zlib.crc32(chr(10).join(texts).encode()):08x}" == "2ba45073"


def test_more_of_a_seed_begin_with_the_same_and_seeds_differ() -> None:
    few, more, other = generate(20, 3), generate(60, 3), generate(60, 4)
    assert more[:20] == few and [p.name for p in more[:20]] == [p.name for p in few]
    assert len(set(more) & set(other)) < 10


def test_no_problem_and_no_name_comes_twice() -> None:
    assert len(set(MANY)) == len({p.name for p in MANY}) == len(MANY) == 500


def test_bounds_hold() -> None:
    for problem in MANY:
        assert WORK[0] <= problem.flops <= WORK[1] and problem.bytes <= BYTES, problem.name
    assert sum(p.flops for p in MANY[:60]) < 60e9, "60 of them take minutes"


def test_texts_name_the_same_problems() -> None:
    for problem in MANY:
        again = ConvProblem.from_text(problem.text)
        assert again == problem and again.name == problem.name


def test_problems_are_forward_convolutions_with_bias_as_networks_run_them() -> None:
    plain = {"padding_mode": "zeros", "dtype": "float32", "layout": "channels_first", "direction": "forward", "bias": True,
             "residual": False, "activation": None, "accuracy": "fast"}
    for problem in MANY:
        assert {key: getattr(problem, key) for key in plain} == plain


def dense(p: ConvProblem) -> bool:
    return p.ndim == 2 and p.groups == 1 and p.batch == 1 and max(p.dilation) == 1 and p.in_channels > 4


def plain(p: ConvProblem) -> bool:
    return dense(p) and max(p.stride) == 1


def depthwise(p: ConvProblem) -> bool:
    return p.ndim == 2 and p.groups == p.in_channels == p.out_channels > 3


# share of the problems: at least, at most
MIXTURE: dict[str, tuple[Callable[[ConvProblem], bool], float, float]] = {
    "1x1": (lambda p: plain(p) and p.kernel_size == (1, 1), 0.14, 0.30),
    "3x3": (lambda p: plain(p) and p.kernel_size == (3, 3), 0.14, 0.30),
    "unpadded 3x3": (lambda p: plain(p) and p.kernel_size == (3, 3) and p.padding == ((0, 0),) * 2, 0.01, 0.06),
    "5x5 and 7x7": (lambda p: plain(p) and p.kernel_size in ((5, 5), (7, 7)), 0.02, 0.10),
    "strided": (lambda p: dense(p) and p.stride == (2, 2), 0.05, 0.17),
    "stem": (lambda p: p.ndim == 2 and p.groups == 1 and p.in_channels in (1, 3, 4) and p.out_channels >= 16, 0.02, 0.10),
    "patches": (lambda p: p.ndim == 2 and p.stride == p.kernel_size and p.kernel_size[0] >= 4, 0.004, 0.04),
    "dilated": (lambda p: p.ndim == 2 and max(p.dilation) > 1, 0.02, 0.10),
    "factored": (lambda p: plain(p) and len(set(p.kernel_size)) == 2, 0.01, 0.08),
    "depthwise 3x3": (lambda p: depthwise(p) and p.kernel_size == (3, 3), 0.03, 0.12),
    "depthwise 5x5": (lambda p: depthwise(p) and p.kernel_size == (5, 5), 0.01, 0.08),
    "depthwise 7x7": (lambda p: depthwise(p) and p.kernel_size == (7, 7), 0.004, 0.05),
    "depthwise, strided": (lambda p: depthwise(p) and p.stride == (2, 2), 0.01, 0.06),
    "grouped": (lambda p: 1 < p.groups < p.in_channels, 0.01, 0.08),
    "batched": (lambda p: p.batch > 1, 0.02, 0.10),
    "one axis": (lambda p: p.ndim == 1, 0.01, 0.08),
    "three axes": (lambda p: p.ndim == 3, 0.01, 0.07),
    "images": (lambda p: p.ndim == 2 and p.groups == p.in_channels == p.out_channels in (1, 3), 0.01, 0.07),
    "odd maps": (lambda p: p.input_size[-1] % 2 == 1, 0.30, 0.70),
    "oblong maps": (lambda p: p.ndim == 2 and p.input_size[0] != p.input_size[1], 0.05, 0.25),
    "no multiple of 8 channels": (lambda p: p.in_channels % 8 > 0, 0.20, 0.55),
    "no multiple of 16 channels": (lambda p: p.out_channels % 16 > 0, 0.20, 0.60),
}


@pytest.mark.parametrize("kind", MIXTURE)
def test_every_kind_has_its_share(kind: str) -> None:
    is_one, least, most = MIXTURE[kind]
    assert least <= sum(map(is_one, MANY)) / len(MANY) <= most


@pytest.mark.parametrize(("n", "seed", "message"), [(0, 1, "number of problems .* got 0"), (1, -1, "seed .* got -1")])
def test_bad_arguments_are_named(n: int, seed: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        generate(n, seed)
