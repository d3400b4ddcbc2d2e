"""How the parts of a round of a Numba kernel share its items: whoever computes them, each is computed once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from native_cases import kernel_of
from problems import problem

import fastconv
from fastconv import stated
from fastconv.backends import numba_jit
from fastconv.kept import Kept
from fastconv.problem import ConvProblem
from fastconv.verify import check
from fastconv.verify.data import random_arrays

pytest.importorskip("numba")

PROBLEMS = {
    "gemm": problem((16, 40), (40, 42), 3, batch=3), "direct": problem((3, 20), (80, 120), 3, batch=3),
    "broadcast": problem((24, 40), (40, 42), 3, batch=3),
    "depthwise": problem((12, 12), (40, 70), 3, groups=12, batch=3), "winograd": problem((16, 16), (40, 42), 3, batch=3),
    "depthwise side by side": problem((32, 32), (40, 70), 3, groups=32, batch=3, layout="channels_last"),
    "fft": problem((1, 1), (200, 210), (15, 15), batch=3)}


@pytest.mark.parametrize("which", [[0, 1, 2], [2, 1, 0], [2], [1], [0, 0, 2]], ids=str)
@pytest.mark.parametrize("flops", [None, 100_000], ids=["one round", "rounds"])
@pytest.mark.parametrize(("algorithm", "p"), PROBLEMS.items(), ids=list(PROBLEMS))
def test_parts_compute_what_others_have_not_begun(algorithm: str, p: ConvProblem, flops: int | None, which: list[int],
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    from fastconv.backends.numba_jit import blocking

    algorithm = algorithm.split()[0]
    arrays = random_arrays(p, np.random.default_rng(0))
    whole = check.run(kernel_of(p, algorithm, "numba"), p, arrays)
    if flops is not None:
        monkeypatch.setattr(blocking, "ROUND_FLOPS", flops)
    monkeypatch.setattr(numba_jit, "_calls", Kept(1 << 20))
    rounds: list[int] = []

    def perform(entry: Any, parts: int, context: int) -> None:
        rounds.append(parts)
        for part in which:
            entry.ctypes(context, part)

    with fastconv.config(num_threads=3):
        kernel = kernel_of(p, algorithm, "numba")
        packed = kernel.pack(arrays.w, arrays.b)
        monkeypatch.setattr(numba_jit, "perform", perform)
        out = np.full(p.output_shape, np.nan, p.dtype)
        kernel.run(arrays.x, packed, out)
    assert set(rounds) == {3} and (len(rounds) > 1) == (flops is not None)
    assert np.array_equal(out, whole)


@pytest.mark.parametrize(("algorithm", "p"), PROBLEMS.items(), ids=list(PROBLEMS))
def test_a_prepared_call_of_several_rounds(algorithm: str, p: ConvProblem, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes the long way, where Python handles signals between rounds, and each round begins with all of its items."""
    from fastconv.backends.numba_jit import blocking

    algorithm = algorithm.split()[0]
    arrays, out = random_arrays(p, np.random.default_rng(0)), np.full(p.output_shape, np.nan, p.dtype)
    whole = check.run(kernel_of(p, algorithm, "numba"), p, arrays)
    monkeypatch.setattr(blocking, "ROUND_FLOPS", 100_000)
    monkeypatch.setattr(numba_jit, "_calls", Kept(1 << 20))
    op = stated.operator(p, arrays.w, arrays.b, backend="numba", algorithm=algorithm, input_shape=p.input_shape)
    for _ in range(2):
        assert np.array_equal(op(arrays.x, out=out), whole)
        out.fill(np.nan)


def test_there_is_room_behind_a_context() -> None:
    from fastconv.backends.numba_jit import contexts

    assert len(contexts.CONTEXT.fields or ()) <= contexts.SHARES == numba_jit._SHARES
    assert 8 * (contexts.SHARES + contexts.MOST_SHARERS) <= numba_jit.Scratch.CONTEXT_BYTES
