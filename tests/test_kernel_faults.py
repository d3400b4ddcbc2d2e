"""Faults planted in the sources of the kernels, each a line or less: the random problems must find every one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import NamedTuple

import pytest

import fastconv
from fastconv.backends import cython_native

HERE = Path(__file__).parent
KERNELS = HERE.parent / "kernels"
COMPILER = shutil.which("g++") or shutil.which("clang++") or ""
pytestmark = [pytest.mark.exhaustive, pytest.mark.skipif(
    not COMPILER or sys.platform != "linux" or not KERNELS.exists() or bool(cython_native.backend.unavailable()),
    reason="needs a compiler, the sources, and the native kernels")]
BESIDE = ("pool", "pool_indices", "pool_gradient", "pool_apart", "pointwise")  # every module has them
FLAGS = ["-std=c++17", "-O1", "-DNDEBUG", "-fPIC", "-fvisibility=hidden", "-ffp-contract=fast", "-DFASTCONV_ISA=baseline"]


class Fault(NamedTuple):
    name: str
    file: str
    right: str
    wrong: str
    algorithms: tuple[str, ...] = ("gemm", "direct")  # that are built


FAULTS = [
    Fault("writes past the last pixels", "finish.hpp", "store_first(y + c * step + i, epilogue(value), m);",
          "store(y + c * step + i, epilogue(value));"),
    Fault("reads past the last residuals", "finish.hpp", "value += load_first(r + c * step_r + i, m);",
          "value += load(r + c * step_r + i);"),
    Fault("overlapping squares begin too late", "finish.hpp", "const int64_t at = std::min<int64_t>(i, pixels - side<T>);",
          "const int64_t at = i;"),
    Fault("overlapping squares of rows begin too late", "squares.hpp", "std::min<int64_t>(j, columns - side<T>);",
          "j;", ("winograd",)),
    Fault("a tail of one channel is skipped", "finish.hpp", "if (v < channels) {", "if (v + 1 < channels) {"),
    Fault("a last piece is nobody's", "shares.hpp", "uint64_t((count + grain_ - 1) / grain_)", "uint64_t(count / grain_)"),
    Fault("a last piece is too long", "shares.hpp", "std::min((piece + 1) * grain_, count_)",
          "(piece + 1) * grain_ + (count_ > 3)"),
    Fault("a halo is one too short", "slab.hpp", "ceil_div(n - first, step)", "ceil_div(n - first - 1, step)"),
    Fault("what lies backwards is padding", "slab.hpp", "const bool zeros = from_d < 0 || from_h < 0;",
          "const bool zeros = from_d < 0 || from_h < 0 || from_h * row_h < 0;"),
    Fault("padding keeps what the call before left", "slab.hpp", "clear(out + v * rows.apart, rows.count);", "clear(out, 0);"),
    Fault("loads without a mask", "slab.hpp", "value[v] = mask ? load_masked(from + v * L, mask[v]) : load(from + v * L);",
          "value[v] = load(from + v * L);"),
    Fault("the last zero of a row is not written", "slab.hpp", "for (int64_t i = s.end; i < s.count; ++i) out[i] = T(0);",
          "for (int64_t i = s.end; i + 1 < s.count; ++i) out[i] = T(0);"),
]
FAULTS += [Fault("inputs of several tiles are gathered in one place", "direct.cpp", "t % tiles_in_l1() * tile_inputs()", "0",
                 ("direct",)),
           Fault("a lane has inputs of another group", "grouped.cpp", "output / packing.outputs * packing.inputs + c",
                 "output / packing.inputs * packing.inputs + c", ("grouped",)),
           Fault("a vector reaches past the last channel", "grouped.cpp", "whole = inputs() == L || !raw", "whole = true",
                 ("grouped",))]
OUTER = ("outer",)
FAULTS += [Fault(name, "outer.cpp", right, wrong, OUTER) for name, right, wrong in (
    ("a slice is not added", "apart < slices; apart *= 2", "2 * apart < slices; apart *= 2"),
    ("a slice ends a box early", "boxes * (t.slice + 1) / slices;", "boxes * (t.slice + 1) / slices - (t.slice > 0);"),
    ("a lane has a channel of another group", "channel / p.out_channels * inputs + c", "channel % p.groups * inputs + c"),
    ("the last chunk lies as if it were whole", "(k - first) % volume * c.count", "(k - first) % volume * inputs"),
    ("every other element but the last", "lanes_between<T>(0, 2 * n - 1 - L)", "lanes_between<T>(0, 2 * n - 2 - L)"),
)]
FAULTS += [Fault("a lane without a channel is written", "weight_rows.hpp", "std::min<int64_t>(L, n - v)",
                 "std::min<int64_t>(L, n + 1 - v)", OUTER)]
WINOGRAD_WEIGHT = ("winograd_weight", "outer")
FAULTS += [Fault(name, "winograd_weight.cpp", right, wrong, WINOGRAD_WEIGHT) for name, right, wrong in (
    ("a tile goes on below the outputs", "of.h + i < p.output[1] ? valid : 0;", "valid;"),
    ("a last vector is as wide as a block", "std::min(wide, round_up(k_count, L) - block * wide)", "wide"),
    ("what is not finite stays", "s.spoiled->store(1", "s.spoiled->store(0"),
    ("tiles that are summed later lack the last one", "(i + 1) / pieces - from;", "(i + 1) / pieces - from - (i > 0);"),
    ("another lane than there are channels", "t.k + t.k_count - oc - v)", "t.k + t.k_count - oc)"),
    ("another input channel than the first of a task", "const int64_t first = t.c + c + i;", "const int64_t first = c + i;"),
)]
PAIRS = ("pairs",)
FAULTS += [Fault("what follows a vector that is not whole begins too late", "weight_rows.hpp", "k += some;", "k += L;", PAIRS)]
FAULTS += [Fault(name, "pairs.cpp", right, wrong, PAIRS) for name, right, wrong in (
    ("what is beyond the padding is left out of any sum", "s.spoiled->store(1", "s.spoiled->store(0"),
    ("an image begins where one of all inputs would", "image * x.pixels() + i)", "image * x.positions() + i)"),
    ("sums begin anew for further pairs", "tile_of<PairTile, T>(n, width, piece > 0)", "tile_of<PairTile, T>(n, width, false)"),
    ("a last vector of input channels is whole", "if (n == width(block)) return", "if (n <= width(block)) return"),
    ("the pixel of zeros keeps what was there", "if (item < p.groups * x.vectors())", "if (item < 0)"),
)]
INNER = ("inner",)
FAULTS += [Fault(name, "inner.cpp", right, wrong, INNER) for name, right, wrong in (
    ("a phase of rows begins where another does", "row = h % phases * phase_rows + h / phases;", "row = h / phases;"),
    ("a row is one too short", "load_first(from + i, count - i));", "load_first(from + i, count - i - 1));"),
    ("rows of padding keep what the box before left", "clear_row(b.width, to);", "clear_row(0, to);"),
    ("the last pixels are left out", "if (const int64_t rest = of.count - i)", "if (const int64_t rest = 0 * i)"),
    ("an image's boxes are those of all depths", "b.image = i / p.output[0];", "b.image = i;"),
    ("dy is read where it lies, whatever its rows", "y.space[1] == width)", "true)"),
)]
COL2IM = ("col2im",)
FAULTS += [Fault(name, "col2im.cpp", right, wrong, COL2IM) for name, right, wrong in (
    ("planes keep what a task before left", "clear(s.planes, count * channels * plane);", "clear(s.planes, channels * plane);"),
    ("a tile reads the weights behind its own", "copy(panel, w, n);", "copy(panel, w, width);"),
    ("a block begins where one of whole channels would", "group * k * p.in_channels + first", "group * k * channels + first"),
    ("columns of a panel are the first ones", "s.column + j, s.planes", "s.column, s.planes"),
    ("an image is written where the task's first one is", "write(image + i, group", "write(image, group"),
    ("whole vectors are written an element late", "i += L) store(to + i, finished", "i += L) store(to + i + 1, finished"),
)]
DEPTHWISE_INPUT = ("depthwise_input",)
FAULTS += [Fault(name, "depthwise_input.cpp", right, wrong, DEPTHWISE_INPUT) for name, right, wrong in (
    ("a last vector of a row is a whole one", "store_first(to + L, limited(high), left - L);",
     "store(to + L, limited(high));"),
    ("rows of zeros keep what the plane before left", "if (h < 0 || h >= p.output[1]) clear(to, p.output[2]);",
     "if (h < 0 || h >= p.output[1]) clear(to, 0);"),
)]
FAULTS += [Fault("weights of the block before are kept", "depthwise_planes.hpp", "block != arranged) arrange",
                 "arranged < 0) arrange", DEPTHWISE_INPUT)]
DEPTHWISE = ("depthwise",)
FAULTS += [Fault(name, "depthwise_tile.hpp", right, wrong, DEPTHWISE) for name, right, wrong in (
    ("the next channel reads the inputs of the first", "offset(Many ? c * reading.input_step : 0)", "offset(0)"),
    ("the next channel has the weights of the first", "(Many ? c * reading.weight_step : 0)", "0"),
    ("the next channel has the bias of the first", "in.bias[Many ? c : 0]", "in.bias[0]"))]
FAULTS += [Fault(name, "depthwise_planes.hpp", right, wrong, DEPTHWISE) for name, right, wrong in (
    ("padding keeps what a call before left", "clear(s.slab, volume_of(padded) * wide);", "clear(s.slab, wide);"),
    ("a last vector of channels is a whole one", "return std::min(L, p.groups - first(block) - v * L);", "return L;"),
    ("few outputs are stored as a whole vector", "m = std::min<int64_t>(L, count - at);", "m = L;"),
    ("outputs overlap that add a residual", "const int64_t at = more || count < L ?", "const int64_t at = count < L ?"),
)]


def build(sources: Path, package: Path, algorithms: tuple[str, ...]) -> None:
    """A package whose only kernels are these, of the baseline ISA."""
    objects = []
    listed = " ".join(f"A({algorithm})" for algorithm in algorithms)
    for name in (*algorithms, *BESIDE, "peak", "module"):
        objects.append(str(sources / f"{name}.o"))
        subprocess.run([COMPILER, *FLAGS, f"-DFASTCONV_ALGORITHMS={listed}", f"-isystem{sysconfig.get_path('include')}",
                        f"-I{sources}", "-c", str(sources / f"{name}.cpp"), "-o", objects[-1]], check=True)
    home = Path(fastconv.__file__).parent
    package.mkdir()
    for each in home.iterdir():
        if each.suffix != ".so" or each.name.startswith("_runtime"):
            (package / each.name).symlink_to(each)
    target = package / f"_baseline{sysconfig.get_config_var('EXT_SUFFIX')}"
    subprocess.run([COMPILER, "-shared", *objects, "-o", str(target)], check=True)


def fuzz(package: Path, count: int, algorithm: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(package.parent), "FASTCONV_ISA": "baseline"}
    return subprocess.run([sys.executable, str(HERE / "fuzz.py"), "--count", str(count), "--most", "1", "--backends", "cython",
                           "--algorithm", algorithm], env=environment, capture_output=True, text=True)


CLEAN = [Fault("none", "", "", ""), Fault("none of outer", "", "", "", OUTER),
         Fault("none of winograd_weight", "", "", "", WINOGRAD_WEIGHT), Fault("none of pairs", "", "", "", PAIRS),
         Fault("none of inner", "", "", "", INNER), Fault("none of col2im", "", "", "", COL2IM),
         Fault("none of depthwise_input", "", "", "", DEPTHWISE_INPUT), Fault("none of depthwise", "", "", "", DEPTHWISE)]


@pytest.mark.parametrize("fault", [*CLEAN, *FAULTS], ids=lambda fault: fault.name)
def test_a_fault_in_the_kernels_is_found(fault: Fault, tmp_path: Path) -> None:
    sources = Path(shutil.copytree(KERNELS, tmp_path / "kernels"))
    planted = fault not in CLEAN
    if planted:
        text = (sources / fault.file).read_text()
        assert fault.right in text, "the sources have changed: plant it elsewhere"
        (sources / fault.file).write_text(text.replace(fault.right, fault.wrong, 1))
    build(sources, tmp_path / "fastconv", fault.algorithms)
    count, alone = {OUTER: (3000, ""), COL2IM: (3000, ""), PAIRS: (40_000, "pairs"),
                    WINOGRAD_WEIGHT: (70_000, "winograd_weight"), INNER: (6000, "inner"),
                    DEPTHWISE_INPUT: (6000, "depthwise_input"), DEPTHWISE: (6000, "depthwise")}.get(fault.algorithms, (600, ""))
    done = fuzz(tmp_path / "fastconv", count, alone)  # every eighth problem is outer's, every hundredth winograd_weight's
    assert ("WRONG problem" in done.stdout) == planted, done.stdout[-2000:] + done.stderr[-1000:]
    assert done.returncode == int(planted) and " calls" in done.stdout
