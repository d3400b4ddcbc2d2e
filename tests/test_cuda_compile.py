"""The CUDA kernels compiled and assembled without a GPU, in a process of its own: no spills, the registers that two blocks per
multiprocessor leave, and inner loops of the instructions that they are meant to consist of."""

from __future__ import annotations

import importlib.util
import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest

GATE = Path(__file__).resolve().parents[1] / "benchmarks" / "cuda_gate.py"
pytestmark = pytest.mark.skipif(sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"),
                                reason="NVIDIA's compiler wheels are for Linux")


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the package that it would be in
        return False


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    for module in ("numba_cuda", "nvidia.cu13"):  # without them nothing would have been tested: say so
        if not _installed(module):
            pytest.fail("the compile gate needs numba-cuda, nvidia-nvvm and nvidia-nvjitlink: pip install 'fastconv[test]'")
    done = subprocess.run([sys.executable, GATE, "--json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def test_every_kind_was_compiled(rows: list[dict]) -> None:
    names = [row["kernel"] for row in rows if row["architecture"] == "9.0"]
    assert len(names) == len(set(names)) >= 20
    for part in ("float32 128x128x8", "float64 64x64x8", "pixels", "channels", "split", "gelu", "direct", "reduce", "gather",
                 "pack"):
        assert any(part in name for name in names), part


def test_nothing_spills(rows: list[dict]) -> None:
    spilled = {(row["kernel"], row["architecture"]): row for row in rows
               if row["spill_stores"] or row["spill_loads"] or row["stack"] or row["local"]}
    assert not spilled


def test_registers_leave_room_for_two_blocks(rows: list[dict]) -> None:
    """65,536 registers per multiprocessor."""
    assert all(0 < row["registers"] * row["threads"] * 2 <= 65536 for row in rows)


def test_shared_memory_leaves_room_for_two_blocks(rows: list[dict]) -> None:
    """64 KiB on the smallest architecture that is supported."""
    assert all(row["shared"] <= 32 * 1024 for row in rows)


def test_inner_loops(rows: list[dict]) -> None:
    """Products contracted to fused multiply-adds, and vector loads, at least as many as the tiles ask for."""
    for row in rows:
        for name, least in row["least"].items():
            assert row[name] >= least, (row["kernel"], row["architecture"], name, row[name])


def _python(code: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], cwd=GATE.parents[1], capture_output=True, text=True)


def test_importing_the_backend_imports_nothing_heavy() -> None:
    done = _python("import sys; from fastconv.backends import numba_cuda; numba_cuda.backend.unavailable(); "
                   "assert not {'numba', 'numba_cuda', 'llvmlite'} & set(sys.modules)")
    assert done.returncode == 0, done.stderr


def test_tiles_fit_their_threads() -> None:
    """Every thread has whole vectors and rows to load; strict sums are split alike for every batch."""
    done = _python("""
import dataclasses
from fastconv.backends.numba_cuda.tiles import TILES, choose
from fastconv.problem import ConvProblem
for dtype, tiles in TILES.items():
    for tile in tiles:
        width = 4 if dtype == "float32" else 2
        assert tile.threads % tile.bn == 0 and tile.bk % 2 == 0 and tile.tm % width == tile.tn % width == 0
        assert tile.bk * tile.bm % (width * tile.threads) == 0 and tile.bk * tile.bn % (width * tile.threads) == 0, tile
        assert tile.threads % (tile.bn // width) == 0 and tile.bk % (tile.threads // (tile.bn // width)) == 0
        assert tile.bk // width % (tile.threads // tile.bn) == 0, tile
        assert tile.bm // tile.tm * tile.bn <= 2 * tile.bk * (tile.bm + tile.bn) >= tile.bn // tile.tn * tile.bm
p = ConvProblem.from_text("--accuracy=strict mb1_ic512ih7oc512oh7kh3ph1")
assert len({choose(dataclasses.replace(p, batch=n)) for n in (1, 2, 7, 64)}) == 1 < choose(p).parts
""")
    assert done.returncode == 0, done.stderr
