"""Kernels need little of a thread's stack: whoever makes threads with small ones finds them unspoilt."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fastconv.backends import cython_native

ROOT = Path(__file__).parents[1]
MOST = 16384  # bytes of a function's frame

if cython_native.backend.unavailable():
    pytest.skip("the native kernels are not available", allow_module_level=True)


def test_no_function_has_a_large_frame():
    """As the compiler wrote them down (-fstack-usage) when it made what is tested here."""
    files = [path for path in sorted(ROOT.glob("build/objects-*/*/*.su"))
             if not path.parts[-3].endswith(("-address", "-thread"))]  # sanitized builds have others
    if not files:
        pytest.skip("was not built in this folder")
    frames = [line.rsplit("\t", 2) for file in files for line in file.read_text().splitlines()]
    assert any("WinogradPack" in name or "winograd" in name for name, _, _ in frames)
    large = [(int(size), how, name) for name, size, how in frames if int(size) > MOST or how == "dynamic"]
    assert large == []


IN_A_SMALL_THREAD = """
import threading
import numpy as np
from fastconv.backends import cython_native, Candidate
from fastconv.verify.check import run
from fastconv.problem import ConvProblem
from fastconv.verify.data import random_arrays

TEXTS = ("mb1_ic40ih17_oc40oh17_kh3ph1", "mb1_ic20ih15_oc70oh15_kh5ph2", "mb1_ic3ih40_oc33oh20_kh7sh2ph3",
         "mb1_g40ic40ih17_oc40oh17_kh3ph1", "--dt=f64 mb1_ic18ih15_oc20oh15_kh3ph1", "mb1_ic20ih15_oc20oh15_kh1ph0")
calls = []
for text in TEXTS:
    problem = ConvProblem.from_text(text)
    arrays = random_arrays(problem, np.random.default_rng(0))
    for candidate in cython_native.backend.candidates(problem):
        if cython_native.backend.refuses(problem, candidate) is None:
            calls.append((cython_native.backend.bind(problem, candidate), problem, arrays))
expected = [run(*call) for call in calls]
found = []
threading.stack_size(SIZE)
thread = threading.Thread(target=lambda: found.extend(run(*call) for call in calls))
thread.start()
thread.join()
assert len(found) == len(calls) > 20 and all(map(np.array_equal, found, expected))
"""


@pytest.mark.parametrize("kilobytes", [64, 48])
def test_every_algorithm_packs_and_runs_in_a_thread_with_little_stack(kilobytes):
    done = subprocess.run([sys.executable, "-c", IN_A_SMALL_THREAD.replace("SIZE", str(kilobytes << 10))], capture_output=True,
                          text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
