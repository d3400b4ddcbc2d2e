"""Every allocation of every native path fails once (`no_memory`), and objects of Python and NumPy."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fastconv.backends import cython_native

HERE = Path(__file__).parent
pytestmark = pytest.mark.skipif(sys.platform != "linux" or bool(cython_native.backend.unavailable()),
                                reason="preloads a library under the native kernels")


def no_memory(kind: str, **environment: str) -> str:
    path = os.pathsep.join([str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run([sys.executable, str(HERE / "no_memory.py"), kind], capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1", **environment})
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_every_native_allocation(tmp_path: Path) -> None:
    """Packed weights, scratch memory, threads, the pool: a MemoryError or the right numbers, which the next call gives."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("needs a compiler")
    shim = tmp_path / "shim.so"
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", str(shim), str(HERE / "no_memory.cpp"), "-ldl"], check=True)
    told = no_memory("native", LD_PRELOAD=str(shim))
    assert int(told.split()[-5]) > 20 * len(cython_native.runnable_isas()), told  # some did fail


def test_objects_of_python() -> None:
    if importlib.util.find_spec("_testcapi") is None:
        pytest.skip("needs CPython's _testcapi")
    no_memory("python")
