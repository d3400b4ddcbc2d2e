"""An algorithm is one C++ file, one Python file and one word of setup.py: what lists algorithms takes it up with these."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from pathlib import Path

import pytest
from test_build import ROOT, Tree, copy_sources

pytestmark = [pytest.mark.slow, pytest.mark.skipif(
    not (ROOT / "setup.py").exists() or not (shutil.which("c++") or shutil.which("g++")),
    reason="needs the source tree and a compiler")]

KERNEL = """
// toy: every output by the definition, one after the other.
//
//   out[oc] = act(bias[oc] + sum over c, t of w[oc][c, t] * x[pixel * stride + t * dilation - pad][c] + residual)
//
// Items are the output channels of an image. Bottleneck: everything, above all the index of every tap.
#include "crew.hpp"
#include "epilogue.hpp"
#include "window.hpp"

namespace fastconv {
namespace FASTCONV_ISA {
namespace {

template <class T>
struct ToyAlgorithm : Defaults {
    static size_t packed_bytes(const Problem& p) { return plain_bytes(p); }
    static size_t workspace_bytes(const Problem& p, int threads) { return Crew(p, Call{}, threads, 0).bytes(); }

    static void run(const Problem& p, const Call& call) {
        const Crew crew(p, call, call.threads, 0);
        const int64_t channels = p.groups * p.out_channels;
        crew.share(p.batch * channels, [&](int64_t, const auto& each) {
            each([&](int64_t begin, int64_t end) {
                for (int64_t i = begin; i < end; ++i) plane(p, call, i / channels, i % channels);
            });
        });
    }

    static void plane(const Problem& p, const Call& call, int64_t image, int64_t channel) {
        const Epilogue<T> epilogue(p);
        const T* weight = static_cast<const T*>(call.packed) + channel * k_of(p);
        const T bias = call.bias ? static_cast<const T*>(call.bias)[channel] : T(0);
        T* const y = at<T>(call.output, image, channel);
        const T* const r = at<const T>(call.residual, image, channel);
        for (int64_t d = 0; d < p.output[0]; ++d)
            for (int64_t h = 0; h < p.output[1]; ++h)
                for (int64_t w = 0; w < p.output[2]; ++w) {
                    T value = one_output(p, call.input, image, channel / p.out_channels, weight, bias, d, h, w);
                    if (r) value += r[place(call.residual, d, h, w)];
                    y[place(call.output, d, h, w)] = epilogue(value);
                }
    }
    static int64_t place(const View& v, int64_t d, int64_t h, int64_t w) {
        return d * v.space[0] + h * v.space[1] + w * v.space[2];
    }
};

}  // namespace

const Algorithm& toy_algorithm() {
    static const Algorithm algorithm = algorithm_of<ToyAlgorithm<float>, ToyAlgorithm<double>>("toy");
    return algorithm;
}

}  // namespace FASTCONV_ISA
}  // namespace fastconv
"""

DESCRIPTION = '''
"""toy: every output by the definition, one after the other (`kernels/toy.cpp`)."""

from __future__ import annotations

import math

from ..problem import ConvProblem
from ..spent import Parts
from ._bounds import summed as bound

__all__ = ["SUMS_PRODUCTS", "bound", "cost", "packing_cost"]

SUMS_PRODUCTS = True


def cost(p: ConvProblem, lanes: int) -> Parts:
    """The index of a tap takes as long as a dozen vectors."""
    return {"products": 12.0 * math.prod(p.output_size) * p.out_channels * p.k}


def packing_cost(p: ConvProblem, lanes: int) -> float:
    return 0.0
'''


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """The sources, with the algorithm; what is compiled already need not be compiled again."""
    pytest.importorskip("Cython")
    folder = tmp_path_factory.mktemp("toy")
    made = Tree(copy_sources(folder / "sources", with_objects=True), folder)
    made.before = contents(made.root)
    (made.root / "kernels" / "toy.cpp").write_text(KERNEL.lstrip())
    (made.root / "fastconv" / "algorithms" / "toy.py").write_text(DESCRIPTION.lstrip())
    setup = (made.root / "setup.py").read_text()
    named = re.sub(r'^(ALGORITHMS = \[[^]]*)\]$', r'\1, "toy"]', setup, flags=re.MULTILINE)
    assert named.count('"toy"') == 1
    (made.root / "setup.py").write_text(named)
    done = made.run("setup.py", "-q", "build_ext", "--inplace")
    assert done.returncode == 0, done.stderr
    return made


def contents(root: Path) -> dict[str, str]:
    """A digest of every file that is no output of a build or a run."""
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in root.rglob("*")
            if path.is_file() and path.suffix not in (".so", ".pyc") and path.relative_to(root).parts[0] != "build"}


def fastconv(tree: Tree, *arguments: str) -> str:
    """What the command of the tree prints; one ISA is enough."""
    done = tree.run("-m", "fastconv", *arguments, PYTHONPATH=str(tree.root), FASTCONV_ISA="baseline", COLUMNS="200")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_explain_lists_it(tree):
    told = fastconv(tree, "explain", "mb1_ic3ih8_oc4oh8_kh3ph1")
    assert "cython toy/baseline" in told
    assert "cython toy/baseline" not in told.splitlines()[0]  # the slowest there is


def test_it_is_right(tree):
    """In all directions, of which it computes one itself; nothing is refused, and every problem passes."""
    table = fastconv(tree, "check", "--quick", "--backend", "cython")
    (row,) = (line.split() for line in table.splitlines() if line.startswith("cython") and line.split()[1] == "toy")
    _, _, isa, problems, passed, worst, refused = row
    assert isa == "baseline" and int(problems) == int(passed) > 100 and int(refused) == 0 and 0 < float(worst) <= 1


def test_its_cost_counts_and_a_user_may_ask_for_it(tree):
    program = """
import numpy, fastconv
x, w, asked = numpy.ones((2, 3, 9, 9)), numpy.ones((4, 3, 3, 3)), {"algorithm": "toy", "backend": "cython"}
assert (fastconv.conv2d(x, w, **asked) == 27).all()
assert fastconv.conv2d_input(x.shape, w, numpy.ones((2, 4, 7, 7)), **asked)[0, 0, 4, 4] == 36
assert fastconv.explain(x, w).algorithm != "toy"
print(fastconv.prepare(w, **asked)(x).sum())
"""
    done = tree.run("-c", program, PYTHONPATH=str(tree.root))
    assert done.stdout.strip() == str(float(27 * 2 * 4 * 7 * 7)), done.stderr


def test_nothing_else_has_changed(tree):
    """Last: neither by building nor by running it."""
    after = contents(tree.root)
    changed = {name for name in {*tree.before, *after} if tree.before.get(name) != after.get(name)}
    assert changed == {os.path.join("kernels", "toy.cpp"), os.path.join("fastconv", "algorithms", "toy.py"), "setup.py"}
