"""Numbers and rules that Python's models repeat are the kernels': as these behave, or as a compiler reads their sources."""

from __future__ import annotations

import dataclasses
import itertools
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from problems import problem

from fastconv.algorithms import _costs, col2im, depthwise, direct, fft, inner, outer, pairs, winograd, winograd_weight
from fastconv.backends import Candidate, cython_native
from fastconv.native import isa_module, runnable_isas, runtime
from fastconv.native_problem import fields
from fastconv.problem import ConvProblem
from fastconv.verify import check
from fastconv.verify.data import Arrays

if cython_native.backend.unavailable():
    pytest.skip("the native kernels are not available", allow_module_level=True)

KERNELS = Path(__file__).parents[1] / "kernels"


def takes(p: ConvProblem, algorithm: str, tile: tuple[int, ...]) -> bool:
    """Whether the kernel itself does."""
    return runtime().refuses(isa_module(runnable_isas()[0]), algorithm, **fields(p, tile)) is None


# ---- as they behave


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_as_many_bytes_of_widened_rows(dtype: str) -> None:
    """With that many they are part of the workspace, with one column more there are none."""
    outputs = depthwise.MOST_WIDENED // (2 * 64 * np.dtype(dtype).itemsize)
    for width, widened in ((64, True), (65, False)):
        p = problem((outputs // 2, outputs), (4, width), (2, 1), groups=outputs // 2, padding=0, layout="channels_last",
                    dtype=dtype)
        kernel = cython_native.NativeKernel(p, Candidate("depthwise", runnable_isas()[0]))
        assert (kernel.native.workspace_bytes(1) >= depthwise.MOST_WIDENED) == widened


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_tiles_of_fft(axes: int) -> None:
    """Python's are among the kernel's, up to the same largest one."""
    if axes == 1:
        sizes, others = fft.FOLDED, ()
    else:
        sizes, others = (fft.SIZES, (16,)) if axes == 2 else (fft.DEPTHS, (16, 16))
    p = problem((1, 1), (4,) * axes, (2,) * axes, padding=1)
    largest = sizes[-1]
    assert all(takes(p, "fft", (n, *others)) for n in sizes)
    assert not any(takes(p, "fft", (n, *others)) for n in (largest + 2, 2 * largest, largest // 64 * 75, largest // 64 * 81))
    if axes == 2:
        assert all(takes(p, "fft", (16, n)) for n in sizes)
        assert not any(takes(p, "fft", (16, n)) for n in (12, 2 * largest))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_fft_transforms(dtype: str) -> None:
    """What is larger is added to the outputs that see it, and to no other; a transform spreads its roundings."""
    p = problem((1, 1), (20, 20), (5, 5), dtype=dtype, bias=False)
    w = np.random.default_rng(0).uniform(0.1, 0.9, p.weight_shape).astype(dtype)
    most = np.array(fft.LARGEST[dtype], dtype)
    for value, transformed in ((most, True), (np.nextafter(most, most * most.dtype.type(2)), False)):
        x = np.zeros(p.input_shape, dtype)
        x[..., 9, 9] = value
        out = check.run(cython_native.NativeKernel(p, Candidate("fft", runnable_isas()[0])), p, Arrays(x, w, None, None))
        assert np.count_nonzero(out) > 25 if transformed else np.count_nonzero(out) == 25


def test_tiles_of_winograd() -> None:
    for taps, outputs in itertools.product(range(2, 8), range(1, 10)):
        p = problem((1, 1), (12, 12), (taps, 1), padding=0)
        mine = taps <= winograd.MOST_TAPS and outputs > 1 and winograd.size(outputs, taps) in winograd.POINTS
        if taps <= winograd.MOST_TAPS:  # more are cut into components
            assert takes(p, "winograd", (outputs, 1)) == mine, (outputs, taps)


# ---- as a compiler reads them

PROGRAM = """
#include "outer.cpp"
#include "inner.cpp"
#include "pairs.cpp"
#include "col2im.cpp"
#include "winograd_weight.cpp"
#include "depthwise_last.hpp"
#include "depthwise_planes.hpp"
#include "depthwise_tile.hpp"
#include "direct.cpp"
#include "tiling.hpp"
#include <cstdio>
using namespace fastconv;
using namespace fastconv::baseline;

template <int N>
void print_points() {
    for (int i = 0; i < Toom<N>::finite; ++i) std::printf("%.17g ", Toom<N>::point(i));
    std::printf("\\n");
}

int main() {
    std::printf("%d %d %d %d ", int(most_planes), most_taps, int(box_pixels), int(most_inputs_of_one_tap));
    std::printf("%d %d ", int(box_pixels_of_lanes), int(slab_bytes));
    std::printf("%d ", int(SmallPlanes<float>::most_positions));
    std::printf("%d %d %d %d\\n", int(most_pixels), int(task_channels), int(enough_blocks), int(planes_bytes));
    for (int64_t each : {most_channels, at_once_bytes, chunk_bytes, least_tiles, summed_tiles, pairs_at_once, inner_box_bytes,
                         inner_box_width, together_bytes, WidenedRows<float>::most_bytes})
        std::printf("%d ", int(each));
    std::printf("\\n");
    print_points<4>(), print_points<5>(), print_points<6>(), print_points<7>(), print_points<8>();
    for (int64_t kernel = 1; kernel <= 24; ++kernel)
        for (int64_t stride = 1; stride <= 6; ++stride) {
            const Components of(kernel, stride);
            std::printf("%d %d %d ", int(of.taps), int(of.count), int(of.full));
        }
    std::printf("\\n");
    for (int odd = 0; odd < 64; ++odd) {  // a bit for each kernel, stride and padding of h and w that is not plain
        Problem p{};
        for (int a = 0; a < max_axes; ++a) p.input[a] = 5 + a, p.kernel[a] = p.stride[a] = p.dilation[a] = 1, p.output[a] = 4;
        p.kernel[0] = 2;
        for (int a : {1, 2}) {
            const int bits = odd >> (a == 1 ? 0 : 3);
            p.kernel[a] += bits & 1, p.stride[a] += bits >> 1 & 1, p.pad_lo[a] = bits >> 2 & 1;
        }
        merge_rows(p, Call{});
        std::printf("%d", p.input[1] == 1);
    }
    std::printf("\\n");
}
"""


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What the program printed."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if not compiler or not KERNELS.exists():
        pytest.skip("needs a compiler and the sources")
    folder = tmp_path_factory.mktemp("constants")
    (folder / "main.cpp").write_text(PROGRAM)
    subprocess.run([compiler, "-std=c++17", "-O0", "-DFASTCONV_ISA=baseline", f"-I{KERNELS}", str(folder / "main.cpp"), "-o",
                    str(folder / "main")], check=True)
    return subprocess.check_output([str(folder / "main")], text=True).splitlines()


def test_single_numbers(lines: list[str]) -> None:
    mine = [direct.MOST_PLANES, winograd.MOST_TAPS, outer.BOX_PIXELS, outer.MOST_INPUTS, outer.BOX_PIXELS_OF_LANES,
            outer.SLAB_BYTES, _costs.MOST_POSITIONS,
            col2im.PIXELS, col2im.CHANNELS, col2im.BLOCKS, col2im.PLANES_BYTES]
    assert [int(word) for word in lines[0].split()] == mine
    of_weight = winograd_weight
    mine = [of_weight.MOST_CHANNELS, of_weight.AT_ONCE, of_weight.CHUNK, of_weight.LEAST_TILES, of_weight.SUMMED,
            pairs.AT_ONCE, inner.BOX_BYTES, inner.BOX_WIDTH, depthwise.TOGETHER_BYTES, depthwise.MOST_WIDENED]
    assert [int(word) for word in lines[1].split()] == mine


def test_points_of_winograd(lines: list[str]) -> None:
    for line, points in zip(lines[2:7], winograd.POINTS.values(), strict=True):
        assert [float(word) for word in line.split()] == pytest.approx(list(points), abs=0, rel=1e-15)


def test_components_of_kernels(lines: list[str]) -> None:
    mine = [winograd.components(kernel, stride) for kernel in range(1, 25) for stride in range(1, 7)]
    assert [int(word) for word in lines[7].split()] == list(itertools.chain(*mine))


def test_rows_that_merge(lines: list[str]) -> None:
    plain = problem((2, 2), (5, 6, 7), (2, 1, 1), padding=0)
    merged = []
    for w, h in itertools.product(itertools.product((0, 1), repeat=3), repeat=2):
        (w_pad, w_stride, w_kernel), (h_pad, h_stride, h_kernel) = w, h
        p = dataclasses.replace(plain, kernel_size=(2, 1 + h_kernel, 1 + w_kernel), stride=(1, 1 + h_stride, 1 + w_stride),
                                padding=((0, 0), (h_pad, 0), (w_pad, 0)))
        merged.append(direct._merged(p).ndim == 2)
    assert lines[8] == "".join(map(str, map(int, merged))) and sum(merged) == 1
