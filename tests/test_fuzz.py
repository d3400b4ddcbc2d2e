"""Random problems from arrays of any strides beside forbidden memory (`fuzz`), and what these are."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from odd_arrays import Arena, contiguous, odd_strides, repeated
from odd_problems import odd_problem
from planted_kernels import PLANTED

from fastconv.backends import cython_native

FUZZ = Path(__file__).parent / "fuzz.py"
linux = pytest.mark.skipif(sys.platform != "linux", reason="forbids memory as Linux does")


def fuzz(*arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(FUZZ.parents[1]), os.environ.get("PYTHONPATH", "")])
    return subprocess.run([sys.executable, str(FUZZ), *arguments], capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": path})


@linux
def test_two_thousand_problems() -> None:
    native = cython_native.backend.unavailable() is None
    done = fuzz("--count", "2000", "--backends", "cython,im2col" if native else "im2col")
    print(done.stdout[-500:])
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


@linux
@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_fault_is_found(fault: str) -> None:
    done = fuzz("--planted", fault, "--count", "150", "--most", "1", "--jobs", "1")
    assert done.returncode == 1 and "WRONG problem" in done.stdout, done.stdout[-1000:] + done.stderr[-1000:]
    number = done.stdout.partition("WRONG problem ")[2].partition(":")[0]  # finds it again, and alone
    assert fuzz("--planted", fault, "--first", number, "--count", "1", "--here").returncode != 0


@linux
def test_without_a_fault_nothing_is_found() -> None:
    done = fuzz("--planted", "none", "--count", "50", "--jobs", "1")
    assert done.returncode == 0 and "50 problems from 0 on, 150 calls, 0 failures" in done.stdout, done.stdout


def test_problems_are_of_every_kind_and_the_same_each_time() -> None:
    made = [odd_problem(random.Random(number)) for number in range(400)]
    assert made == [odd_problem(random.Random(number)) for number in range(400)]
    count: Counter[object] = Counter()
    for p in made:
        count.update([p.ndim, p.dtype, p.layout, p.padding_mode, p.accuracy, p.batch, p.activation and p.activation[0]])
        count.update(name for name, said in (
            ("depthwise", p.groups == p.in_channels > 1), ("grouped", 1 < p.groups < p.in_channels),
            ("strided", max(p.stride) > 1), ("dilated", max(p.dilation) > 1), ("deep", p.k > 512),
            ("large kernel", max(p.kernel_size) > 9),
            ("stride over kernel", any(s > k for s, k in zip(p.stride, p.kernel_size)))) if said)
    assert min(count.values()) >= 5 and len(count) == 2 + 2 + 5 + 3 + 3 + 10 + 7, count  # axes as batches


@linux
@pytest.mark.parametrize("side", ["start", "end"])
def test_arrays_hold_what_they_should_and_tell_who_writes_beside_them(side: str) -> None:
    dice, rng, arena = random.Random(1), np.random.default_rng(1), Arena(1 << 20)
    seen: Counter[str] = Counter()
    for _ in range(300):
        shape = tuple(dice.choice((1, 2, 3, 5)) for _ in range(4))
        strides = odd_strides(shape, dice, True, False)
        values = repeated(rng.standard_normal(shape), strides)
        placed = arena.place(shape, strides, values.dtype, side)
        placed.array[...] = values
        assert np.array_equal(placed.array, values) and not placed.spoiled()
        low, high = np.lib.array_utils.byte_bounds(placed.array)
        assert low == arena.start if side == "start" else high == arena.start + arena.size
        seen.update(backwards=min(strides) < 0, repeated=0 in strides, contiguous=strides == contiguous(values),
                    apart=min(map(abs, strides)) > 1)
        beside = np.flatnonzero(placed.around != 0xff)
        placed.array[...] = 1
        beside = np.setdiff1d(np.arange(placed.around.size), np.flatnonzero(placed.around != 0xff))
        if beside.size:
            placed.around[dice.choice(beside.tolist())] = 0
            assert placed.spoiled()
    assert min(seen.values()) > 10 and not placed.read_only().flags.writeable
